//! What the tests of decisions and fold share: a run whose chain goes on by every way, the kinds of commands that are built, and
//! what makes two copies of a run the same run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod sources;
mod starts;

use std::sync::Arc;

use antipode_core::{
    batch::Batch,
    digest::digest,
    run::{Pushed, Run},
};
use antipode_proto::api::{common::v1::RetryPolicy, enums::v1::CommandType, workflowservice::v1 as ws};

use crate::support::{Author, events, seconds, shared_bytes, start_request};

/// Kinds of commands that are built. Every other one is refused with its name; see `refused_commands.rs`.
pub const BUILT: [CommandType; 11] = [
    CommandType::ScheduleActivityTask,
    CommandType::RequestCancelActivityTask,
    CommandType::StartTimer,
    CommandType::CancelTimer,
    CommandType::RecordMarker,
    CommandType::UpsertWorkflowSearchAttributes,
    CommandType::ModifyWorkflowProperties,
    CommandType::CompleteWorkflowExecution,
    CommandType::CancelWorkflowExecution,
    CommandType::FailWorkflowExecution,
    CommandType::ContinueAsNewWorkflowExecution,
];

/// A start with a retry policy and a run timeout, so that chains go on by every way.
pub fn request() -> ws::StartWorkflowExecutionRequest {
    ws::StartWorkflowExecutionRequest {
        workflow_run_timeout: seconds(300),
        retry_policy: Some(RetryPolicy { initial_interval: seconds(1), ..Default::default() }),
        ..start_request()
    }
}

/// The run that it starts.
pub fn begin() -> Author {
    Author::begin_with(&request(), 2)
}

/// The run as the store would give it back, and as a peer that got every batch has it.
pub fn check(author: &Author) {
    let run = &author.run;
    let stored = Run::restore(run.key.clone(), &run.head(), author.batches.iter().cloned()).unwrap();
    assert_eq!(stored.state, run.state);
    assert_eq!(stored.head(), run.head());
    assert_eq!(digest(&stored), digest(run));
    assert_eq!(stored.task(), run.task());
    let mut peer = Run::new(run.key.clone(), run.first_run);
    for batch in &author.batches {
        let received = Batch::open(batch.envelope_bytes.clone(), batch.events.clone()).unwrap();
        assert_eq!(received.chain, batch.chain);
        let pushed = peer.push(&Arc::new(received)).unwrap();
        assert!(run.branches().len() > 1 || pushed == Pushed::Grew, "{pushed:?}");
    }
    peer.merge(&run.state_wire());
    assert!(!peer.merge(&run.state_wire()), "a second merge changes nothing (V19)");
    assert_eq!(peer.state, run.state);
    assert_eq!(digest(&peer), digest(run));
    assert_eq!(shared_bytes(&peer), shared_bytes(run));
    // V01: ids 1..n without gap; V03: one version a batch, strictly increasing by item.
    let events = events(run);
    assert!(events.iter().zip(1..).all(|(event, id)| event.event_id == id));
    assert!(events.windows(2).all(|pair| pair[0].version <= pair[1].version));
    // H2: time never goes back.
    let times: Vec<_> =
        events.iter().map(|event| event.event_time.map(|at| (at.seconds, at.nanos))).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
}
