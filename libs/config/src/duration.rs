//! Durations as people write them: "7d", "1h30m", "250ms".

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units from large to small, in nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A duration that reads and prints with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(pub Duration);

/// Not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration such as \"7d\", \"1h30m\" or \"250ms\"")]
pub struct DurationError(String);

impl HumanDuration {
    /// From whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// From whole milliseconds.
    #[must_use]
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse(text.trim()).map(Self).ok_or_else(|| DurationError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut nanoseconds: u128 = 0;
    let mut rest = text;
    let mut last_unit = u128::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        // From large to small, each at most once: "5m1h" is more likely a slip than a wish.
        if size >= last_unit {
            return None;
        }
        last_unit = size;
        nanoseconds = nanoseconds.checked_add(number.parse::<u128>().ok()?.checked_mul(size)?)?;
        rest = tail.trim_start();
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).ok()?;
    let below = u32::try_from(nanoseconds % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, below))
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS.into_iter().skip(1) {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurationVisitor)
    }
}

struct DurationVisitor;

impl de::Visitor<'_> for DurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"7d\", \"1h30m\" or \"250ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood_and_printed_the_same() {
        for (text, duration) in [
            ("7d", Duration::from_secs(604_800)),
            ("1h30m", Duration::from_secs(5400)),
            ("250ms", Duration::from_millis(250)),
            ("1m1s1ms", Duration::from_millis(61_001)),
            ("40us", Duration::from_micros(40)),
        ] {
            let parsed: HumanDuration = text.parse().unwrap();
            assert_eq!((parsed.0, parsed.to_string().as_str()), (duration, text));
        }
        assert_eq!("1w".parse::<HumanDuration>().unwrap().to_string(), "7d");
        assert_eq!("0".parse::<HumanDuration>().unwrap().to_string(), "0s");
    }

    #[test]
    fn a_number_without_a_unit_is_no_duration() {
        for text in ["", "7", "7 d", "d", "5m1h", "1h1h", "-1s", "1.5h", "99999999999999999999w", "é"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }
}
