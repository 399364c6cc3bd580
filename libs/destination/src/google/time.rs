//! Times in Google's forms.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::{Offset, TimeZone};

/// `yyyy-mm-dd hh:mm:ss±hh:mm`, fraction cut off. The offset is the one the event came with; one with seconds, or beyond a
/// day, counts as UTC, for the instant matters and the clock on the wall does not.
#[must_use]
pub fn conversion_date_time(time: Timestamp, utc_offset_seconds: i32) -> String {
    let whole = utc_offset_seconds % 60 == 0;
    let offset = Offset::from_seconds(utc_offset_seconds).ok().filter(|_| whole).unwrap_or(Offset::UTC);
    time.to_zoned(TimeZone::fixed(offset)).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// RFC 3339 in UTC, with milliseconds where there are any.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    // A time before 1970 counts its fraction backwards, and is written forwards.
    let millis = time.subsec_nanosecond().rem_euclid(1_000_000_000) / 1_000_000;
    let digits = if millis == 0 { 0 } else { 3 };
    DateTimePrinter::new().precision(Some(digits)).timestamp_to_string(&time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_offset_and_loses_its_fraction() {
        let time: Timestamp = "2026-11-20T14:03:21.9Z".parse().unwrap();
        assert_eq!(conversion_date_time(time, -8 * 3600), "2026-11-20 06:03:21-08:00");
        assert_eq!(conversion_date_time(time, 20_700), "2026-11-20 19:48:21+05:45");
        assert_eq!(conversion_date_time(time, 0), "2026-11-20 14:03:21+00:00");
        assert_eq!(conversion_date_time(time, 61), "2026-11-20 14:03:21+00:00");
        assert_eq!(conversion_date_time(time, i32::MAX), "2026-11-20 14:03:21+00:00");
    }

    #[test]
    fn an_instant_has_milliseconds_only_where_there_are_any() {
        let text = |t: &str| rfc3339(t.parse().unwrap());
        assert_eq!(text("2026-11-20T14:03:21.123Z"), "2026-11-20T14:03:21.123Z");
        assert_eq!(text("2026-11-20T14:03:21.1Z"), "2026-11-20T14:03:21.100Z");
        assert_eq!(text("2026-11-20T14:03:21.000001Z"), "2026-11-20T14:03:21Z");
        assert_eq!(text("2026-11-20T14:03:21Z"), "2026-11-20T14:03:21Z");
    }
}
