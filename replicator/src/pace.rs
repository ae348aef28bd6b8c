//! Time for the machines of a stream: the wall clock as it was when the stream began, moved on by the monotonic clock, so
//! that a clock that is set back delays nothing.

use antipode_core::ids::Timestamp;
use tokio::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    wall: Timestamp,
    began: Instant,
}

impl Pace {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { wall: now, began: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let nanos = i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX);
        Timestamp(self.wall.0.saturating_add(nanos))
    }

    /// Waits until then; for ever when there is no time.
    pub(crate) async fn until(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return std::future::pending().await };
        let nanos = u64::try_from(at.0.saturating_sub(self.wall.0)).unwrap_or_default();
        tokio::time::sleep_until(self.began + Duration::from_nanos(nanos)).await;
    }
}
