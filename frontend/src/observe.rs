//! A layer around each public service: counts and times every call, and says in the API's words what the gRPC library says in
//! its own. An RPC that isn't built is named; a message that is too large is RESOURCE_EXHAUSTED, which SDKs treat as final,
//! while the library's OUT_OF_RANGE would be retried for ever (api-surface 3.10).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::{Code, server::NamedService};
use tower::Service;

use crate::metrics::{Ended, Metrics, Rpc, code_name};

/// What SDKs recognise as "too large".
const TOO_LARGE: &str = "grpc: received message larger than max";
/// The library's words for it, also for a compressed message.
const TOO_LARGE_HERE: [&str; 2] = ["decoded message length too large", "Error decompressing: size limit"];
/// The words of a generated method that nobody wrote.
const STUB: &str = "Not yet implemented";

/// The layer.
#[derive(Clone, Debug)]
pub(crate) struct Observed<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Observed<S> {
    /// Around a service.
    pub(crate) fn new(inner: S, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }
}

impl<S: NamedService> NamedService for Observed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_string();
        let started = Instant::now();
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let (code, known) = in_our_words(&method, response.headers_mut());
            // A name that no service has comes from the caller: it must not grow the set of labels.
            let method = if known { method } else { "unknown".to_string() };
            metrics.requests.get_or_create(&Ended { method: method.clone(), code: code_name(code) }).inc();
            metrics.latency.get_or_create(&Rpc { method }).observe(started.elapsed().as_secs_f64());
            Ok(response)
        })
    }
}

/// The code of an answer, whether its RPC exists at all, and the answer's words where ours differ. A unary answer that
/// succeeded has its status behind its body.
fn in_our_words(method: &str, headers: &mut HeaderMap) -> (Code, bool) {
    let Some(status) = headers.get("grpc-status") else { return (Code::Ok, true) };
    let code = Code::from_bytes(status.as_bytes());
    let message = headers.get("grpc-message").and_then(|value| value.to_str().ok());
    // The message is percent-encoded on the wire.
    let message = message.unwrap_or_default().replace("%20", " ");
    match code {
        Code::Unimplemented if message == STUB => {
            say(headers, code, &format!("{method} is not implemented"));
            (code, true)
        }
        Code::Unimplemented if message.is_empty() => {
            say(headers, code, "unknown method");
            (code, false)
        }
        Code::OutOfRange | Code::ResourceExhausted
            if TOO_LARGE_HERE.iter().any(|words| message.contains(words)) =>
        {
            say(headers, Code::ResourceExhausted, TOO_LARGE);
            (Code::ResourceExhausted, true)
        }
        _ => (code, true),
    }
}

fn say(headers: &mut HeaderMap, code: Code, message: &str) {
    headers.insert("grpc-status", HeaderValue::from(code as i32));
    // Short names of RPCs and our own words: nothing that needs more encoding than spaces.
    if let Ok(value) = HeaderValue::from_str(&message.replace(' ', "%20")) {
        headers.insert("grpc-message", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    fn headers_of(status: &Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).expect("valid headers");
        headers
    }

    fn read_back(headers: &HeaderMap) -> (Code, String) {
        let status = Status::from_header_map(headers).expect("a status");
        (status.code(), status.message().to_string())
    }

    #[test]
    fn too_large_is_final() {
        let words = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let mut headers = headers_of(&Status::out_of_range(words));
        assert_eq!(in_our_words("StartWorkflowExecution", &mut headers), (Code::ResourceExhausted, true));
        assert_eq!(read_back(&headers), (Code::ResourceExhausted, TOO_LARGE.to_string()));
    }

    #[test]
    fn an_rpc_that_is_not_built_is_named() {
        let mut headers = headers_of(&Status::unimplemented(STUB));
        assert_eq!(in_our_words("CreateSchedule", &mut headers), (Code::Unimplemented, true));
        assert_eq!(read_back(&headers).1, "CreateSchedule is not implemented");
    }

    #[test]
    fn an_rpc_that_does_not_exist_is_no_label() {
        let mut headers = headers_of(&Status::unimplemented(""));
        assert_eq!(in_our_words("Nonsense", &mut headers), (Code::Unimplemented, false));
        assert_eq!(read_back(&headers).1, "unknown method");
    }

    #[test]
    fn other_answers_pass_unchanged() {
        let mut headers = headers_of(&Status::not_found("workflow not found for ID: w"));
        assert_eq!(in_our_words("Signal", &mut headers), (Code::NotFound, true));
        assert_eq!(read_back(&headers).1, "workflow not found for ID: w");
        assert_eq!(in_our_words("Signal", &mut HeaderMap::new()), (Code::Ok, true));
    }
}
