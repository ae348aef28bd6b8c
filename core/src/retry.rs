//! Retry policies: whether there is another attempt, and when (api-surface 4.5, 4.6).

use antipode_proto::api::{
    common::v1::RetryPolicy,
    enums::v1::{RetryState, TimeoutType},
    failure::v1::{Failure, failure::FailureInfo},
};

use crate::ids::{Nanos, Timestamp};

/// A policy with the server's defaults filled in.
#[must_use]
pub fn with_defaults(policy: Option<&RetryPolicy>) -> RetryPolicy {
    let mut policy = policy.cloned().unwrap_or_default();
    let initial = policy.initial_interval.as_ref().map(Nanos::from_proto).unwrap_or_default();
    let initial = if initial.0 > 0 { initial } else { Nanos::seconds(1) };
    policy.initial_interval = Some(initial.to_proto());
    if policy.backoff_coefficient == 0.0 {
        policy.backoff_coefficient = 2.0;
    }
    let maximum = policy.maximum_interval.as_ref().map(Nanos::from_proto).unwrap_or_default();
    if maximum.0 <= 0 {
        policy.maximum_interval = Some(Nanos(initial.0.saturating_mul(100)).to_proto());
    }
    policy
}

/// Type name under which `non_retryable_error_types` may list a failure.
fn type_name(info: &FailureInfo) -> Option<&str> {
    match info {
        FailureInfo::ApplicationFailureInfo(info) => Some(&info.r#type),
        FailureInfo::TimeoutFailureInfo(info) => {
            if info.timeout_type == TimeoutType::StartToClose as i32 {
                Some("TemporalTimeout:StartToClose")
            } else if info.timeout_type == TimeoutType::Heartbeat as i32 {
                Some("TemporalTimeout:Heartbeat")
            } else {
                None
            }
        }
        _ => None,
    }
}

fn retryable(policy: &RetryPolicy, failure: &Failure) -> bool {
    let Some(info) = &failure.failure_info else { return true };
    let by_kind = match info {
        FailureInfo::TerminatedFailureInfo(_) | FailureInfo::CanceledFailureInfo(_) => false,
        FailureInfo::ApplicationFailureInfo(info) => !info.non_retryable,
        FailureInfo::ServerFailureInfo(info) => !info.non_retryable,
        FailureInfo::TimeoutFailureInfo(info) => {
            info.timeout_type == TimeoutType::StartToClose as i32
                || info.timeout_type == TimeoutType::Heartbeat as i32
        }
        _ => true,
    };
    let listed = type_name(info)
        .is_some_and(|name| policy.non_retryable_error_types.iter().any(|listed| listed == name));
    by_kind && !listed
}

fn next_delay(failure: &Failure) -> Option<Nanos> {
    match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            info.next_retry_delay.as_ref().map(Nanos::from_proto).filter(|delay| delay.0 >= 0)
        }
        _ => None,
    }
}

/// Length of the wait after attempt `attempt` (from 1): min(maximum, initial × coefficient^(attempt−1)), no jitter.
#[must_use]
pub fn interval(policy: &RetryPolicy, attempt: i32) -> Nanos {
    let initial = policy.initial_interval.as_ref().map(Nanos::from_proto).unwrap_or_default();
    let maximum = policy.maximum_interval.as_ref().map(Nanos::from_proto).unwrap_or_default();
    // By squares: the last digits of `powi` differ between builds, and two regions must come to the same deadline.
    let (mut factor, mut square) = (1.0, policy.backoff_coefficient);
    let mut left = attempt.saturating_sub(1).max(0);
    while left > 0 {
        if left % 2 == 1 {
            factor *= square;
        }
        square *= square;
        left /= 2;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "saturates; nanoseconds of years"
    )]
    let length = (initial.0 as f64 * factor) as i64;
    let length = if maximum.0 > 0 { length.min(maximum.0) } else { length };
    Nanos(length.max(0))
}

/// When the attempt after `attempt` may start, or why there is none.
///
/// # Errors
/// The retry state to record.
pub fn next_attempt(
    policy: &RetryPolicy,
    attempt: i32,
    failure: &Failure,
    now: Timestamp,
    expires: Option<Timestamp>,
) -> Result<Timestamp, RetryState> {
    if !retryable(policy, failure) {
        return Err(RetryState::NonRetryableFailure);
    }
    if policy.maximum_attempts > 0 && attempt >= policy.maximum_attempts {
        return Err(RetryState::MaximumAttemptsReached);
    }
    let at = now.plus(next_delay(failure).unwrap_or_else(|| interval(policy, attempt)));
    if expires.is_some_and(|expires| at >= expires) {
        return Err(RetryState::Timeout);
    }
    Ok(at)
}
