//! One call as it came in: which RPC, until when, and whether another region sent it on. Here are the deadline rules
//! (api-surface 3.3, 3.10): a call ends at its deadline with DEADLINE_EXCEEDED, long polls end a little before with an
//! empty answer.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::time::Instant;
use tonic::{Status, metadata::MetadataMap};

use crate::errors;

/// Mark of a call that another region sent on: it makes no second hop (R906).
pub const FORWARDED: &str = "antipode-forwarded";

/// Longest wait of a task poll.
const POLL_MAX: Duration = Duration::from_secs(60);
/// A poll answers so much before its caller gives up.
const POLL_MARGIN: Duration = Duration::from_secs(1);
/// A task poll with less is refused.
const POLL_MIN: Duration = Duration::from_secs(2);
/// Longest wait for new history; then an empty page with a token.
const HISTORY_WAIT_MAX: Duration = Duration::from_secs(20);
/// Our own answer to an expired call is on its way before the transport's timer cuts it off with CANCELLED.
const DEADLINE_MARGIN: Duration = Duration::from_millis(5);

/// Client metadata that goes along with a forwarded call; everything else concerns one connection only.
const PASSED_ON: [&str; 4] = ["client-name", "client-version", "caller-type", "authorization"];

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// RPC by its short name.
    pub method: &'static str,
    /// Full path, as gRPC has it.
    pub path: &'static str,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
    /// Sent on by another region.
    pub forwarded: bool,
    /// What goes along when it is forwarded from here.
    pub metadata: BTreeMap<String, String>,
}

impl Call {
    /// From a client's metadata.
    #[must_use]
    pub fn from_metadata(method: &'static str, path: &'static str, metadata: &MetadataMap) -> Self {
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok());
        let passed_on = PASSED_ON.iter().filter_map(|key| Some(((*key).to_string(), text(key)?.to_string())));
        Self {
            method,
            path,
            deadline: text("grpc-timeout")
                .and_then(parse_timeout)
                .and_then(|left| Instant::now().checked_add(left)),
            forwarded: text(FORWARDED).is_some(),
            metadata: passed_on.collect(),
        }
    }

    /// As another region sent it on. No timeout is written as 0.
    #[must_use]
    pub fn from_peer(
        method: &'static str,
        path: &'static str,
        timeout_nanos: i64,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        let timeout = u64::try_from(timeout_nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        let deadline = timeout.and_then(|left| Instant::now().checked_add(left));
        Self { method, path, deadline, forwarded: true, metadata }
    }

    /// Time left; none when the caller waits for ever.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Runs the call, no longer than its deadline.
    ///
    /// # Errors
    /// The call's own, or DEADLINE_EXCEEDED.
    pub async fn bounded<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let Some(deadline) = self.deadline else { return work.await };
        let end = deadline.checked_sub(DEADLINE_MARGIN).unwrap_or(deadline);
        match tokio::time::timeout_at(end, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(errors::deadline_exceeded()),
        }
    }

    /// How long a task poll waits before its empty answer.
    ///
    /// # Errors
    /// The caller set no deadline or one that is too short for a poll.
    pub fn poll_wait(&self) -> Result<Duration, Status> {
        let left = self.left().ok_or_else(|| errors::invalid("Context timeout is not set."))?;
        if left < POLL_MIN {
            return Err(Status::failed_precondition("Context timeout is too short."));
        }
        Ok(left.min(POLL_MAX).saturating_sub(POLL_MARGIN))
    }

    /// How long a read of history waits for something new.
    #[must_use]
    pub fn history_wait(&self) -> Duration {
        let Some(left) = self.left() else { return HISTORY_WAIT_MAX };
        let margin = POLL_MARGIN.min(left / 4);
        HISTORY_WAIT_MAX.min(left.saturating_sub(margin))
    }
}

/// `grpc-timeout`: at most 8 digits and a unit. Something else counts as unset, as gRPC servers do.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call_with(timeout: &str) -> Call {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", timeout.parse().expect("ascii"));
        metadata.insert("client-name", "temporal-python".parse().expect("ascii"));
        metadata.insert("x-other", "1".parse().expect("ascii"));
        Call::from_metadata("PollWorkflowTaskQueue", "/s/PollWorkflowTaskQueue", &metadata)
    }

    #[test]
    fn timeouts_as_clients_write_them() {
        assert_eq!(parse_timeout("70S"), Some(Duration::from_secs(70)));
        assert_eq!(parse_timeout("30000m"), Some(Duration::from_secs(30)));
        assert_eq!(parse_timeout("4999000u"), Some(Duration::from_micros(4_999_000)));
        assert_eq!(parse_timeout("1H"), Some(Duration::from_secs(3600)));
        for bad in ["", "S", "12", "1x", "123456789S", "-1S", "1é"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_ends_a_second_before_its_caller() {
        assert_eq!(call_with("70S").poll_wait().expect("long enough"), Duration::from_secs(59));
        assert_eq!(call_with("4S").poll_wait().expect("long enough"), Duration::from_secs(3));
        let short = call_with("1500m").poll_wait().expect_err("too short");
        assert_eq!(short.code(), tonic::Code::FailedPrecondition);
        assert_eq!(short.message(), "Context timeout is too short.");
        let unset = Call::from_metadata("m", "/m", &MetadataMap::new()).poll_wait().expect_err("no deadline");
        assert_eq!(unset.message(), "Context timeout is not set.");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_history_is_soft() {
        assert_eq!(call_with("70S").history_wait(), Duration::from_secs(20));
        assert_eq!(call_with("5S").history_wait(), Duration::from_secs(4));
        assert_eq!(call_with("1S").history_wait(), Duration::from_millis(750));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_never_outlives_its_deadline() {
        let call = call_with("3S");
        let status =
            call.bounded(std::future::pending::<Result<(), Status>>()).await.expect_err("it never ends");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[test]
    fn only_named_metadata_travels() {
        let call = call_with("3S");
        assert_eq!(call.metadata.keys().collect::<Vec<_>>(), ["client-name"]);
        assert!(!call.forwarded);
    }
}
