//! Times as clients write them, and the correction of their clocks.

use jiff::civil::Time;
use jiff::fmt::temporal::{Pieces, PiecesOffset};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use prost_types::Timestamp as ProtoTimestamp;

/// An instant and the offset it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTime {
    /// The instant.
    pub instant: Timestamp,
    /// Offset from UTC, seconds; 0 where none was given.
    pub utc_offset_seconds: i32,
}

impl ClientTime {
    /// An instant in UTC.
    #[must_use]
    pub const fn utc(instant: Timestamp) -> Self {
        Self { instant, utc_offset_seconds: 0 }
    }

    /// Reads ISO 8601 (`Z`, `+01:00`, `+0100`, 0 to 9 fraction digits, a date alone; UTC where no offset is given) and
    /// epoch numbers as text. `None` where it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if looks_like_epoch(text) {
            return Self::from_epoch(text);
        }
        let pieces = Pieces::parse(text).ok()?;
        let date_time = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
        let offset = match pieces.offset() {
            None | Some(PiecesOffset::Zulu) => Offset::UTC,
            Some(PiecesOffset::Numeric(numeric)) => numeric.offset(),
            Some(_) => return None,
        };
        let instant = storable(offset.to_timestamp(date_time).ok()?)?;
        Some(Self { instant, utc_offset_seconds: offset.seconds() })
    }

    /// Reads an epoch number: seconds, or milliseconds, microseconds, nanoseconds by its size (seconds up to the year
    /// 5138), with a fraction. `None` where it is no number or out of range.
    #[must_use]
    pub fn from_epoch(number: &str) -> Option<Self> {
        let (negative, digits) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 20 || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let nanos_per_unit: i128 = match whole {
            0..100_000_000_000 => 1_000_000_000,
            100_000_000_000..100_000_000_000_000 => 1_000_000,
            100_000_000_000_000..100_000_000_000_000_000 => 1_000,
            _ => 1,
        };
        let mut nanos = whole.checked_mul(nanos_per_unit)?;
        let mut unit = nanos_per_unit;
        for digit in fraction.bytes() {
            unit /= 10;
            nanos += i128::from(digit - b'0') * unit;
        }
        let nanos = if negative { -nanos } else { nanos };
        storable(Timestamp::from_nanosecond(nanos).ok()?).map(Self::utc)
    }
}

/// A number, and not a date in ISO's basic form (8 digits).
fn looks_like_epoch(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.split('.').next().unwrap_or_default();
    whole.len() > 8 && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// What the stored form can hold: the years 1 to 9999.
fn storable(instant: Timestamp) -> Option<Timestamp> {
    const YEAR_1: i64 = -62_135_596_800;
    (instant.as_second() >= YEAR_1).then_some(instant)
}

/// When an event happened, by our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrected {
    /// The instant.
    pub instant: Timestamp,
    /// It would have been after receipt, and was set to it.
    pub clamped: bool,
}

/// Corrects a client's clock: what lay between the event and the sending by its clock lies between the event and the
/// receipt by ours. Source: Segment, Spec: Common Fields, "Timestamps"; 2025-11. The clamp to receipt is ours.
#[must_use]
pub fn correct(original: Option<Timestamp>, sent_at: Option<Timestamp>, received_at: Timestamp) -> Corrected {
    let Some(original) = original else { return Corrected { instant: received_at, clamped: false } };
    let instant = match sent_at {
        None => original,
        Some(sent_at) => {
            let age: SignedDuration = sent_at.duration_since(original);
            received_at.checked_sub(age).ok().and_then(storable).unwrap_or(original)
        }
    };
    if instant > received_at {
        return Corrected { instant: received_at, clamped: true };
    }
    Corrected { instant, clamped: false }
}

/// As the stored form has it.
#[must_use]
pub fn to_proto(instant: Timestamp) -> ProtoTimestamp {
    let mut seconds = instant.as_second();
    let mut nanos = instant.subsec_nanosecond();
    // jiff's parts have the sign of the whole, protobuf's nanoseconds always count forward.
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    ProtoTimestamp { seconds, nanos }
}

/// From the stored form; `None` if out of range.
#[must_use]
pub fn from_proto(timestamp: &ProtoTimestamp) -> Option<Timestamp> {
    if !(0..1_000_000_000).contains(&timestamp.nanos) {
        return None;
    }
    let nanos = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    storable(Timestamp::from_nanosecond(nanos).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_that_clients_write_is_read() {
        let cases = [
            ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z", 0),
            ("2026-01-02T03:04:05.678901+00:00", "2026-01-02T03:04:05.678901Z", 0),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", 0),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456789Z", 0),
            ("2026-01-02T03:04:05+05:30", "2026-01-01T21:34:05Z", 19_800),
            ("2026-01-02T03:04:05-0800", "2026-01-02T11:04:05Z", -28_800),
            ("2026-01-02 03:04:05", "2026-01-02T03:04:05Z", 0),
            ("2026-01-02T03:04:05", "2026-01-02T03:04:05Z", 0),
            ("2026-01-02", "2026-01-02T00:00:00Z", 0),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", 0),
            ("1795439468", "2026-11-23T13:11:08Z", 0),
            ("1795439468850", "2026-11-23T13:11:08.85Z", 0),
            ("1795439468.85", "2026-11-23T13:11:08.85Z", 0),
            ("1795439468850123", "2026-11-23T13:11:08.850123Z", 0),
            ("1795439468850123456", "2026-11-23T13:11:08.850123456Z", 0),
        ];
        for (text, expected, offset) in cases {
            let read = ClientTime::parse(text).unwrap_or_else(|| panic!("{text} was not read"));
            assert_eq!(read.instant, at(expected), "{text}");
            assert_eq!(read.utc_offset_seconds, offset, "{text}");
        }
        assert_eq!(ClientTime::from_epoch("0").unwrap().instant, Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "-",
            "1e9",
            "99999999999999999999999",
            "2026-01-02T25:00:00Z",
        ] {
            assert_eq!(ClientTime::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_that_is_ten_minutes_fast_is_corrected() {
        let received = at("2026-11-23T12:00:01Z");
        let fast = correct(Some(at("2026-11-23T12:09:00Z")), Some(at("2026-11-23T12:10:00Z")), received);
        assert_eq!(fast, Corrected { instant: at("2026-11-23T11:59:01Z"), clamped: false });
    }

    #[test]
    fn a_time_in_2070_becomes_receipt_and_one_in_1970_stays() {
        let received = at("2026-11-23T12:00:00Z");
        let future = correct(Some(at("2070-01-01T00:00:00Z")), None, received);
        assert_eq!(future, Corrected { instant: received, clamped: true });
        let past = correct(Some(Timestamp::UNIX_EPOCH), None, received);
        assert_eq!(past, Corrected { instant: Timestamp::UNIX_EPOCH, clamped: false });
        assert_eq!(correct(None, None, received), Corrected { instant: received, clamped: false });
    }

    #[test]
    fn stored_times_before_1970_keep_their_fraction() {
        let early = at("1969-12-31T23:59:59.25Z");
        let stored = to_proto(early);
        assert_eq!((stored.seconds, stored.nanos), (-1, 250_000_000));
        assert_eq!(from_proto(&stored), Some(early));
    }
}
