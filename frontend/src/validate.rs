//! Shape of requests: which fields must be there, what they may hold, and the API's words when they don't (api-surface 3.11).
//! Every message names its field. What depends on a run's state is the shard's to check.

use antipode_core::ids::RunId;
use antipode_proto::api::{
    common::v1::{Memo, Payload, Payloads, RetryPolicy, SearchAttributes, WorkflowExecution, WorkflowType},
    taskqueue::v1::TaskQueue,
};
use prost::Message;
use prost_types::Duration;
use tonic::Status;

use crate::{errors::invalid, limits};

/// A text field that may not be longer than an id.
pub(crate) fn bounded(field: &str, text: &str) -> Result<(), Status> {
    if text.len() <= limits::ID_BYTES_MAX {
        return Ok(());
    }
    Err(invalid(format!("{field} exceeds maximum allowed length ({}/{})", text.len(), limits::ID_BYTES_MAX)))
}

/// A text field that must be there.
pub(crate) fn required(field: &str, text: &str) -> Result<(), Status> {
    if text.is_empty() {
        return Err(invalid(format!("{field} is not set on request.")));
    }
    bounded(field, text)
}

/// A run id, when given.
pub(crate) fn run_id(text: &str) -> Result<Option<RunId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| invalid("Invalid RunId."))
}

/// The workflow id and run that a request names.
pub(crate) fn execution(execution: Option<&WorkflowExecution>) -> Result<(&str, Option<RunId>), Status> {
    let execution = execution.ok_or_else(|| invalid("Execution is not set on request."))?;
    required("WorkflowId", &execution.workflow_id)?;
    Ok((&execution.workflow_id, run_id(&execution.run_id)?))
}

/// A workflow type.
pub(crate) fn workflow_type(kind: Option<&WorkflowType>) -> Result<(), Status> {
    required("WorkflowType", kind.map(|kind| kind.name.as_str()).unwrap_or_default())
}

/// A task queue to start on or to poll.
pub(crate) fn task_queue(queue: Option<&TaskQueue>) -> Result<&TaskQueue, Status> {
    let queue =
        queue.filter(|queue| !queue.name.is_empty()).ok_or_else(|| invalid("taskQueue is not set"))?;
    bounded("taskQueue", &queue.name)?;
    if queue.name.starts_with(limits::RESERVED_QUEUE_PREFIX) {
        let prefix = limits::RESERVED_QUEUE_PREFIX;
        return Err(invalid(format!("task queue name cannot start with reserved prefix {prefix}")));
    }
    Ok(queue)
}

/// A duration that may be unset and may not be negative. `field` is the API's name of it.
pub(crate) fn duration(field: &str, duration: Option<&Duration>) -> Result<(), Status> {
    match duration {
        Some(duration) if duration.seconds < 0 || duration.nanos < 0 => {
            Err(invalid(format!("An invalid {field} is set on request.")))
        }
        _ => Ok(()),
    }
}

/// Whether a timeout says anything: zero is unset, as no timeout.
pub(crate) fn is_set(duration: Option<&Duration>) -> bool {
    duration.is_some_and(|duration| duration.seconds != 0 || duration.nanos != 0)
}

/// A retry policy (api-surface 4.6).
pub(crate) fn retry_policy(policy: Option<&RetryPolicy>) -> Result<(), Status> {
    let Some(policy) = policy else { return Ok(()) };
    // One attempt is no retry at all: the other fields say nothing.
    if policy.maximum_attempts == 1 {
        return Ok(());
    }
    let negative = |duration: &Option<Duration>| {
        duration.as_ref().is_some_and(|duration| duration.seconds < 0 || duration.nanos < 0)
    };
    if negative(&policy.initial_interval) {
        return Err(invalid("InitialInterval cannot be negative on retry policy."));
    }
    // 0 is unset: the default coefficient.
    if policy.backoff_coefficient != 0.0 && policy.backoff_coefficient < 1.0 {
        return Err(invalid("BackoffCoefficient cannot be less than 1 on retry policy."));
    }
    if negative(&policy.maximum_interval) {
        return Err(invalid("MaximumInterval cannot be negative on retry policy."));
    }
    let nanos = |duration: &Option<Duration>| {
        duration
            .as_ref()
            .map_or(0, |duration| i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos))
    };
    let maximum = nanos(&policy.maximum_interval);
    if maximum != 0 && maximum < nanos(&policy.initial_interval) {
        return Err(invalid("MaximumInterval cannot be less than InitialInterval on retry policy."));
    }
    if policy.maximum_attempts < 0 {
        return Err(invalid("MaximumAttempts cannot be negative on retry policy."));
    }
    Ok(())
}

/// A cron schedule: five fields of the usual characters, or one of the `@` names, behind an optional time zone.
pub(crate) fn cron(schedule: &str) -> Result<(), Status> {
    let mut fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.first().is_some_and(|field| field.starts_with("CRON_TZ=") || field.starts_with("TZ=")) {
        fields.remove(0);
    }
    let named = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    let usual =
        |field: &&str| field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"*/,-?#".contains(&byte));
    match fields.as_slice() {
        [] => Ok(()),
        [name] if named.contains(name) => Ok(()),
        ["@every", _] => Ok(()),
        five if five.len() == 5 && five.iter().all(usual) => Ok(()),
        _ => Err(invalid("invalid CronSchedule.")),
    }
}

/// Payloads of one field.
pub(crate) fn payloads(payloads: Option<&Payloads>) -> Result<(), Status> {
    size(payloads.map_or(0, Message::encoded_len), limits::BLOB_BYTES_MAX)
}

/// A memo.
pub(crate) fn memo(memo: Option<&Memo>) -> Result<(), Status> {
    size(memo.map_or(0, Message::encoded_len), limits::MEMO_BYTES_MAX)
}

/// Any other message of a caller, such as a failure.
pub(crate) fn blob<M: Message>(message: Option<&M>) -> Result<(), Status> {
    size(message.map_or(0, Message::encoded_len), limits::BLOB_BYTES_MAX)
}

fn size(bytes: usize, bytes_max: usize) -> Result<(), Status> {
    if bytes > bytes_max { Err(invalid("Blob data size exceeds limit.")) } else { Ok(()) }
}

/// Search attributes of a start. Only attributes that the namespace maps may be set, and there is no custom one yet; of the
/// system's own, callers may set those that the server only keeps.
pub(crate) fn search_attributes(
    namespace: &str,
    attributes: Option<&SearchAttributes>,
) -> Result<(), Status> {
    let Some(attributes) = attributes else { return Ok(()) };
    for (name, value) in &attributes.indexed_fields {
        if !SETTABLE_ATTRIBUTES.contains(&name.as_str()) {
            return Err(invalid(format!(
                "Namespace {namespace} has no mapping defined for search attribute {name}"
            )));
        }
        attribute_size(name, value)?;
    }
    if attributes.encoded_len() > limits::SEARCH_ATTRIBUTES_BYTES_MAX {
        let max = limits::SEARCH_ATTRIBUTES_BYTES_MAX;
        return Err(invalid(format!("total size of search attributes exceeds size limit {max}")));
    }
    Ok(())
}

const SETTABLE_ATTRIBUTES: [&str; 3] = ["TemporalChangeVersion", "BinaryChecksums", "BuildIds"];
const ATTRIBUTE_BYTES_MAX: usize = 2048;

fn attribute_size(name: &str, value: &Payload) -> Result<(), Status> {
    if value.data.len() > ATTRIBUTE_BYTES_MAX {
        let size = value.data.len();
        return Err(invalid(format!(
            "search attribute {name} value size {size} exceeds size limit {ATTRIBUTE_BYTES_MAX}"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
