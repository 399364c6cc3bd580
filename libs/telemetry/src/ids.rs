//! Ids of new spans.
//!
//! The one trick: the root span of an event is made after its id was handed out (in the event's traceparent), so the id
//! that the next span of this thread must get can be said beforehand.

use std::cell::Cell;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::TraceParent;

thread_local! {
    static NEXT: Cell<Option<TraceParent>> = const { Cell::new(None) };
}

/// Makes a span while its ids are fixed: `make` must start exactly one root span, on this thread.
pub(crate) fn with_ids<T>(ids: TraceParent, make: impl FnOnce() -> T) -> T {
    NEXT.set(Some(ids));
    let made = make();
    NEXT.set(None);
    made
}

/// Random ids, unless they were said beforehand.
#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| self.0.new_trace_id(), |ids| ids.trace_id)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| self.0.new_span_id(), |ids| ids.span_id)
    }
}
