//! What was sent, what was acknowledged, what came back: one entry an operation, kept to the end of the run, so that a
//! lost or doubled operation has a number and not only a rate.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hdrhistogram::Histogram;
use tokio::sync::oneshot;

use crate::{case::Shape, clock, error::Result, faults::Faults};

/// One operation.
#[derive(Debug, Default)]
pub struct Operation {
    /// The call that began it was acknowledged: from here on the server owes it.
    pub accepted: bool,
    /// First attempts of workflow tasks that reached the worker.
    pub workflow_tasks: u32,
    /// First attempts of activity tasks that reached the worker.
    pub activity_tasks: u32,
    /// Deliveries with an attempt above one: legal, and shown.
    pub retried_tasks: u32,
    /// Acknowledged completions that close the workflow.
    pub closes: u32,
    waiter: Option<oneshot::Sender<Instant>>,
}

/// All operations of a run, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    operations: Mutex<Vec<Operation>>,
}

/// Resolves with the moment at which the closing completion was acknowledged.
pub type Closed = oneshot::Receiver<Instant>;

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for the next operation.
    pub fn begin(&self) -> (usize, Closed) {
        let (sender, receiver) = oneshot::channel();
        let mut operations = self.lock();
        operations.push(Operation { waiter: Some(sender), ..Operation::default() });
        (operations.len() - 1, receiver)
    }

    /// The call that begins it was acknowledged.
    pub fn accepted(&self, number: usize) {
        if let Some(operation) = self.lock().get_mut(number) {
            operation.accepted = true;
        }
    }

    /// A workflow task reached the worker.
    pub fn workflow_task(&self, number: usize, attempt: i32) {
        if let Some(operation) = self.lock().get_mut(number) {
            let first = attempt <= 1;
            operation.workflow_tasks += u32::from(first);
            operation.retried_tasks += u32::from(!first);
        }
    }

    /// An activity task reached the worker.
    pub fn activity_task(&self, number: usize, attempt: i32) {
        if let Some(operation) = self.lock().get_mut(number) {
            let first = attempt <= 1;
            operation.activity_tasks += u32::from(first);
            operation.retried_tasks += u32::from(!first);
        }
    }

    /// A closing completion was acknowledged.
    pub fn closed(&self, number: usize, at: Instant) {
        let waiter = self.lock().get_mut(number).and_then(|operation| {
            operation.closes += 1;
            operation.waiter.take()
        });
        if let Some(waiter) = waiter {
            // The slot may have lost its patience; the ledger still knows.
            let _late = waiter.send(at);
        }
    }

    /// Operations that were acknowledged.
    #[must_use]
    pub fn accepted_numbers(&self) -> Vec<usize> {
        let operations = self.lock();
        let accepted = operations.iter().enumerate().filter(|(_, operation)| operation.accepted);
        accepted.map(|(number, _)| number).collect()
    }

    /// Acknowledged workflows that are not closed yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.lock().iter().filter(|operation| operation.accepted && operation.closes == 0).count()
    }

    /// Deliveries with an attempt above one.
    #[must_use]
    pub fn retried_tasks(&self) -> u64 {
        self.lock().iter().map(|operation| u64::from(operation.retried_tasks)).sum()
    }

    /// What the worker's side of the books says about workflows of a shape.
    #[must_use]
    pub fn faults(&self, shape: Shape) -> Faults {
        let mut faults = Faults::default();
        for (number, operation) in self.lock().iter().enumerate() {
            if operation.accepted && operation.closes == 0 {
                faults.lost(format!("workflow {number} was acknowledged and never closed"));
            }
            if operation.closes > 1 {
                faults.doubled(format!("workflow {number} was closed {} times", operation.closes));
            }
            if operation.workflow_tasks > shape.workflow_tasks() {
                let seen = operation.workflow_tasks;
                faults.doubled(format!("workflow {number} had {seen} workflow tasks of attempt 1"));
            }
            if operation.activity_tasks > shape.activity_tasks() {
                let seen = operation.activity_tasks;
                faults.doubled(format!("workflow {number} had {seen} activity tasks of attempt 1"));
            }
        }
        faults
    }
}

/// Latencies and counts of one phase.
#[derive(Debug)]
pub struct Meter {
    from: Instant,
    until: Instant,
    inner: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    latency: Histogram<u64>,
    inside: u64,
}

/// What a phase came to.
#[derive(Debug)]
pub struct Reading {
    /// From the first to the last moment at which operations were begun, in seconds.
    pub seconds: f64,
    /// Operations that ended in that time.
    pub inside: u64,
    /// Operations that were begun in that time and ended, whenever.
    pub operations: u64,
    /// Latencies of those, in microseconds.
    pub latency: Histogram<u64>,
}

impl Meter {
    /// Starts a phase that begins operations until a moment.
    ///
    /// # Errors
    /// When the histogram cannot be made.
    pub fn new(until: Instant) -> Result<Self> {
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3)?;
        Ok(Self { from: clock::now(), until, inner: Mutex::new(Counts { latency, inside: 0 }) })
    }

    /// When no further operation is begun.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// One operation ended.
    pub fn record(&self, begin: Instant, end: Instant) {
        let mut counts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        counts.latency.saturating_record(clock::micros(end.saturating_duration_since(begin)));
        counts.inside += u64::from(end <= self.until);
    }

    /// The sums so far.
    #[must_use]
    pub fn read(&self) -> Reading {
        let counts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            seconds: self.until.saturating_duration_since(self.from).as_secs_f64(),
            inside: counts.inside,
            operations: counts.latency.len(),
            latency: counts.latency.clone(),
        }
    }
}
