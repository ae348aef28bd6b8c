//! Replication lag seen from outside: a signal is sent to a run in east; a long poll on the same run in west returns when
//! the event is durable there. Lag is the time from east's acknowledgement to west's answer, so it includes one answer
//! over loopback. It is zero when west answered first.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antipode_proto::api::{
    history::v1::history_event::Attributes,
    workflowservice::v1::{GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse},
};
use hdrhistogram::Histogram;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::Code;

use crate::{
    api::{Api, CALL_DEADLINE, execution, within},
    clock,
    error::{Error, Result},
    errors::{Errors, persistent},
    requests::{Names, SIGNAL, number_in},
};

/// Deadline of a long poll.
const POLL_DEADLINE: Duration = Duration::from_secs(30);
/// How long a signal may take to reach west before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two probes: at rest means that the pipes are empty.
const PAUSE: Duration = Duration::from_millis(15);
/// Signals that one probed run takes.
const SIGNALS_PER_RUN: usize = 2_000;

/// Lags of the probes.
#[derive(Debug)]
pub struct Lags {
    /// In microseconds.
    pub lag: Histogram<u64>,
    /// Probes that west showed before east's acknowledgement had arrived.
    pub ahead: u64,
}

struct Probe {
    names: Names,
    east: Api,
    arrivals: mpsc::UnboundedReceiver<(usize, Instant)>,
    errors: Errors,
    _watcher: JoinSet<()>,
}

/// Sends probes for a while.
///
/// # Errors
/// When a probe never arrives, or a region refuses.
pub async fn run(east: &Api, west: &Api, length: Duration) -> Result<Lags> {
    let mut lags = Lags { lag: Histogram::new_with_bounds(1, 600_000_000, 3)?, ahead: 0 };
    let until = clock::now() + length;
    while clock::now() < until {
        let mut probe = Probe::start(east, west).await?;
        for number in 0..SIGNALS_PER_RUN {
            if clock::now() >= until {
                break;
            }
            let acknowledged = probe.signal(number).await?;
            let arrived = probe.arrival(number).await?;
            lags.ahead += u64::from(arrived < acknowledged);
            lags.lag.saturating_record(clock::micros(arrived.saturating_duration_since(acknowledged)));
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(lags)
}

impl Probe {
    async fn start(east: &Api, west: &Api) -> Result<Self> {
        let names = Names::new(&clock::prefix(), &east.namespace, 100);
        let errors = Errors::default();
        let start = || {
            let mut client = east.client(0);
            let request = names.start(names.workflow_id(0), 0);
            async move { client.start_workflow_execution(within(CALL_DEADLINE, request)).await }
        };
        let started = persistent(&errors, "StartWorkflowExecution", start)
            .await
            .map_err(|status| refused("StartWorkflowExecution", east, status))?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        let mut watcher = JoinSet::new();
        let watch = watch(Arc::new(west.clone()), names.workflow_id(0), started.run_id, sender);
        watcher.spawn(watch);
        let mut probe = Self { names, east: east.clone(), arrivals, errors, _watcher: watcher };
        // The watcher reports once that the run is there.
        probe.arrival(usize::MAX).await?;
        Ok(probe)
    }

    async fn signal(&self, number: usize) -> Result<Instant> {
        let signal = || {
            let mut client = self.east.client(0);
            let request = self.names.signal(&self.names.workflow_id(0), SIGNAL, number);
            async move { client.signal_workflow_execution(within(CALL_DEADLINE, request)).await }
        };
        persistent(&self.errors, "SignalWorkflowExecution", signal)
            .await
            .map_err(|status| refused("SignalWorkflowExecution", &self.east, status))?;
        Ok(clock::now())
    }

    async fn arrival(&mut self, number: usize) -> Result<Instant> {
        let behind = |why: String| Error::Behind {
            what: if number == usize::MAX { "a probed run".to_string() } else { format!("signal {number}") },
            region: "west".to_string(),
            why,
        };
        match tokio::time::timeout(PATIENCE, self.arrivals.recv()).await {
            Ok(Some((seen, at))) if seen == number => Ok(at),
            Ok(Some((seen, _))) => Err(behind(format!("signal {seen} came instead"))),
            Ok(None) => Err(behind("the long poll ended".to_string())),
            Err(_) => Err(behind(format!("not there after {} s", PATIENCE.as_secs()))),
        }
    }
}

fn refused(method: &'static str, api: &Api, status: tonic::Status) -> Error {
    Error::Call { method, address: api.address.clone(), status: Box::new(status) }
}

/// Long-polls a run and reports each signal with the moment of the answer that showed it.
async fn watch(
    west: Arc<Api>,
    workflow_id: String,
    run_id: String,
    arrivals: mpsc::UnboundedSender<(usize, Instant)>,
) {
    let mut client = west.client(0);
    let mut request = GetWorkflowExecutionHistoryRequest {
        namespace: west.namespace.clone(),
        execution: Some(execution(&workflow_id, &run_id)),
        wait_new_event: true,
        ..GetWorkflowExecutionHistoryRequest::default()
    };
    let mut present = false;
    loop {
        match client.get_workflow_execution_history(within(POLL_DEADLINE, request.clone())).await {
            Ok(answer) => {
                let (answer, at) = (answer.into_inner(), clock::now());
                if !present {
                    present = true;
                    if arrivals.send((usize::MAX, at)).is_err() {
                        return;
                    }
                }
                for number in signals(&answer) {
                    if arrivals.send((number, at)).is_err() {
                        return;
                    }
                }
                request.next_page_token = answer.next_page_token;
                if request.next_page_token.is_empty() {
                    return;
                }
            }
            // Not replicated yet, or the poll's own deadline.
            Err(status) if matches!(status.code(), Code::NotFound | Code::DeadlineExceeded) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => return,
        }
    }
}

fn signals(answer: &GetWorkflowExecutionHistoryResponse) -> impl Iterator<Item = usize> + '_ {
    answer.history.iter().flat_map(|history| &history.events).filter_map(|event| match &event.attributes {
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(signal)) => {
            number_in(signal.input.as_ref())
        }
        _ => None,
    })
}
