//! Lists the RPCs of the public API from the descriptor set that `temporalio-protos` exports: the same set that `proto/`
//! generates its services from, so the list can't differ from what a client may call.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::var("DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH")?;
    println!("cargo:rerun-if-changed={path}");
    let set = FileDescriptorSet::decode(&*fs::read(&path)?)?;
    let mut out = String::new();
    for (package, service, name) in [
        ("temporal.api.workflowservice.v1", "WorkflowService", "WORKFLOW_SERVICE"),
        ("temporal.api.operatorservice.v1", "OperatorService", "OPERATOR_SERVICE"),
    ] {
        let methods: Vec<&str> = set
            .file
            .iter()
            .filter(|f| f.package() == package)
            .flat_map(|f| &f.service)
            .filter(|s| s.name() == service)
            .flat_map(|s| &s.method)
            .map(prost_types::MethodDescriptorProto::name)
            .collect();
        writeln!(
            out,
            "/// RPCs of `{service}`.\npub const {name}: [&str; {}] = {methods:?};",
            methods.len()
        )?;
    }
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("rpcs.rs"), out)?;
    Ok(())
}
