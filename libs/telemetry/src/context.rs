//! Spans of a running request: whose child the current one is, and what to tell the next service.

use opentelemetry::{Context, trace::TraceContextExt as _};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::TraceParent;

/// Puts a span that has just been made under the caller's. Does nothing where the header is malformed or nothing is traced.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    if let Some(parent) = TraceParent::parse(traceparent) {
        // Fails only where no collector is configured, and then there is nothing to connect.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent.remote()));
    }
}

/// The traceparent of the current span, for a call to another service. `None` where nothing is traced.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    let context = tracing::Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| TraceParent::of(&span).to_string())
}
