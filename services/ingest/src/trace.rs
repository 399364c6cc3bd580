//! One trace for each sampled event, from the sender's call through the journal to every destination.
//!
//! The span that the stored event names cannot be one of the journal's writing, since the event is encoded before it; so
//! `ingest` ends where the append begins, and `ingest.append` follows under it.

use std::time::SystemTime;

use tracklayer_proto::event::v1::Event;
use tracklayer_telemetry::{TraceParent, event_span, first_event_span, new_traceparent};

use crate::ingest::Arrival;

/// Makes the event's `ingest` span and stores its traceparent in the event; empties it where the event is not sampled.
pub fn begin(event: &mut Event, arrival: &Arrival<'_>, sample_ratio: f64) {
    let given = [event.traceparent.as_str(), arrival.traceparent].into_iter().find_map(TraceParent::parse);
    let (parent, sampled, ours) = match given {
        Some(given) => (given.to_string(), given.sampled, false),
        None => {
            let own = new_traceparent(sample_ratio);
            let sampled = own.ends_with("-01");
            (own, sampled, true)
        }
    };
    event.traceparent = if sampled {
        let end = SystemTime::now();
        let start = end.checked_sub(arrival.started.elapsed()).unwrap_or(end);
        let attributes = [
            ("message_id", event.message_id.clone()),
            ("source_id", event.source_id.to_string()),
            ("wire", arrival.wire.as_str().to_owned()),
        ];
        let make = if ours { first_event_span } else { event_span };
        make("ingest", &parent, start, end, &attributes).unwrap_or(parent)
    } else {
        String::new()
    };
}

/// Makes the span of the append that has just been acknowledged.
pub fn appended(traceparent: &str, message_id: &str, start: SystemTime) {
    let attributes = [("message_id", message_id.to_owned())];
    // Nothing hangs under it: what the event names is `ingest`.
    let _ = event_span("ingest.append", traceparent, start, SystemTime::now(), &attributes);
}
