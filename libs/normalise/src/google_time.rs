//! Times in the form of the Google Ads API: `yyyy-mm-dd hh:mm:ss±hh:mm`, a zone always, no `T`, `Z` or fraction.
//!
//! Source: Google Ads API, ClickConversion.conversion_date_time, v26; 2026-11. A text without a zone is refused
//! rather than taken for UTC: it would move the conversion by hours.

use jiff::civil::DateTime;

use crate::Reason;

/// Why a text is no time of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTime {
    /// Not of the form `yyyy-mm-ddThh:mm:ss`.
    #[error("{}", Reason::NotATime)]
    Form,
    /// No such day, hour, minute or second.
    #[error("{}", Reason::NoSuchTime)]
    Range,
    /// No zone at its end.
    #[error("{}", Reason::NoZone)]
    NoZone,
    /// An offset that is none.
    #[error("{}", Reason::NotAnOffset)]
    Offset,
}

impl BadTime {
    /// The same as a reason for leaving the time out.
    pub fn reason(self) -> Reason {
        match self {
            Self::Form => Reason::NotATime,
            Self::Range => Reason::NoSuchTime,
            Self::NoZone => Reason::NoZone,
            Self::Offset => Reason::NotAnOffset,
        }
    }
}

/// Turns an RFC 3339 time into the form of the Google Ads API. The offset stays; a fraction is cut off, never rounded
/// up, since the conversion must not lie after the adjustment that names it. Lenient where RFC 3339 or ISO 8601 are
/// used loosely: lower case, a space for `T`, `+0545`.
pub fn conversion_date_time(rfc3339: &str) -> Result<String, BadTime> {
    let text = rfc3339.trim();
    let bytes = text.as_bytes();
    let is_separator = |at: usize, of: &[u8]| bytes.get(at).is_some_and(|b| of.contains(b));
    if !text.is_ascii()
        || !is_separator(4, b"-")
        || !is_separator(7, b"-")
        || !is_separator(10, b"Tt ")
        || !is_separator(13, b":")
        || !is_separator(16, b":")
    {
        return Err(BadTime::Form);
    }
    let number = |from: usize, to: usize| digits(text.get(from..to)).ok_or(BadTime::Form);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let time = DateTime::new(year, month as i8, day as i8, hour as i8, minute as i8, second as i8, 0)
        .map_err(|_| BadTime::Range)?;
    let offset = offset(without_fraction(&text[19..])?)?;
    Ok(format!("{} {}{offset}", time.date(), time.time()))
}

/// Two or four digits as a number; they fit, so no sign or overflow can arise.
fn digits(text: Option<&str>) -> Option<i16> {
    let text = text?;
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn without_fraction(rest: &str) -> Result<&str, BadTime> {
    let Some(fraction) = rest.strip_prefix(['.', ',']) else { return Ok(rest) };
    let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    if zone.len() == fraction.len() { Err(BadTime::Form) } else { Ok(zone) }
}

/// The zone as `±hh:mm`. RFC 3339 gives `-00:00` a meaning of its own; for a platform it is UTC.
fn offset(zone: &str) -> Result<String, BadTime> {
    let zone = zone.trim_start();
    if zone.is_empty() {
        return Err(BadTime::NoZone);
    }
    if zone.eq_ignore_ascii_case("z") {
        return Ok("+00:00".to_owned());
    }
    let (sign, rest) = zone.split_at(1);
    if sign != "+" && sign != "-" {
        return Err(BadTime::Offset);
    }
    let (hours, minutes) = match rest.len() {
        5 if rest.as_bytes()[2] == b':' => (digits(rest.get(..2)), digits(rest.get(3..))),
        4 => (digits(rest.get(..2)), digits(rest.get(2..))),
        2 => (digits(Some(rest)), Some(0)),
        _ => return Err(BadTime::Offset),
    };
    let (Some(hours @ 0..=18), Some(minutes @ 0..=59)) = (hours, minutes) else {
        return Err(BadTime::Offset);
    };
    let sign = if hours == 0 && minutes == 0 { "+" } else { sign };
    Ok(format!("{sign}{hours:02}:{minutes:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_its_own_fixed_point() {
        let once = conversion_date_time("2026-11-20T14:03:21.987+05:30").unwrap();
        assert_eq!(once, "2026-11-20 14:03:21+05:30");
        assert_eq!(conversion_date_time(&once), Ok(once));
    }

    #[test]
    fn each_fault_has_its_own_name() {
        for (text, fault) in [
            ("2026-11-20", BadTime::Form),
            ("20 Nov 2026 14:03:21Z", BadTime::Form),
            ("+026-11-20T14:03:21Z", BadTime::Form),
            ("2026-11-20T14:03:21.Z", BadTime::Form),
            ("2026-11-20T14:03:21", BadTime::NoZone),
            ("2026-11-20T14:03:21.5", BadTime::NoZone),
            ("2025-02-29T00:00:00Z", BadTime::Range),
            ("2026-11-20T24:00:00Z", BadTime::Range),
            ("2026-11-20T14:03:21+25:00", BadTime::Offset),
            ("2026-11-20T14:03:21 CET", BadTime::Offset),
            ("2026-11-20T14:03:21ü", BadTime::Form),
        ] {
            assert_eq!(conversion_date_time(text), Err(fault), "{text}");
        }
    }
}
