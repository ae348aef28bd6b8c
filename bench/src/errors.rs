//! What the server refused, counted by call and code, and which refusals are worth another try. Nothing is retried
//! silently: each refusal is in the count even when the next try succeeded.

use std::{collections::BTreeMap, future::Future, sync::Mutex, time::Duration};

use tonic::{Code, Response, Status};

/// Tries of one call before it counts as failed.
const TRIES: u32 = 6;

/// Refusals by "Method: Code".
#[derive(Debug, Default)]
pub struct Errors {
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Errors {
    /// Counts one refusal.
    pub fn count(&self, method: &str, status: &Status) {
        let key = format!("{method}: {:?} ({})", status.code(), first_words(status.message()));
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *counts.entry(key).or_default() += 1;
    }

    /// All refusals so far.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Messages carry ids; the first words are the kind.
fn first_words(message: &str) -> String {
    message.split_whitespace().take(6).collect::<Vec<_>>().join(" ")
}

/// Whether the same request may be sent again. The requests carry request ids or task tokens, so a second delivery of
/// one that did take effect is recognised by the server.
#[must_use]
pub fn retryable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Internal | Code::Unknown
    )
}

/// Calls until it succeeds, is refused for good, or the tries are used up.
///
/// # Errors
/// The last refusal.
pub async fn persistent<T, F, Fut>(errors: &Errors, method: &'static str, mut call: F) -> Result<T, Status>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let mut tries = 0;
    loop {
        let status = match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        errors.count(method, &status);
        tries += 1;
        if tries == TRIES || !retryable(&status) {
            return Err(status);
        }
        tokio::time::sleep(Duration::from_millis(20 << tries)).await;
    }
}
