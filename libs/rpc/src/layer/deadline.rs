//! Ends a call at the caller's deadline or ours, whichever comes first, and passes what is left on with every onward call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

tokio::task_local! {
    static DEADLINE: Instant;
}

/// What is left of the current call's deadline; `None` outside of a call.
#[must_use]
pub fn remaining() -> Option<Duration> {
    DEADLINE.try_with(|deadline| deadline.saturating_duration_since(Instant::now())).ok()
}

/// Work of the current call that goes on outside of the call's task, with the same deadline.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    let deadline = DEADLINE.try_with(|deadline| *deadline).ok();
    async move {
        match deadline {
            Some(deadline) => DEADLINE.scope(deadline, work).await,
            None => work.await,
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    ours: Duration,
}

/// No call's answer begins later than this. Streams go on after their first header.
pub(crate) fn shorter_of(ours: Duration) -> Deadline {
    Deadline { ours }
}

impl<S> Layer<S> for Deadline {
    type Service = DeadlineService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner, ours: self.ours }
    }
}

/// See [`Deadline`].
#[derive(Debug, Clone)]
pub(crate) struct DeadlineService<S> {
    inner: S,
    ours: Duration,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = callers(request.headers()).map_or(self.ours, |theirs| theirs.min(self.ours));
        let deadline = Instant::now() + limit;
        let future = DEADLINE.scope(deadline, self.inner.call(request));
        Box::pin(async move {
            match tokio::time::timeout_at(deadline, future).await {
                Ok(outcome) => outcome,
                Err(_) => Ok(Status::deadline_exceeded(
                    "the deadline passed; whether the request took effect is unknown",
                )
                .into_http()),
            }
        })
    }
}

/// The `grpc-timeout` header. Source: gRPC over HTTP/2, "Requests": at most 8 digits and a unit; 2025-11.
pub(crate) fn callers(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_is_polled_by_another_task_has_the_deadline_of_its_call() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let left = DEADLINE.scope(deadline, async { tokio::spawn(carried(async { remaining() })).await });
        assert!(left.await.unwrap().is_some());
        assert!(carried(async { remaining() }).await.is_none(), "outside of a call");
    }

    #[test]
    fn the_callers_deadline_is_read_in_every_unit_and_nonsense_is_ignored() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            callers(&headers)
        };
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parse("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for nonsense in ["", "S", "-1S", "1", "1s", "123456789S", "1é"] {
            assert_eq!(
                http::HeaderValue::from_str(nonsense).ok().and_then(|_| parse(nonsense)),
                None,
                "{nonsense}"
            );
        }
    }

    #[tokio::test]
    async fn an_onward_call_has_the_shorter_of_what_is_left_and_what_it_asks_for() {
        use tonic::service::Interceptor as _;
        let mut outgoing =
            crate::auth::BearerToken::new(&tracklayer_ids::Secret::new("t".to_owned())).unwrap();
        let mut of = async |asked: Option<Duration>| {
            let mut request = tonic::Request::new(());
            if let Some(asked) = asked {
                request.set_timeout(asked);
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            let sent = DEADLINE.scope(deadline, async { outgoing.call(request) }).await.unwrap();
            callers(sent.metadata().as_ref()).unwrap()
        };
        let left = Duration::from_secs(4)..=Duration::from_secs(5);
        assert!(left.contains(&of(None).await));
        assert!(left.contains(&of(Some(Duration::from_secs(60))).await), "nobody waits for it any more");
        assert_eq!(of(Some(Duration::from_secs(1))).await, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn onward_calls_see_what_is_left() {
        assert_eq!(remaining(), None);
        let deadline = Instant::now() + Duration::from_secs(5);
        let left = DEADLINE.scope(deadline, async { remaining() }).await.unwrap();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4), "{left:?}");
    }
}
