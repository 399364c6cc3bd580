//! Of which minutes something is asked.

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};

use super::ApiError;

/// What is told where nobody says since when.
const DEFAULT_SINCE: SignedDuration = SignedDuration::from_hours(24);

/// The minutes from `since` on and before `until`; of the last day up to now, where nothing is said.
pub(super) fn minutes(
    since: Option<&prost_types::Timestamp>,
    until: Option<&prost_types::Timestamp>,
) -> Result<Range<i64>, ApiError> {
    let now = Timestamp::now();
    let given = |field: &'static str, at: Option<&prost_types::Timestamp>| {
        let why = || ApiError::Invalid { field, why: "is out of range".to_owned() };
        at.map(|at| Timestamp::new(at.seconds, at.nanos).map_err(|_| why())).transpose()
    };
    let since = given("since", since)?.unwrap_or_else(|| now - DEFAULT_SINCE);
    let until = given("until", until)?;
    let from = minute_of(since);
    // The minute that has begun counts, unless it is left out.
    let to = until.map_or_else(|| minute_of(now) + 1, minute_of);
    if to <= from {
        return Err(ApiError::Invalid { field: "since", why: "is not before `until`".to_owned() });
    }
    Ok(from..to)
}

fn minute_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

/// The beginning of a minute.
pub(super) const fn on_the_wire(minute: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: minute * 60, nanos: 0 }
}
