//! GetWorkflowExecutionHistory and its reverse: pages of a run's current branch, read here in every region (R911). A page
//! token pins the run and the branch, so that a reader never gets two branches in one read.

use std::time::Duration;

use antipode_core::{
    chain::ChainValue,
    ids::{EventId, RunId, WorkflowKey},
};
use antipode_history::api::{HistoryPage, HistoryRequest, Operation, Refusal, Reply, Request};
use antipode_proto::api::{
    enums::v1::HistoryEventFilterType, history::v1::History, workflowservice::v1 as ws,
};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::{call::Call, context::Context, errors, limits, ports, validate};

/// Where the next page begins. Field numbers are for ever: a client may come back with it after an upgrade.
#[derive(Clone, PartialEq, Message)]
struct PageToken {
    #[prost(bytes = "bytes", tag = "1")]
    run: Bytes,
    #[prost(int64, tag = "2")]
    from: i64,
    #[prost(bytes = "bytes", tag = "3")]
    branch: Bytes,
    #[prost(bool, tag = "4")]
    reverse: bool,
}

/// A place in a run's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    run: RunId,
    from: EventId,
    branch: ChainValue,
}

impl Place {
    fn encode(self, reverse: bool) -> Bytes {
        let token = PageToken {
            run: Bytes::copy_from_slice(self.run.0.as_bytes()),
            from: self.from.0,
            branch: self.branch.to_bytes(),
            reverse,
        };
        Bytes::from(token.encode_to_vec())
    }

    /// The place that a token names; none when the request has no token.
    fn decode(bytes: &[u8], reverse: bool, run: Option<RunId>) -> Result<Option<Self>, Status> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let bad = || errors::invalid("Invalid NextPageToken.");
        let token = PageToken::decode(bytes).map_err(|_| bad())?;
        let id: [u8; 16] = token.run.as_ref().try_into().map_err(|_| bad())?;
        let place = Self {
            run: RunId(uuid::Uuid::from_bytes(id)),
            from: EventId(token.from),
            branch: ChainValue::from_bytes(&token.branch).ok_or_else(bad)?,
        };
        let fits = token.reverse == reverse && token.from >= 1 && run.is_none_or(|run| run == place.run);
        if fits { Ok(Some(place)) } else { Err(bad()) }
    }
}

/// One read, as the request asked for it.
struct Read<'a> {
    context: &'a Context,
    workflow: WorkflowKey,
    run: Option<RunId>,
    page_size: usize,
    close_event_only: bool,
    reverse: bool,
}

impl Read<'_> {
    async fn page(&self, at: Option<Place>, wait: bool) -> Result<HistoryPage, Refusal> {
        let operation = Operation::History(HistoryRequest {
            from: at.map(|place| place.from).unwrap_or_default(),
            page_size: self.page_size,
            wait,
            close_event_only: self.close_event_only,
            reverse: self.reverse,
            branch: at.map(|place| place.branch),
        });
        let run = at.map(|place| place.run).or(self.run);
        let asked = Request { workflow: self.workflow.clone(), run, operation };
        match self.context.history.call(asked).await? {
            Reply::History(page) => Ok(page),
            _ => Err(Refusal::Internal("unexpected answer to History".to_string())),
        }
    }

    /// A page at a place, once there is something; none when nothing came in time.
    async fn page_in(&self, at: Place, patience: Duration) -> Result<Option<HistoryPage>, Status> {
        match tokio::time::timeout(patience, self.page(Some(at), true)).await {
            Ok(page) => page.map(Some).map_err(|refusal| errors::status_of(&refusal)),
            Err(_elapsed) => Ok(None),
        }
    }
}

/// GetWorkflowExecutionHistory.
pub(crate) async fn get_workflow_execution_history(
    context: &Context,
    call: &Call,
    request: ws::GetWorkflowExecutionHistoryRequest,
) -> Result<ws::GetWorkflowExecutionHistoryResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let (workflow, run) = validate::execution(request.execution.as_ref())?;
    let at = Place::decode(&request.next_page_token, false, run)?;
    let read = Read {
        context,
        workflow: ports::workflow_key(namespace.id, workflow),
        run,
        page_size: page_size(request.maximum_page_size),
        close_event_only: request.history_event_filter_type == HistoryEventFilterType::CloseEvent as i32,
        reverse: false,
    };
    if request.wait_new_event {
        waiting(&read, at, call.history_wait()).await
    } else {
        at_once(&read, at).await
    }
}

/// What there is now. The token is empty at the end.
async fn at_once(
    read: &Read<'_>,
    at: Option<Place>,
) -> Result<ws::GetWorkflowExecutionHistoryResponse, Status> {
    let page = read.page(at, false).await.map_err(|refusal| errors::status_of(&refusal))?;
    let history = decode(&page.events)?;
    // Who asks for the closing event and does not wait would ask for ever while the run is open.
    let next = page.next.filter(|_| !read.close_event_only);
    Ok(answer(history, next.map(|from| Place { run: page.run, from, branch: page.branch })))
}

/// What there is, or what comes next. While the run is open, and until its last page, the token is set.
async fn waiting(
    read: &Read<'_>,
    at: Option<Place>,
    patience: Duration,
) -> Result<ws::GetWorkflowExecutionHistoryResponse, Status> {
    let at = match at {
        Some(place) => place,
        None => {
            // The first read never waits: it finds at least the first event, and pins the run.
            let first = read.page(None, false).await.map_err(|refusal| errors::status_of(&refusal))?;
            let history = decode(&first.events)?;
            if !read.close_event_only || !first.open {
                return Ok(answer(history.clone(), continued(&first, &history)));
            }
            Place { run: first.run, from: EventId(1), branch: first.branch }
        }
    };
    let Some(page) = read.page_in(at, patience).await? else {
        return Ok(answer(History::default(), Some(at)));
    };
    let history = decode(&page.events)?;
    let next = if read.close_event_only && page.open { Some(at) } else { continued(&page, &history) };
    Ok(answer(history, next))
}

/// Where a reader that waits goes on after a page; none behind the last event of a closed run.
fn continued(page: &HistoryPage, history: &History) -> Option<Place> {
    let behind = || history.events.last().map(|event| EventId(event.event_id).next());
    let from = if page.open { page.next.or_else(behind) } else { page.next };
    from.map(|from| Place { run: page.run, from, branch: page.branch })
}

fn answer(history: History, next: Option<Place>) -> ws::GetWorkflowExecutionHistoryResponse {
    ws::GetWorkflowExecutionHistoryResponse {
        history: Some(history),
        next_page_token: next.map(|place| place.encode(false)).unwrap_or_default(),
        ..ws::GetWorkflowExecutionHistoryResponse::default()
    }
}

/// GetWorkflowExecutionHistoryReverse: newest first, what there is now.
pub(crate) async fn get_workflow_execution_history_reverse(
    context: &Context,
    _call: &Call,
    request: ws::GetWorkflowExecutionHistoryReverseRequest,
) -> Result<ws::GetWorkflowExecutionHistoryReverseResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let (workflow, run) = validate::execution(request.execution.as_ref())?;
    let at = Place::decode(&request.next_page_token, true, run)?;
    let read = Read {
        context,
        workflow: ports::workflow_key(namespace.id, workflow),
        run,
        page_size: page_size(request.maximum_page_size),
        close_event_only: false,
        reverse: true,
    };
    let page = read.page(at, false).await.map_err(|refusal| errors::status_of(&refusal))?;
    let next = page.next.map(|from| Place { run: page.run, from, branch: page.branch });
    Ok(ws::GetWorkflowExecutionHistoryReverseResponse {
        history: Some(decode(&page.events)?),
        next_page_token: next.map(|place| place.encode(true)).unwrap_or_default(),
    })
}

fn page_size(asked: i32) -> usize {
    match usize::try_from(asked) {
        Ok(size) if size > 0 => size.min(limits::HISTORY_PAGE_MAX),
        _ => limits::HISTORY_PAGE_MAX,
    }
}

/// Stored events as a message.
pub(crate) fn decode(events: &Bytes) -> Result<History, Status> {
    History::decode(events.clone()).map_err(|error| {
        tracing::error!(%error, "stored events do not decode");
        Status::data_loss("stored events do not decode")
    })
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
