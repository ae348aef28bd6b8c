//! The only place of the benchmark that reads a clock: it measures real time, so it has no simulated one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic now.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, for names that must not repeat between processes and for the head of a report.
#[must_use]
pub fn wall_millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()
}

/// A prefix that no other benchmark on this machine uses: two runs against one address never share a workflow id.
#[must_use]
pub fn prefix() -> String {
    format!("b{:x}p{:x}", wall_millis(), std::process::id())
}

/// Whole microseconds, at least one, for histograms.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Sleeps until a moment.
pub async fn sleep_until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}
