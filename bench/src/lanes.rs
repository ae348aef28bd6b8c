//! Open workflows that take signals. A lane is one workflow at a time; when a workflow has taken so many signals that
//! the usual limit of 10,000 would be near, the lane goes on with the next one.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex as Gate, Notify};

use crate::{
    api::{CALL_DEADLINE, Client, within},
    errors::{Errors, persistent},
    requests::{FINISH, Names},
};

/// Counted signals that one workflow takes.
pub const SIGNALS_PER_WORKFLOW: u64 = 8_000;
/// Times the finishing signal is sent before a workflow counts as stuck.
const FINISH_TRIES: usize = 15;
/// Wait for the close before the finishing signal is sent again.
const FINISH_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Lane {
    workflow: Option<usize>,
    sent: u64,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    finishing: bool,
    closes: u32,
}

/// All lanes of a run.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Gate<Lane>>,
    workflows: Mutex<Vec<State>>,
    closed: Notify,
}

impl Lanes {
    /// So many lanes, without workflows yet.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let lanes = (0..count).map(|_| Gate::default()).collect();
        Self { lanes, workflows: Mutex::default(), closed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.workflows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workflow that the nth signal goes to; started if need be.
    ///
    /// # Errors
    /// The refusal of the start.
    pub async fn target(
        &self,
        number: usize,
        names: &Names,
        client: &Client,
        errors: &Errors,
    ) -> Result<usize, tonic::Status> {
        let mut lane = self.lanes[number % self.lanes.len()].lock().await;
        lane.sent += 1;
        if let Some(workflow) = lane.workflow
            && lane.sent <= SIGNALS_PER_WORKFLOW
        {
            return Ok(workflow);
        }
        let workflow = {
            let mut workflows = self.lock();
            workflows.push(State::default());
            workflows.len() - 1
        };
        let start = || {
            let mut client = client.clone();
            let request = names.start(names.lane_id(workflow), workflow);
            async move { client.start_workflow_execution(within(CALL_DEADLINE, request)).await }
        };
        persistent(errors, "StartWorkflowExecution", start).await?;
        if let Some(state) = self.lock().get_mut(workflow) {
            state.started = true;
        }
        *lane = Lane { workflow: Some(workflow), sent: 1 };
        Ok(workflow)
    }

    /// Whether the worker shall end this workflow whatever its task shows. A workflow's later pages are not fetched, so
    /// the finishing signal itself may be out of the worker's sight.
    #[must_use]
    pub fn finishing(&self, workflow: usize) -> bool {
        self.lock().get(workflow).is_some_and(|state| state.finishing)
    }

    /// The closing completion was acknowledged.
    pub fn closed(&self, workflow: usize) {
        if let Some(state) = self.lock().get_mut(workflow) {
            state.closes += 1;
        }
        self.closed.notify_waiters();
    }

    /// Workflows whose start was acknowledged.
    #[must_use]
    pub fn started(&self) -> Vec<usize> {
        let workflows = self.lock();
        let started = workflows.iter().enumerate().filter(|(_, state)| state.started);
        started.map(|(workflow, _)| workflow).collect()
    }

    /// Acknowledged closing completions of a workflow.
    #[must_use]
    pub fn closes(&self, workflow: usize) -> u32 {
        self.lock().get(workflow).map_or(0, |state| state.closes)
    }

    /// Ends all workflows. The finishing signal is repeated: a task that was handed out before the first one was
    /// acknowledged may not show it.
    pub async fn finish(&self, names: &Names, client: &Client, errors: &Errors) {
        for workflow in self.started() {
            for round in 0..FINISH_TRIES {
                let closed = self.closed.notified();
                if self.closes(workflow) > 0 {
                    break;
                }
                let signal = || {
                    let mut client = client.clone();
                    let request = names.signal(&names.lane_id(workflow), FINISH, round);
                    async move { client.signal_workflow_execution(within(CALL_DEADLINE, request)).await }
                };
                if persistent(errors, "SignalWorkflowExecution", signal).await.is_err() {
                    break;
                }
                if let Some(state) = self.lock().get_mut(workflow) {
                    state.finishing = true;
                }
                // Woken by any close; the loop looks whose it was.
                let _either = tokio::time::timeout(FINISH_WAIT, closed).await;
            }
        }
    }
}
