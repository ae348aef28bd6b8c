//! Lists and counts of executions, answered from this region's own visibility (R941). The query language is persistence's; here
//! are pages, the older filters, and rows as the API shows them.

use antipode_core::ids::{NamespaceId, Timestamp};
use antipode_persistence::{
    Error,
    query::{self, Attribute, Comparison, Expression, Kind, Purpose, Test, Value},
    rows::VisibilityRow,
    visibility::{Page, Query},
};
use antipode_proto::api::{
    common::v1::{Memo, Payload, SearchAttributes, WorkflowExecution, WorkflowType},
    enums::v1::{IndexedValueType, WorkflowExecutionStatus as Status_},
    filter::v1::{StartTimeFilter, WorkflowExecutionFilter, WorkflowTypeFilter},
    workflow::v1::WorkflowExecutionInfo,
    workflowservice::v1 as ws,
};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use tonic::Status;

use crate::{call::Call, context::Context, errors, limits};
use ws::{
    count_workflow_executions_response::AggregationGroup, list_closed_workflow_executions_request as closed,
    list_open_workflow_executions_request as open,
};

/// ListWorkflowExecutions.
pub(crate) async fn list_workflow_executions(
    context: &Context,
    _call: &Call,
    request: ws::ListWorkflowExecutionsRequest,
) -> Result<ws::ListWorkflowExecutionsResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let parsed = query::parse(&request.query, Purpose::List).map_err(status_of)?;
    let asked =
        Asked { namespace: namespace.id, page_size: request.page_size, token: &request.next_page_token };
    let (executions, next_page_token) = page(context, asked, parsed.filter).await?;
    Ok(ws::ListWorkflowExecutionsResponse { executions, next_page_token })
}

/// ScanWorkflowExecutions: the same, by its older name.
pub(crate) async fn scan_workflow_executions(
    context: &Context,
    _call: &Call,
    request: ws::ScanWorkflowExecutionsRequest,
) -> Result<ws::ScanWorkflowExecutionsResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let parsed = query::parse(&request.query, Purpose::List).map_err(status_of)?;
    let asked =
        Asked { namespace: namespace.id, page_size: request.page_size, token: &request.next_page_token };
    let (executions, next_page_token) = page(context, asked, parsed.filter).await?;
    Ok(ws::ScanWorkflowExecutionsResponse { executions, next_page_token })
}

/// CountWorkflowExecutions.
pub(crate) async fn count_workflow_executions(
    context: &Context,
    _call: &Call,
    request: ws::CountWorkflowExecutionsRequest,
) -> Result<ws::CountWorkflowExecutionsResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let parsed = query::parse(&request.query, Purpose::Count).map_err(status_of)?;
    let counted = Query {
        namespace: namespace.id,
        filter: parsed.filter,
        group_by_status: parsed.group_by_status,
        page_size: limits::LIST_PAGE_MAX,
        page_token: Vec::new(),
    };
    let count = context.visibility.visibility_count(&counted).await.map_err(status_of)?;
    let groups = count
        .groups
        .into_iter()
        .map(|(status, count)| AggregationGroup { group_values: vec![keyword(&status_name(status))], count });
    Ok(ws::CountWorkflowExecutionsResponse { count: count.total, groups: groups.collect() })
}

/// ListOpenWorkflowExecutions.
pub(crate) async fn list_open_workflow_executions(
    context: &Context,
    _call: &Call,
    request: ws::ListOpenWorkflowExecutionsRequest,
) -> Result<ws::ListOpenWorkflowExecutionsResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let mut parts = vec![status_is(Status_::Running as i32)];
    parts.extend(started_in(request.start_time_filter.as_ref()));
    match &request.filters {
        Some(open::Filters::ExecutionFilter(filter)) => parts.extend(execution_is(filter)),
        Some(open::Filters::TypeFilter(filter)) => parts.push(type_is(filter)),
        None => {}
    }
    let asked = Asked {
        namespace: namespace.id,
        page_size: request.maximum_page_size,
        token: &request.next_page_token,
    };
    let (executions, next_page_token) = page(context, asked, all_of(parts)).await?;
    Ok(ws::ListOpenWorkflowExecutionsResponse { executions, next_page_token })
}

/// ListClosedWorkflowExecutions.
pub(crate) async fn list_closed_workflow_executions(
    context: &Context,
    _call: &Call,
    request: ws::ListClosedWorkflowExecutionsRequest,
) -> Result<ws::ListClosedWorkflowExecutionsResponse, Status> {
    let namespace = context.namespace(&request.namespace)?;
    let mut parts = vec![Expression::Not(Box::new(status_is(Status_::Running as i32)))];
    // The time of this filter is one of closing, whatever its name says.
    parts.extend(within(Attribute::CloseTime, request.start_time_filter.as_ref()));
    match &request.filters {
        Some(closed::Filters::ExecutionFilter(filter)) => parts.extend(execution_is(filter)),
        Some(closed::Filters::TypeFilter(filter)) => parts.push(type_is(filter)),
        Some(closed::Filters::StatusFilter(filter)) => parts.push(status_is(filter.status)),
        None => {}
    }
    let asked = Asked {
        namespace: namespace.id,
        page_size: request.maximum_page_size,
        token: &request.next_page_token,
    };
    let (executions, next_page_token) = page(context, asked, all_of(parts)).await?;
    Ok(ws::ListClosedWorkflowExecutionsResponse { executions, next_page_token })
}

/// GetSearchAttributes: names and types of all attributes of this cluster.
pub(crate) async fn get_search_attributes(
    _context: &Context,
    _call: &Call,
    _request: ws::GetSearchAttributesRequest,
) -> Result<ws::GetSearchAttributesResponse, Status> {
    Ok(ws::GetSearchAttributesResponse { keys: system_attributes() })
}

/// Attributes that every run has, with the API's numbers of their types.
pub(crate) fn system_attributes() -> BTreeMap<String, i32> {
    let typed = |attribute: Attribute| {
        let kind = match attribute.kind() {
            Kind::Keyword | Kind::Status => IndexedValueType::Keyword,
            Kind::Datetime => IndexedValueType::Datetime,
            Kind::Duration | Kind::Int => IndexedValueType::Int,
        };
        (attribute.name().to_string(), kind as i32)
    };
    Attribute::ALL.into_iter().map(typed).collect()
}

/// Which page of which namespace.
struct Asked<'a> {
    namespace: NamespaceId,
    page_size: i32,
    token: &'a Bytes,
}

async fn page(
    context: &Context,
    asked: Asked<'_>,
    filter: Option<Expression>,
) -> Result<(Vec<WorkflowExecutionInfo>, Bytes), Status> {
    let page_size = match usize::try_from(asked.page_size) {
        Ok(size) if size > 0 => size.min(limits::LIST_PAGE_MAX),
        _ => limits::LIST_PAGE_MAX,
    };
    let listed = Query {
        namespace: asked.namespace,
        filter,
        group_by_status: false,
        page_size,
        page_token: asked.token.to_vec(),
    };
    let Page { rows, next_page_token } =
        context.visibility.visibility_list(&listed).await.map_err(status_of)?;
    let executions = rows.iter().map(info).collect::<Result<_, _>>()?;
    Ok((executions, Bytes::from(next_page_token)))
}

/// A row as the API shows it.
fn info(row: &VisibilityRow) -> Result<WorkflowExecutionInfo, Status> {
    let damaged = |what: &str| {
        tracing::error!(run = %row.key, what, "a visibility row does not decode");
        Status::data_loss(format!("visibility of {} holds a damaged {what}", row.key))
    };
    let is_closed = row.close.is_some();
    let duration =
        row.close.map(|close| antipode_core::ids::Nanos(close.0.saturating_sub(row.execution.0)).to_proto());
    Ok(WorkflowExecutionInfo {
        execution: Some(WorkflowExecution {
            workflow_id: row.key.workflow.to_string(),
            run_id: row.key.run.to_string(),
        }),
        r#type: Some(WorkflowType { name: row.workflow_type.clone() }),
        start_time: Some(row.start.to_proto()),
        execution_time: Some(row.execution.to_proto()),
        close_time: row.close.map(Timestamp::to_proto),
        status: row.status,
        history_length: if is_closed { row.history_length } else { 0 },
        history_size_bytes: if is_closed { row.history_size } else { 0 },
        state_transition_count: if is_closed { row.transitions } else { 0 },
        execution_duration: duration,
        memo: Some(Memo::decode(row.memo.clone()).map_err(|_| damaged("memo"))?),
        search_attributes: Some(
            SearchAttributes::decode(row.search_attributes.clone())
                .map_err(|_| damaged("search attributes"))?,
        ),
        task_queue: row.task_queue.clone(),
        first_run_id: row.first_run.clone(),
        ..WorkflowExecutionInfo::default()
    })
}

fn all_of(mut parts: Vec<Expression>) -> Option<Expression> {
    if parts.len() > 1 { Some(Expression::And(parts)) } else { parts.pop() }
}

fn equals(attribute: Attribute, text: &str) -> Expression {
    Expression::Test(attribute, Test::Compare(Comparison::Equal, Value::Text(text.to_string())))
}

fn status_is(status: i32) -> Expression {
    let value = Value::Number(i64::from(status));
    Expression::Test(Attribute::ExecutionStatus, Test::Compare(Comparison::Equal, value))
}

fn type_is(filter: &WorkflowTypeFilter) -> Expression {
    equals(Attribute::WorkflowType, &filter.name)
}

fn execution_is(filter: &WorkflowExecutionFilter) -> Vec<Expression> {
    let mut parts = Vec::new();
    if !filter.workflow_id.is_empty() {
        parts.push(equals(Attribute::WorkflowId, &filter.workflow_id));
    }
    if !filter.run_id.is_empty() {
        parts.push(equals(Attribute::RunId, &filter.run_id));
    }
    parts
}

fn started_in(filter: Option<&StartTimeFilter>) -> Vec<Expression> {
    within(Attribute::StartTime, filter)
}

fn within(attribute: Attribute, filter: Option<&StartTimeFilter>) -> Vec<Expression> {
    let Some(filter) = filter else { return Vec::new() };
    let bound = |comparison, time: &prost_types::Timestamp| {
        Expression::Test(attribute, Test::Compare(comparison, Value::Number(Timestamp::from_proto(time).0)))
    };
    let earliest = filter.earliest_time.iter().map(|time| bound(Comparison::GreaterOrEqual, time));
    let latest = filter.latest_time.iter().map(|time| bound(Comparison::LessOrEqual, time));
    earliest.chain(latest).collect()
}

/// A status by its short name: "ContinuedAsNew".
fn status_name(status: i32) -> String {
    let status = Status_::try_from(status).unwrap_or_default();
    let words = status.as_str_name().trim_start_matches("WORKFLOW_EXECUTION_STATUS_").split('_');
    words.map(|word| format!("{}{}", &word[..1], word[1..].to_ascii_lowercase())).collect()
}

/// A keyword as clients decode it: JSON, with its type beside it.
fn keyword(text: &str) -> Payload {
    let metadata = [("encoding", "json/plain"), ("type", "Keyword")];
    Payload {
        metadata: metadata.map(|(key, value)| (key.to_string(), Bytes::from_static(value.as_bytes()))).into(),
        data: Bytes::from(format!("\"{text}\"")),
        ..Payload::default()
    }
}

fn status_of(error: Error) -> Status {
    match error {
        Error::Invalid(words) => errors::invalid(words),
        Error::Database(_) => Status::unavailable(error.to_string()),
        Error::Damaged(_) | Error::Foreign(_) => Status::data_loss(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antipode_core::ids::{RunId, RunKey};

    #[test]
    fn names_of_statuses() {
        assert_eq!(status_name(Status_::Running as i32), "Running");
        assert_eq!(status_name(Status_::ContinuedAsNew as i32), "ContinuedAsNew");
        assert_eq!(status_name(Status_::TimedOut as i32), "TimedOut");
    }

    #[test]
    fn a_group_is_a_json_keyword() {
        let payload = keyword("Running");
        assert_eq!(payload.data, "\"Running\"");
        assert_eq!(payload.metadata["encoding"], "json/plain");
        assert_eq!(payload.metadata["type"], "Keyword");
    }

    #[test]
    fn attributes_of_every_run() {
        let attributes = system_attributes();
        assert_eq!(attributes["WorkflowId"], IndexedValueType::Keyword as i32);
        assert_eq!(attributes["StartTime"], IndexedValueType::Datetime as i32);
        assert_eq!(attributes["HistoryLength"], IndexedValueType::Int as i32);
    }

    #[test]
    fn a_row_shows_lengths_only_when_closed() {
        let mut row = VisibilityRow {
            key: RunKey {
                namespace: NamespaceId::from_random([1; 16]),
                workflow: "w".into(),
                run: RunId::from_random([2; 16]),
            },
            workflow_type: "T".to_string(),
            task_queue: "q".to_string(),
            status: Status_::Running as i32,
            start: Timestamp(5),
            execution: Timestamp(5),
            close: None,
            history_length: 9,
            history_size: 900,
            transitions: 3,
            memo: Bytes::new(),
            search_attributes: Bytes::new(),
            first_run: String::new(),
            superseded: false,
        };
        let open = info(&row).expect("a whole row");
        assert_eq!((open.history_length, open.close_time, open.execution_duration), (0, None, None));
        row.close = Some(Timestamp(2_000_000_005));
        let closed = info(&row).expect("a whole row");
        assert_eq!(closed.history_length, 9);
        assert_eq!(closed.execution_duration.expect("closed").seconds, 2);
        row.memo = Bytes::from_static(&[0xff]);
        assert_eq!(info(&row).expect_err("damaged").code(), tonic::Code::DataLoss);
    }
}
