//! The figures of one measurement, as they are recorded.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Result};

/// One measurement of one case against one server.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which server.
    pub server: String,
    /// Which case.
    pub case: String,
    /// What is counted.
    pub unit: String,
    /// Operations begun in the measured time that ended.
    pub operations: u64,
    /// Operations that ended in the measured time, per second of it.
    pub per_second: f64,
    /// Median latency.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The slowest one.
    pub max_ms: f64,
    /// Processor time of the server, with the seconds of settling.
    pub server_cpu_s_per_1000: Option<f64>,
    /// Processor time of the process beside it.
    pub beside_cpu_s_per_1000: Option<f64>,
    /// Cores the server kept busy while measured.
    pub server_cores: Option<f64>,
    /// Processor time of the generator.
    pub generator_cpu_s_per_1000: f64,
    /// Cores the generator kept busy while measured.
    pub generator_cores: f64,
    /// Resident memory of the server before the first operation.
    pub resident_mb_rest: Option<f64>,
    /// Resident memory of the server after the last one.
    pub resident_mb_after: Option<f64>,
    /// `start` only: workflows completed per second once workers polled.
    pub drained_per_second: Option<f64>,
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// There with another content or state.
    pub wrong: u64,
    /// The first of them in words.
    pub faults: Option<String>,
    /// Histories that were read and found right or wrong.
    pub verified: u64,
    /// Refusals by call and code, retried or not.
    pub errors: BTreeMap<String, u64>,
}

impl Outcome {
    /// The figures, if they may be used.
    ///
    /// # Errors
    /// When anything was lost, doubled or wrong, or nothing was done.
    pub fn sound(self) -> Result<Self> {
        let unsound = |faults: String, outcome: &Self| Error::Unsound {
            case: outcome.case.clone(),
            server: outcome.server.clone(),
            faults,
        };
        if let Some(faults) = &self.faults {
            return Err(unsound(faults.clone(), &self));
        }
        if self.operations == 0 || self.verified == 0 {
            return Err(unsound(format!("nothing completed; refusals: {:?}", self.errors), &self));
        }
        Ok(self)
    }
}
