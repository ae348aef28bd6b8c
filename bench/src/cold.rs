//! From nothing to the first answer, and what an idle server holds and burns.

use std::time::Duration;

use crate::{
    api::{self, CALL_DEADLINE, within},
    clock,
    compare::{Plan, record},
    error::Result,
    launch::{Program, Server, fresh_folder},
    process,
    requests::Names,
    table::{cell, markdown, spread},
};

/// Rest after the first start, before idle figures are taken.
const REST: Duration = Duration::from_secs(3);
/// Length of the idle figures.
const IDLE: Duration = Duration::from_secs(5);

/// Figures of one cold start.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Cold {
    /// Which server.
    pub server: String,
    /// Whether the folder held data of a previous run.
    pub existing: bool,
    /// Execution to the first successful GetSystemInfo.
    pub ready_ms: f64,
    /// Execution to the first successful StartWorkflowExecution.
    pub first_start_ms: f64,
    /// Processor time until then.
    pub cpu_s: f64,
    /// Resident memory at rest.
    pub resident_mb: f64,
    /// Processor at rest, percent of one core.
    pub idle_percent: f64,
    /// From the request to stop to the end of the process.
    pub stop_ms: f64,
}

async fn once(plan: &Plan, program: &Program, folder: &std::path::Path, existing: bool) -> Result<Cold> {
    tokio::time::sleep(plan.settings.pause).await;
    let mut server = Server::launch(program, folder, plan.durability)?;
    let ready = server.answers().await?;
    let names = Names::new(&clock::prefix(), &plan.settings.namespace, plan.settings.payload_bytes);
    let first_start = loop {
        let last = match api::dial(&server.address()).await {
            Ok(channel) => {
                let request = within(CALL_DEADLINE, names.start(names.workflow_id(0), 0));
                match api::client(channel).start_workflow_execution(request).await {
                    Ok(_) => break server.executed.elapsed(),
                    Err(status) => status.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        server.still_starting(last)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let pid = server.pid().unwrap_or_default();
    let started = process::usage(pid)?;
    tokio::time::sleep(REST).await;
    let before = process::usage(pid)?;
    tokio::time::sleep(IDLE).await;
    let after = process::usage(pid)?;
    let stopped = server.stop().await?;
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Ok(Cold {
        server: program.to_string(),
        existing,
        ready_ms: millis(ready),
        first_start_ms: millis(first_start),
        cpu_s: started.cpu.as_secs_f64(),
        resident_mb: after.resident_mb,
        idle_percent: (after.cpu - before.cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0,
        stop_ms: millis(stopped),
    })
}

/// Starts every program so many times on a new folder and again on what it left there.
///
/// # Errors
/// When a program does not start, answer or stop.
pub async fn run(plan: &Plan) -> Result<String> {
    let mut all: Vec<Cold> = Vec::new();
    for _ in 0..plan.runs {
        for program in &plan.programs {
            let folder = fresh_folder(&plan.folder)?;
            for existing in [false, true] {
                let cold = once(plan, program, folder.path(), existing).await?;
                record(plan.record.as_deref(), &cold)?;
                all.push(cold);
            }
        }
    }
    let mut rows = Vec::new();
    for program in &plan.programs {
        for existing in [false, true] {
            let of = |figure: fn(&Cold) -> f64| {
                let matching = all.iter().filter(|cold| cold.server == program.to_string());
                cell(spread(matching.filter(|cold| cold.existing == existing).map(figure)))
            };
            rows.push(vec![
                format!("{program}, {} folder", if existing { "existing" } else { "new" }),
                of(|cold| cold.ready_ms),
                of(|cold| cold.first_start_ms),
                of(|cold| cold.cpu_s),
                of(|cold| cold.resident_mb),
                of(|cold| cold.idle_percent),
                of(|cold| cold.stop_ms),
            ]);
        }
    }
    let head = [
        "server",
        "first GetSystemInfo, ms",
        "first StartWorkflowExecution, ms",
        "CPU s until then",
        "MB at rest",
        "% of a core at rest",
        "stop, ms",
    ];
    Ok(markdown(&head, &rows))
}
