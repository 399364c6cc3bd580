//! Since when: a time, or how long ago.

use anyhow::{Context as _, anyhow};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// How far to look back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Since {
    /// So long ago.
    Ago(SignedDuration),
    /// To this time.
    At(Timestamp),
}

impl Since {
    /// As services are told, seen from now.
    ///
    /// # Errors
    /// It is before all times.
    pub fn before(self, now: Timestamp) -> anyhow::Result<prost_types::Timestamp> {
        let at = match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).context("too long ago")?,
        };
        Ok(prost_types::Timestamp { seconds: at.as_second(), nanos: 0 })
    }
}

/// Reads `2026-11-23T12:00:00Z`, or `90m`, `48h`, `7d`.
///
/// # Errors
/// It is neither.
pub fn parse_since(text: &str) -> anyhow::Result<Since> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Since::At(at));
    }
    let wrong = || {
        anyhow!(
            "`{text}` is neither a time such as 2026-11-23T12:00:00Z nor how long ago, such as 90m, 48h or 7d"
        )
    };
    let span: Span = text.parse().map_err(|_| wrong())?;
    let ago = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if ago <= SignedDuration::ZERO {
        return Err(wrong());
    }
    Ok(Since::Ago(ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert_eq!(parse_since("48h").unwrap(), Since::Ago(SignedDuration::from_hours(48)));
        assert_eq!(parse_since("7d").unwrap(), Since::Ago(SignedDuration::from_hours(7 * 24)));
        assert_eq!(
            parse_since("1970-01-01T00:00:01Z").unwrap(),
            Since::At(Timestamp::from_second(1).unwrap())
        );
        for wrong in ["", "yesterday", "-1h", "0h", "24"] {
            let error = parse_since(wrong).unwrap_err().to_string();
            assert!(error.contains("such as 90m"), "{wrong}: {error}");
        }
        let hour = Since::Ago(SignedDuration::from_hours(1)).before(Timestamp::from_second(7_200).unwrap());
        assert_eq!(hour.unwrap().seconds, 3_600);
    }
}
