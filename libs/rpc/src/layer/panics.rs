//! Turns a panic in a handler into INTERNAL for that one caller. Innermost: what is above must see an answer, not an unwind.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt as _;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::{Code, RpcError, status};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CatchPanic;

/// A handler panicked.
#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);

impl RpcError for Panicked {
    fn describe(&self) -> (Code, &'static str) {
        (Code::Internal, "PANIC")
    }
}

impl<S> Layer<S> for CatchPanic {
    type Service = CatchPanicService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        CatchPanicService { inner }
    }
}

/// See [`CatchPanic`].
#[derive(Debug, Clone)]
pub(crate) struct CatchPanicService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for CatchPanicService<S>
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
        // The handler's state is behind its own locks, and each request has its own future: nothing half-done is seen again.
        let future = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            future.await.unwrap_or_else(|panic| {
                metrics::counter!("tracklayer_panics_total").increment(1);
                Ok(status(&Panicked(text_of(&*panic))).into_http())
            })
        })
    }
}

/// What the panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
