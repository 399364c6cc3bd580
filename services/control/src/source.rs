//! A source: one write key, and what is known beforehand about the events that come with it.

use tracklayer_ids::{Secret, SourceId, WorkspaceId};

use crate::error::ControlError;
use crate::name::Name;
use crate::scope::{KeyHash, WRITE_KEY_PREFIX};
use crate::webhook::WebhookDocument;

/// How long a first occurrence is remembered where the source does not say: 7 days.
const DEFAULT_DEDUP_TTL_SECONDS: u32 = 604_800;
const DEFAULT_USER_ID_TYPE: &str = "user_id";
/// Most characters of a write key that are kept in clear, for recognition.
const HINT_CHARS: usize = 12;

/// Where the events are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A web page.
    Browser,
    /// A server.
    Server,
    /// An app.
    Mobile,
}

/// A source to be made; every field is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSource {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Its name, unique in the workspace.
    pub name: Name,
    /// Where its events are made.
    pub channel: Channel,
    /// Place of events that do not say; empty: unknown.
    pub default_place: String,
    /// Which identifier type its userId is.
    pub user_id_type: String,
    /// How long a first occurrence is remembered.
    pub dedup_ttl_seconds: u32,
    /// The banner's categories are no choice made.
    pub banner_writes_defaults: bool,
    /// Commerce events are deduplicated by their order, too.
    pub dedup_by_order_id: bool,
    /// Events a second at each replica of ingest, 0: no limit; none: what the installation says.
    pub max_events_per_second: Option<u32>,
    /// A key to take over; none: one is made.
    pub write_key: Option<Secret<String>>,
    /// Which webhooks it takes, secrets in clear; none: no webhooks.
    pub webhook: Option<WebhookDocument>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Whose.
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: String,
    /// SHA-256 of its write key.
    pub write_key_sha256: KeyHash,
    /// First characters of its write key.
    pub write_key_hint: String,
    /// Where its events are made.
    pub channel: Channel,
    /// Place of events that do not say; empty: unknown.
    pub default_place: String,
    /// Which identifier type its userId is.
    pub user_id_type: String,
    /// Whether it takes events.
    pub enabled: bool,
    /// How long a first occurrence is remembered.
    pub dedup_ttl_seconds: u32,
    /// The banner's categories are no choice made.
    pub banner_writes_defaults: bool,
    /// Commerce events are deduplicated by their order, too.
    pub dedup_by_order_id: bool,
    /// Events a second at each replica of ingest, 0: no limit; none: what the installation says.
    pub max_events_per_second: Option<u32>,
    /// Which webhooks it takes, secrets sealed; none: no webhooks.
    pub sealed_webhook: Option<String>,
}

/// What changes about how a source's events are deduplicated; none: it stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupChange {
    /// How long a first occurrence is remembered that is claimed from now on.
    pub ttl_seconds: Option<u32>,
    /// Commerce events are deduplicated by their order, too.
    pub by_order_id: Option<bool>,
}

impl Channel {
    /// The word in proto and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Server => "server",
            Self::Mobile => "mobile",
        }
    }

    /// The channel of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Browser, Self::Server, Self::Mobile].into_iter().find(|channel| channel.as_str() == text)
    }
}

/// Parses a place: "DE", "US-CA", or empty.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_place(text: &str) -> Result<String, ControlError> {
    let (country, region) =
        text.split_once('-').map_or((text, None), |(country, region)| (country, Some(region)));
    let country_fits = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
    let region_fits = region.is_none_or(|region| {
        (1..=3).contains(&region.len())
            && region.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    });
    if text.is_empty() || (country_fits && region_fits) {
        return Ok(text.to_owned());
    }
    Err(ControlError::invalid(
        "default_place",
        "must be an ISO 3166 code in capitals, `DE` or `US-CA`, or empty for unknown",
    ))
}

/// Parses an identifier type, `user_id` if empty.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_user_id_type(text: &str) -> Result<String, ControlError> {
    if text.is_empty() {
        return Ok(DEFAULT_USER_ID_TYPE.to_owned());
    }
    let fits = text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits {
        return Ok(text.to_owned());
    }
    Err(ControlError::invalid(
        "user_id_type",
        "must have 1 to 63 characters: a-z, 0-9, underscore, first a letter",
    ))
}

/// Parses a duration of memory, 7 days if 0.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_dedup_ttl(seconds: u32) -> Result<u32, ControlError> {
    match seconds {
        0 => Ok(DEFAULT_DEDUP_TTL_SECONDS),
        60..=7_776_000 => Ok(seconds),
        _ => Err(ControlError::invalid("dedup_ttl_seconds", "must be 60 to 7,776,000 (90 days)")),
    }
}

/// Parses how much a source may send.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_rate(events_per_second: Option<u32>) -> Result<Option<u32>, ControlError> {
    match events_per_second {
        Some(10_000_001..) => {
            Err(ControlError::invalid("max_events_per_second", "must be 0 (no limit) to 10,000,000"))
        }
        fits => Ok(fits),
    }
}

/// Parses a write key that is brought along; none if empty. A write key is public (it stands in every page) and names a source,
/// so that short ones of other systems are as good. No space and no colon: SDKs send it as the user name of HTTP's
/// Basic authentication, where a colon ends it (RFC 7617, 2).
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_write_key(text: &str) -> Result<Option<Secret<String>>, ControlError> {
    if text.is_empty() {
        return Ok(None);
    }
    let fits = (4..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if fits {
        return Ok(Some(Secret::new(text.to_owned())));
    }
    Err(ControlError::invalid(
        "write_key",
        "must have 4 to 128 printable ASCII characters, no space, no colon",
    ))
}

impl NewSource {
    /// The key to use: the one brought along, or a new one.
    ///
    /// # Errors
    /// The operating system gives no random numbers.
    pub fn write_key_or_new(&self) -> Result<Secret<String>, ControlError> {
        match &self.write_key {
            Some(key) => Ok(key.clone()),
            None => Ok(tracklayer_secrets::generate_key(WRITE_KEY_PREFIX)?),
        }
    }
}

/// What is kept of a write key for recognition: never more than half of it.
#[must_use]
pub fn hint_of(write_key: &Secret<String>) -> String {
    let key = write_key.expose();
    key.chars().take(HINT_CHARS.min(key.chars().count() / 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_country_and_perhaps_a_region() {
        for good in ["", "DE", "US-CA", "FR-75", "GB-ENG"] {
            assert_eq!(parse_place(good).unwrap(), good);
        }
        for bad in ["de", "D", "DEU", "US-", "US-CALI", "US-ca", "US CA", "-CA", "unknown"] {
            assert!(parse_place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_write_key_that_basic_authentication_would_cut_is_refused() {
        assert_eq!(parse_write_key("").unwrap(), None);
        assert!(parse_write_key("wk_northline_web_us").unwrap().is_some());
        for bad in ["abc", "with space", "with:colon", "üüüüüüüüüü", &"x".repeat(129)] {
            assert!(parse_write_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hint_never_shows_more_than_half_of_a_key() {
        assert_eq!(hint_of(&Secret::new("12345678".to_owned())), "1234");
        assert_eq!(hint_of(&Secret::new("x".repeat(100))).len(), 12);
    }

    #[test]
    fn a_memory_of_a_second_or_of_a_year_is_refused() {
        assert_eq!(parse_dedup_ttl(0).unwrap(), 604_800);
        assert_eq!(parse_dedup_ttl(60).unwrap(), 60);
        assert!(parse_dedup_ttl(59).is_err());
        assert!(parse_dedup_ttl(7_776_001).is_err());
    }

    #[test]
    fn an_identifier_type_is_a_plain_word() {
        assert_eq!(parse_user_id_type("").unwrap(), "user_id");
        assert_eq!(parse_user_id_type("wholesale_id").unwrap(), "wholesale_id");
        for bad in ["User", "1st", "a-b", &"x".repeat(64)] {
            assert!(parse_user_id_type(bad).is_err(), "{bad}");
        }
    }
}
