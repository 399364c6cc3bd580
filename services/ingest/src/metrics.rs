//! Every metric of ingest, named once.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::budget::Measured;
use crate::outcome::Outcome;

/// The wire a request came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The Segment-compatible edge.
    Http,
    /// `ingest.v1`.
    Grpc,
    /// Webhooks of shops.
    Webhook,
}

impl Wire {
    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Webhook => "webhook",
        }
    }
}

/// Says what each metric means; call once at start.
pub fn describe() {
    describe_counter!(
        "tracklayer_ingest_received_events_total",
        "events in requests that were authenticated"
    );
    describe_counter!("tracklayer_ingest_received_bytes_total", "bytes of request bodies, inflated");
    describe_counter!(
        "tracklayer_ingest_accepted_events_total",
        "events that were durable when they were acknowledged"
    );
    describe_counter!(
        "tracklayer_ingest_duplicate_events_total",
        "repeats that were answered without being stored"
    );
    describe_counter!(
        "tracklayer_ingest_rejected_events_total",
        "events that could not be accepted, by code"
    );
    describe_counter!(
        "tracklayer_ingest_rejected_dropped_total",
        "rejected events that were not kept for people"
    );
    describe_counter!("tracklayer_ingest_refused_requests_total", "requests refused as a whole, by code");
    describe_counter!(
        "tracklayer_ingest_key_mismatches_total",
        "requests whose header and body name two write keys"
    );
    describe_counter!("tracklayer_ingest_warnings_total", "things mended in accepted events, by warning");
    describe_counter!(
        "tracklayer_ingest_narrowings_recorded_total",
        "narrowing signals recorded before an ack"
    );
    describe_counter!(
        "tracklayer_ingest_look_failures_total",
        "looks at the dedup store that gave no answer in time"
    );
    describe_counter!(
        "tracklayer_ingest_webhooks_total",
        "signed webhooks, by topic (those that are none of ours together) and what became of them"
    );
    describe_gauge!("tracklayer_ingest_journal_bytes", "what `received` takes of the database's disk");
    describe_gauge!(
        "tracklayer_ingest_journal_unread_bytes",
        "about how much of tracklayer_ingest_journal_bytes somebody has still to read; there is none where that is not known"
    );
    describe_gauge!(
        "tracklayer_ingest_journal_late",
        "1 while a day of `received` is kept that ended over an hour ago"
    );
    describe_gauge!(
        "tracklayer_ingest_journal_full",
        "1 while events are refused because of the journal's budget or limit"
    );
    describe_histogram!("tracklayer_ingest_ack_seconds", "from the request read to the answer");
}

/// A request's content.
pub fn received(wire: Wire, events: usize, bytes: usize) {
    counter!("tracklayer_ingest_received_events_total", "wire" => wire.as_str()).increment(events as u64);
    counter!("tracklayer_ingest_received_bytes_total", "wire" => wire.as_str()).increment(bytes as u64);
}

/// What became of a request's events, and after how long.
pub fn answered(wire: Wire, outcomes: &[Outcome], took: Duration) {
    let mut accepted = 0;
    let mut duplicates = 0;
    for outcome in outcomes {
        match outcome {
            Outcome::Accepted { warnings, .. } => {
                accepted += 1;
                for warning in warnings {
                    counter!("tracklayer_ingest_warnings_total", "warning" => warning.clone()).increment(1);
                }
            }
            Outcome::Duplicate { .. } => duplicates += 1,
            Outcome::Rejected(rejection) => {
                counter!("tracklayer_ingest_rejected_events_total", "code" => rejection.code.as_str())
                    .increment(1);
            }
        }
    }
    counter!("tracklayer_ingest_accepted_events_total", "wire" => wire.as_str()).increment(accepted);
    counter!("tracklayer_ingest_duplicate_events_total", "wire" => wire.as_str()).increment(duplicates);
    histogram!("tracklayer_ingest_ack_seconds", "wire" => wire.as_str()).record(took.as_secs_f64());
}

/// What the journal takes, how much of it is unread, whether readers are late with a day of it, and whether that is too much.
pub fn journal_measured(found: &Measured, full: bool) {
    gauge!("tracklayer_ingest_journal_bytes").set(found.bytes as f64);
    if let Some(unread) = found.unread {
        gauge!("tracklayer_ingest_journal_unread_bytes").set(unread as f64);
    }
    gauge!("tracklayer_ingest_journal_late").set(if found.late_day.is_some() { 1.0 } else { 0.0 });
    gauge!("tracklayer_ingest_journal_full").set(if full { 1.0 } else { 0.0 });
}

/// A request refused as a whole.
pub fn refused(wire: Wire, code: &'static str) {
    counter!("tracklayer_ingest_refused_requests_total", "wire" => wire.as_str(), "code" => code)
        .increment(1);
}

/// A signed webhook. Both words are of closed lists: topics that are taken, or "other"; what became of events, or why none was made.
pub fn webhook(topic: &'static str, outcome: &'static str) {
    counter!("tracklayer_ingest_webhooks_total", "topic" => topic, "outcome" => outcome).increment(1);
}

/// Rejected events that were not kept.
pub fn rejected_dropped(events: usize) {
    counter!("tracklayer_ingest_rejected_dropped_total").increment(events as u64);
}

/// Header and body name two write keys.
pub fn key_mismatch() {
    counter!("tracklayer_ingest_key_mismatches_total").increment(1);
}

/// Signals recorded.
pub fn narrowings_recorded(items: usize) {
    counter!("tracklayer_ingest_narrowings_recorded_total").increment(items as u64);
}

/// A look without an answer.
pub fn look_failed() {
    counter!("tracklayer_ingest_look_failures_total").increment(1);
}
