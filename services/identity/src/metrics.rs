//! Every metric of identity, named and described once.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::difference::ChangeKind;
use crate::resolve::Resolution;

/// Describes all metrics. Called once at start.
pub fn describe() {
    describe_counter!(
        "tracklayer_identity_resolved_events_total",
        "Events resolved, by how the answer was found (none, computed, known, recorded, contested)."
    );
    describe_counter!(
        "tracklayer_identity_dropped_identifiers_total",
        "Identifiers that no value of their type can be, or that policy blocks."
    );
    describe_counter!(
        "tracklayer_identity_profile_changes_total",
        "Changes of profiles that had keys before, by kind (merge, contest, split, rekey)."
    );
    describe_counter!(
        "tracklayer_identity_record_retries_total",
        "Transactions tried again because of others, by reason (moved, deadlock, serialization, lock_timeout)."
    );
    describe_counter!(
        "tracklayer_identity_narrowings_total",
        "Merges and splits for consent's narrowing log, by outcome (told; late: consent did not take it now, it is tried again)."
    );
    describe_histogram!(
        "tracklayer_identity_resolve_duration_seconds",
        Unit::Seconds,
        "Time to resolve a batch, by path: fast (one round trip) or slow (something new was recorded)."
    );
}

/// A batch was resolved.
pub(crate) fn resolved(answers: impl Iterator<Item = Resolution>, dropped: u64, slow: bool, took: Duration) {
    let mut counts = [0u64; Resolution::ALL.len()];
    answers.for_each(|resolution| counts[resolution as usize] += 1);
    for (resolution, count) in Resolution::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
        counter!("tracklayer_identity_resolved_events_total", "resolution" => resolution.as_str())
            .increment(count);
    }
    counter!("tracklayer_identity_dropped_identifiers_total").increment(dropped);
    let path = if slow { "slow" } else { "fast" };
    histogram!("tracklayer_identity_resolve_duration_seconds", "path" => path).record(took.as_secs_f64());
}

/// Stored profiles changed.
pub(crate) fn changed(kind: ChangeKind) {
    counter!("tracklayer_identity_profile_changes_total", "kind" => kind.as_str()).increment(1);
}

/// Consent was told, or could not be told yet.
pub(crate) fn told(told: usize, late: usize) {
    for (outcome, count) in [("told", told), ("late", late)] {
        counter!("tracklayer_identity_narrowings_total", "outcome" => outcome).increment(count as u64);
    }
}

/// A transaction is tried again.
pub(crate) fn retried(why: &'static str) {
    counter!("tracklayer_identity_record_retries_total", "reason" => why).increment(1);
}
