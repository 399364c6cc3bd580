//! Spans of ONE event, made after the fact.
//!
//! An event lies in the journal between two stages, in a batch with others that belong to other traces. No span can be open
//! meanwhile: each stage makes a finished one, with the start and end that it measured, under the traceparent that the
//! event carries. Costs nothing for events that are not recorded.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span as _, SpanBuilder, SpanKind, TraceContextExt as _, Tracer as _},
};

use crate::{TraceParent, ids};

/// The tracer's name.
const TRACER: &str = "tracklayer";

/// Whether spans of an event with this traceparent are recorded at all: asked before attributes are put together.
#[must_use]
pub fn is_sampled(traceparent: &str) -> bool {
    TraceParent::parse(traceparent).is_some_and(|parent| parent.sampled)
}

/// Records a finished span under the given parent. Gives the traceparent for what happens next in the same trace, or `None`
/// (and records nothing) where the parent is not sampled or malformed, or no collector is configured: carry on the old one.
///
/// Attributes must not carry personal data.
#[must_use]
pub fn event_span(
    name: &'static str,
    traceparent: &str,
    start: SystemTime,
    end: SystemTime,
    attributes: &[(&'static str, String)],
) -> Option<String> {
    let parent = TraceParent::parse(traceparent).filter(|parent| parent.sampled)?;
    let context = Context::new().with_remote_span_context(parent.remote());
    record(builder(name, start, attributes), &context, end)
}

/// Records the root span of a trace that we began ourselves with [`crate::new_traceparent`]: it gets the very ids of the
/// traceparent, so that later spans hang under it. As [`event_span`] else.
#[must_use]
pub fn first_event_span(
    name: &'static str,
    traceparent: &str,
    start: SystemTime,
    end: SystemTime,
    attributes: &[(&'static str, String)],
) -> Option<String> {
    let own = TraceParent::parse(traceparent).filter(|own| own.sampled)?;
    let mut builder = builder(name, start, attributes);
    // The decision is made already: the sampler is told by this attribute, since a root has no parent to follow.
    builder.attributes.get_or_insert_default().push(KeyValue::new(crate::start::RECORDED, true));
    ids::with_ids(own, || record(builder, &Context::new(), end))
}

fn builder(name: &'static str, start: SystemTime, attributes: &[(&'static str, String)]) -> SpanBuilder {
    SpanBuilder::from_name(name)
        .with_kind(SpanKind::Internal)
        .with_start_time(start)
        .with_attributes(attributes.iter().map(|(key, value)| KeyValue::new(*key, value.clone())))
}

fn record(builder: SpanBuilder, parent: &Context, end: SystemTime) -> Option<String> {
    // Never before its start: the two may come from different clocks.
    let end = builder.start_time.map_or(end, |start| end.max(start));
    let mut span = global::tracer(TRACER).build_with_context(builder, parent);
    let context = span.span_context().clone();
    let recorded = span.is_recording();
    span.end_with_timestamp(end);
    (recorded && context.is_valid() && context.is_sampled()).then(|| TraceParent::of(&context).to_string())
}
