//! Scenarios: YAML files that say what happens and what must be so then. What is wrong with a file is said with line, column
//! and what was expected.

mod acts;
mod check;
mod expectation;
mod places;
mod words;
mod yaml;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    engine::{
        Engine, Failure,
        script::{End, Script},
        seen::Seen,
    },
    trace::{Finding, Recording},
};

/// A file that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Malformed {
    /// The file.
    pub file: String,
    /// Line, column, and what was expected.
    pub why: String,
}

/// What came of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// What is broken; empty: nothing.
    pub findings: Vec<Finding>,
    /// Hash over the bytes of every transition.
    pub hash: String,
    /// Steps of the scheduler.
    pub steps: u64,
    /// Committed changes of runs.
    pub transitions: u64,
    /// Committed events.
    pub events: u64,
    /// Virtual nanoseconds.
    pub virtual_nanos: i64,
    /// Interesting states.
    pub seen: Seen,
    /// Injected faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Calls that clients made.
    pub calls: u64,
    /// Calls that were acknowledged.
    pub acknowledged: u64,
    /// Failovers that took effect.
    pub failovers: u64,
    /// The recording, when it was asked for.
    #[serde(skip)]
    pub recording: Option<Box<Recording>>,
}

impl Outcome {
    /// What an engine has come to.
    #[must_use]
    pub fn of(mut engine: Engine) -> Self {
        let end = engine.elapsed().0;
        let mut recording = engine.trace.recording.take();
        if let Some(recording) = &mut recording {
            recording.end = end;
            recording.steps = engine.steps();
        }
        Self {
            hash: engine.trace.digest(),
            steps: engine.steps(),
            transitions: engine.transitions,
            events: engine.events,
            virtual_nanos: end,
            faults: engine.faults.iter().map(|(kind, count)| ((*kind).to_string(), *count)).collect(),
            calls: engine.calls_made(),
            acknowledged: engine.calls_acknowledged(),
            failovers: engine.failovers(),
            findings: std::mem::take(&mut engine.findings),
            seen: std::mem::take(&mut engine.seen),
            recording,
        }
    }
}

/// Reads a scenario.
///
/// # Errors
/// [`Malformed`].
pub fn parse(file: &str, text: &str) -> Result<Script, Malformed> {
    let wrong = |why: String| Malformed { file: file.to_string(), why };
    let script: Script = serde_saphyr::from_str(text).map_err(|error| wrong(yaml::words(&error, text)))?;
    match check::wrong(&script, text) {
        Some(why) => Err(wrong(why)),
        None => Ok(script),
    }
}

/// Reads a scenario from the bytes of a file.
///
/// # Errors
/// [`Malformed`], also when the bytes are no text.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Script, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(error) => {
            Err(Malformed { file: file.to_string(), why: yaml::no_text(bytes, error.valid_up_to()) })
        }
    }
}

/// Runs a scenario. `recorded`: somebody wants to read it.
///
/// # Errors
/// [`Failure`] when it names what is not there.
pub fn run(script: &Script, recorded: bool) -> Result<Outcome, Failure> {
    let mut engine = Engine::new(&script.world, recorded.then_some(script.name.as_str()))?;
    for (index, step) in script.steps.iter().enumerate() {
        engine.perform(step).map_err(|failure| match failure {
            Failure::Script(why) => Failure::Script(format!("step {}: {why}", index + 1)),
            other => other,
        })?;
        if !engine.findings.is_empty() {
            for finding in &mut engine.findings {
                if finding.oracle == "expect" {
                    finding.text = format!("step {}: {}", index + 1, finding.text);
                }
            }
            return Ok(Outcome::of(engine));
        }
    }
    if script.end == End::Rest {
        engine.rest()?;
    }
    Ok(Outcome::of(engine))
}

/// Why a pending scenario shows nothing: its body holds although the feature is not there. None: it waits for it, as it says.
#[must_use]
pub fn holds_already(script: &Script) -> Option<String> {
    let holds = || run(script, false).is_ok_and(|outcome| outcome.findings.is_empty());
    (script.pending.is_some() && holds())
        .then(|| "pending, and holds: take `pending` away, or say in it what shall hold".to_string())
}

/// All scenario files under a path, by name.
///
/// # Errors
/// The path cannot be read.
pub fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    // A device or a pipe is read as a file: what is in it decides.
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
