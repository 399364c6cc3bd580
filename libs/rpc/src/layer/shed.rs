//! Refuses calls above a number in flight, before anything is parsed: overload costs nothing, and memory stays bounded.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::{Code, RpcError, status};

/// Probes pass always: an overloaded server is not a dead one.
const NEVER_SHED: &str = "/grpc.health.v1.Health/";

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Shed {
    free: Arc<Semaphore>,
}

/// At most `in_flight` calls at once; a stream counts until it ends.
pub(crate) fn above(in_flight: usize) -> Shed {
    Shed { free: Arc::new(Semaphore::new(in_flight.clamp(1, Semaphore::MAX_PERMITS))) }
}

/// Too many calls at once.
#[derive(Debug, thiserror::Error)]
#[error("too many requests at once; wait and send the same again")]
struct Overloaded;

impl RpcError for Overloaded {
    fn describe(&self) -> (Code, &'static str) {
        (Code::ResourceExhausted, "OVERLOADED")
    }
    fn retry_after(&self) -> Option<Duration> {
        // Spread, so that those who were refused together do not come back together.
        Some(Duration::from_millis(fastrand::u64(500..1500)))
    }
}

impl<S> Layer<S> for Shed {
    type Service = ShedService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ShedService { inner, free: Arc::clone(&self.free) }
    }
}

/// See [`Shed`].
#[derive(Debug, Clone)]
pub(crate) struct ShedService<S> {
    inner: S,
    free: Arc<Semaphore>,
}

impl<S, B> Service<Request<B>> for ShedService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(NEVER_SHED) {
            return Box::pin(self.inner.call(request));
        }
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else {
            let refused = status(&Overloaded).into_http();
            return Box::pin(async move { Ok(refused) });
        };
        let future = self.inner.call(request);
        Box::pin(async move {
            let response = future.await?;
            Ok(response.map(|body| {
                if body.is_end_stream() {
                    return body;
                }
                Body::new(body.map_frame(move |frame| {
                    let _until_the_end = &place;
                    frame
                }))
            }))
        })
    }
}
