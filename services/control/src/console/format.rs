//! Numbers and times as a page shows them.

use jiff::{Timestamp, tz::TimeZone};

/// 1234567 → "1,234,567".
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// 850 → "850 ms", 12500 → "12.5 s", 90000 → "1 min 30 s".
#[must_use]
pub fn milliseconds(ms: u32) -> String {
    match ms {
        0..=999 => format!("{ms} ms"),
        1_000..=59_999 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..=3_599_999 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A part of a whole in per cent: "12.5 %", "< 0.1 %".
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0 %".to_owned();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    let rounded = (part * 1_000 + whole / 2) / whole;
    // What is not all is never called all, and what is there never nothing.
    let per_mille = if part < whole { rounded.min(999) } else { rounded };
    if per_mille == 0 {
        return "< 0.1 %".to_owned();
    }
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

/// "2025-11-24 14:03:22 UTC".
#[must_use]
pub fn instant(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// "2025-11-24 14:03:22.123 UTC".
#[must_use]
pub fn exact_instant(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S.%3f UTC").to_string()
}

/// "14:03:22 UTC".
#[must_use]
pub fn clock(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn a_latency_keeps_the_unit_that_a_person_would_use() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.2 s"),
            (90_000, "1 min 30 s"),
            (5_400_000, "1 h 30 min"),
        ];
        for (ms, expected) in cases {
            assert_eq!(milliseconds(ms), expected);
        }
    }

    #[test]
    fn a_small_share_is_not_called_nothing_and_a_large_one_not_all() {
        assert_eq!(share(999_999, 1_000_000), "99.9 %");
        assert_eq!(share(8, 8), "100.0 %");
        assert_eq!(share(2, 3), "66.7 %");
        assert_eq!(share(1, 8), "12.5 %");
        assert_eq!(share(1, 100_000), "< 0.1 %");
        assert_eq!(share(0, 8), "0 %");
        assert_eq!(share(1, 0), "0 %");
    }

    #[test]
    fn an_instant_names_its_zone() {
        let time: Timestamp = "2025-11-24T14:03:22.1234Z".parse().unwrap();
        assert_eq!(instant(time), "2025-11-24 14:03:22 UTC");
        assert_eq!(exact_instant(time), "2025-11-24 14:03:22.123 UTC");
        assert_eq!(clock(time), "14:03:22 UTC");
    }
}
