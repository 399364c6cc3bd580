//! An event's time as platforms want it, and the two refusals that come of it.

use std::time::Duration;

use jiff::Timestamp;

use crate::deliverable::Deliverable;
use crate::outcome::{Refusal, RefusalCode};

/// The event's time, if a platform still takes it.
///
/// # Errors
/// It is older than `max_age`, or later than now by more than `skew`.
pub fn checked(
    event: &Deliverable,
    now: Timestamp,
    max_age: Option<Duration>,
    skew: Duration,
) -> Result<Timestamp, Refusal> {
    let time = event.time();
    let age = now.duration_since(time);
    if let Some(max) = max_age
        && age > signed(max)
    {
        let days = max.as_secs() / 86_400;
        let limit = if days > 0 { format!("{days} days") } else { format!("{} hours", max.as_secs() / 3600) };
        return Err(Refusal::new(RefusalCode::EventTooOld, format!("older than {limit}")).at("timestamp"));
    }
    if -age > signed(skew) {
        return Err(Refusal::new(
            RefusalCode::EventInFuture,
            format!("more than {} seconds in the future", skew.as_secs()),
        )
        .at("timestamp"));
    }
    Ok(time)
}

/// Until when an event can be sent that a platform takes up to this age.
#[must_use]
pub fn sendable_until(event: &Deliverable, max_age: Duration) -> Timestamp {
    event.time().checked_add(signed(max_age)).unwrap_or(Timestamp::MAX)
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

/// Unix seconds, fractions cut towards the past.
#[must_use]
pub fn floor_seconds(time: Timestamp) -> i64 {
    time.as_nanosecond().div_euclid(1_000_000_000).try_into().unwrap_or_default()
}
