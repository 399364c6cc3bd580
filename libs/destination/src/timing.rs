//! An event's time as platforms want it, and the refusals that come of it.

use std::time::Duration;

use jiff::Timestamp;

use crate::deliverable::Deliverable;
use crate::destination::Destination;
use crate::outcome::{Refusal, RefusalCode};

/// So much of a platform's age limit is kept back for an event's way there: its item may be half a minute old when its request begins,
/// the request takes its time, and the platform's clock may be ahead. One event that arrives too old fails its whole request at
/// Meta (2804003), and behind a lane that is so far back stand others just like it.
pub const KEPT_BACK: Duration = Duration::from_secs(120);
/// Every platform takes an event of that age: its limit need not be asked for.
const YOUNG: Duration = Duration::from_secs(3_600);

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
        let why = format!("older than {}", told(max));
        return Err(Refusal::new(RefusalCode::EventTooOld, why).at("timestamp"));
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

/// Until when an event can be sent that a platform takes up to this age, what is kept back for its way apart.
#[must_use]
pub fn sendable_until(event: &Deliverable, max_age: Duration) -> Timestamp {
    event.time().checked_add(signed(max_age.saturating_sub(KEPT_BACK))).unwrap_or(Timestamp::MAX)
}

/// Makes sure that an event which its connection would take at this moment is still taken when it arrives.
///
/// # Errors
/// It may be too old by then.
pub fn check_arrival(
    destination: &dyn Destination,
    event: &Deliverable,
    now: Timestamp,
) -> Result<(), Refusal> {
    if now.duration_since(event.time()) <= signed(YOUNG) {
        return Ok(());
    }
    let Some(max) = destination.max_event_age(event).filter(|max| now > sendable_until(event, *max)) else {
        return Ok(());
    };
    let why = format!(
        "less than {} seconds from the limit of {}, and so too old when it arrives",
        KEPT_BACK.as_secs(),
        told(max)
    );
    Err(Refusal::new(RefusalCode::EventTooOld, why).at("timestamp"))
}

fn told(max: Duration) -> String {
    let days = max.as_secs() / 86_400;
    if days > 0 { format!("{days} days") } else { format!("{} hours", max.as_secs() / 3600) }
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

/// Unix seconds, fractions cut towards the past.
#[must_use]
pub fn floor_seconds(time: Timestamp) -> i64 {
    // A time before 1970 counts its fraction backwards.
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}
