//! Generates the public API from the descriptor set that `temporalio-protos` exports, and our own contracts from `proto/`.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

const OWN: [&str; 4] = [
    "antipode/core/v1/run.proto",
    "antipode/core/v1/namespace.proto",
    "antipode/link/v1/link.proto",
    "antipode/admin/v1/admin.proto",
];

/// The largest kinds of event: unboxed, the first makes every event in memory 1.9 KB large, be it a timer or a signal.
const BOXED: [&str; 3] = [
    "workflow_execution_started_event_attributes",
    "start_child_workflow_execution_initiated_event_attributes",
    "workflow_execution_continued_as_new_event_attributes",
];

fn wanted(file: &FileDescriptorProto) -> bool {
    let package = file.package();
    let public = package.starts_with("temporal.api.")
        && !package.starts_with("temporal.api.cloud")
        && !package.starts_with("temporal.api.testservice");
    public || package == "google.rpc" || package == "google.protobuf" || package == "google.api"
}

struct Own(IncludeFileResolver);

impl FileResolver for Own {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        self.0.open_file(name)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::var("DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH")?;
    println!("cargo:rerun-if-changed={path}");
    println!("cargo:rerun-if-changed=proto");
    let mut public = FileDescriptorSet::decode(&*fs::read(&path)?)?;
    public.file.retain(wanted);

    let include = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let mut resolver = ChainFileResolver::new();
    resolver.add(Own(IncludeFileResolver::new(include)));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true);
    for file in OWN {
        compiler.open_file(file)?;
    }
    let mut all = public;
    let present: BTreeSet<String> = all.file.iter().map(|f| f.name().to_string()).collect();
    let own = compiler.file_descriptor_set().file;
    all.file.extend(own.into_iter().filter(|f| !present.contains(f.name())));

    let mut config = prost_build::Config::new();
    config.btree_map(["."]).bytes(["."]).enable_type_names();
    for kind in BOXED {
        config.boxed(format!(".temporal.api.history.v1.HistoryEvent.attributes.{kind}"));
    }
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    if grpc {
        tonic_prost_build::configure()
            .build_server(true)
            .build_client(true)
            .generate_default_stubs(true)
            .disable_comments(["."])
            .include_file("all.rs")
            .compile_fds_with_config(all, config)?;
    } else {
        config.disable_comments(["."]);
        config.include_file("all.rs");
        config.compile_fds(all)?;
    }
    Ok(())
}
