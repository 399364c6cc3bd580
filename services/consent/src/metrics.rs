//! Every metric of consent, named and described once.

use metrics::{counter, describe_counter, describe_histogram, histogram};

use crate::{
    firewall::{Answer, Destination},
    kind::Kind,
    reason::Reason,
    record::{Narrowing, Row},
};

const DECISIONS: &str = "tracklayer_consent_decisions_total";
const SIGNALS: &str = "tracklayer_consent_signals_written_total";
const NARROWINGS: &str = "tracklayer_consent_narrowings_total";
const BATCH: &str = "tracklayer_consent_batch_events";
const SECONDS: &str = "tracklayer_consent_batch_seconds";

/// Describes them.
pub fn describe() {
    describe_counter!(DECISIONS, "Decisions by kind of destination, outcome and reported reason.");
    describe_counter!(SIGNALS, "Rows of signals that were inserted or whose time was moved.");
    describe_counter!(NARROWINGS, "Entries of narrowing logs by cause.");
    describe_histogram!(BATCH, "Events of a batch by RPC.");
    describe_histogram!(SECONDS, metrics::Unit::Seconds, "Time that a batch took by RPC.");
}

/// Counts the answers of a batch.
pub(crate) fn decided(destinations: &[Destination], answers: &[Vec<Answer>]) {
    for (index, destination) in destinations.iter().enumerate() {
        // The kind is text of a request until it is known.
        let kind = destination.query.kind.map_or("unknown", Kind::name);
        for answer in answers.iter().filter_map(|of_event| of_event.get(index)) {
            let reason = answer.reason.map_or("none", Reason::name);
            counter!(DECISIONS, "kind" => kind, "outcome" => answer.outcome.name(), "reason" => reason)
                .increment(1);
        }
    }
}

/// Counts what a batch wrote.
pub(crate) fn recorded(rows: &[Row], narrowings: &[Narrowing]) {
    counter!(SIGNALS).increment(rows.len() as u64);
    for narrowing in narrowings {
        counter!(NARROWINGS, "cause" => narrowing.cause.name()).increment(1);
    }
}

/// Measures a call.
pub(crate) fn answered(rpc: &'static str, events: usize, took: std::time::Duration) {
    histogram!(BATCH, "rpc" => rpc).record(events as f64);
    histogram!(SECONDS, "rpc" => rpc).record(took.as_secs_f64());
}
