//! Calls that are not done within the time that their clients give them.
//!
//! A client's deadline travels in the header `grpc-timeout`. tonic ends such a call with `CANCELLED`, which a client
//! cannot tell from its own leaving: gRPC's answer is `DEADLINE_EXCEEDED`, and whether a client sees its own or the
//! server's is a matter of chance.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// gRPC over HTTP/2 allows so many digits.
const MAX_DIGITS: usize = 8;

/// A service whose calls end at their clients' deadlines.
#[derive(Clone, Debug)]
pub(crate) struct Deadline<S> {
    inner: S,
}

impl<S> Deadline<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

type Answer = Result<Response<Body>, Infallible>;

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = limit(request.headers());
        let answer = self.inner.call(request);
        let Some(limit) = limit else {
            return Box::pin(answer);
        };
        // The time begins now, which is before tonic's own begins: this answer is the first.
        let answer = tokio::time::timeout(limit, answer);
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                let text = format!("the call did not end within its client's deadline, {limit:?}");
                Ok(Status::deadline_exceeded(text).into_http())
            })
        })
    }
}

/// The time that a client gives: up to eight digits and a unit. What is none of the sort limits nothing.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 60 * 60),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::future::{Ready, pending, ready};

    use tonic::Code;
    use tower::service_fn;

    use super::*;

    fn request(timeout: &str) -> Request<()> {
        Request::builder()
            .header("grpc-timeout", timeout)
            .body(())
            .unwrap()
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline() {
        let never = service_fn(|_: Request<()>| pending::<Answer>());
        let answer = Deadline::new(never).call(request("5m")).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("5ms"), "{status}");
    }

    #[tokio::test]
    async fn a_call_that_is_done_is_answered() {
        let done = service_fn(|_: Request<()>| -> Ready<Answer> { ready(Ok(Response::default())) });
        let answer = Deadline::new(done).call(request("1H")).await.unwrap();
        assert!(Status::from_header_map(answer.headers()).is_none());
    }

    #[test]
    fn limits_are_as_grpc_writes_them() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("999u", Some(Duration::from_micros(999))),
            ("10m", Some(Duration::from_millis(10))),
            ("7n", Some(Duration::from_nanos(7))),
            ("100000000S", None),
            ("S", None),
            ("-1S", None),
            ("+1S", None),
            ("5", None),
            ("5s", None),
            ("", None),
        ] {
            assert_eq!(limit(request(text).headers()), expected, "{text:?}");
        }
    }
}
