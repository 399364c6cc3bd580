//! Puts everything below it inside the caller's trace.

use std::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service};
use tracing::{Instrument as _, instrument::Instrumented};
use tracklayer_telemetry::{TraceParent, context};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace;

impl<S> Layer<S> for Trace {
    type Service = TraceService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        TraceService { inner }
    }
}

/// See [`Trace`].
#[derive(Debug, Clone)]
pub(crate) struct TraceService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for TraceService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let header = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let parent = header.and_then(TraceParent::parse);
        let span = tracing::info_span!(
            target: "tracklayer_rpc",
            "rpc",
            otel.name = %request.uri().path(),
            otel.kind = "server",
            trace_id = parent.map(|parent| tracing::field::display(parent.trace_id)),
        );
        if let Some(header) = header {
            context::set_parent(&span, header);
        }
        let entered = span.enter();
        let future = self.inner.call(request);
        drop(entered);
        future.instrument(span)
    }
}
