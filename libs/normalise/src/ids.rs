//! Ids, and texts that a platform made itself and wants back as they are.

use crate::Reason;
use crate::rule::Form;
use crate::{Platform, text};

/// What programs and shops write as the id of somebody whom they do not know. Sent as an id, such a word would join
/// all of them into one person; `0` is the guest of several shop systems.
const NOBODY: [&str; 13] = [
    "null",
    "undefined",
    "nan",
    "none",
    "nil",
    "n/a",
    "unknown",
    "anonymous",
    "guest",
    "(null)",
    "(not set)",
    "[object object]",
    "0",
];

/// The advertiser's own id of the person.
///
/// Meta is silent about the form ("Customer Information Parameters", 2026-01): trimmed and lower-cased as its
/// parameter builder does, so that browser and server agree. TikTok: its own tag template keeps the case (2026-08);
/// `lower` is for shops whose pixel lower-cases. Google: as it is.
pub(crate) fn external_id(platform: Platform, text: &str, lower: bool) -> Form {
    if NOBODY.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Err(Reason::Placeholder);
    }
    if is_nil_uuid(text) {
        return Err(Reason::NilUuid);
    }
    match platform {
        Platform::Meta => Ok(text::lower(text)),
        Platform::Tiktok if lower => Ok(text::lower(text)),
        Platform::Tiktok | Platform::Google | Platform::Ga4 => Ok(text.to_owned()),
    }
}

/// An advertising id: a UUID with hyphens. Meta wants it in lower case ("Customer Information Parameters" and the key
/// table of custom audiences, 2026-01); TikTok and Google take it as the device gives it. All zeros: the person has
/// refused tracking.
pub(crate) fn mobile_ad_id(platform: Platform, text: &str) -> Form {
    if is_nil_uuid(text) {
        return Err(Reason::TrackingRefused);
    }
    if !is_uuid(text) {
        return Err(Reason::NotAnAdvertisingId);
    }
    match platform {
        Platform::Meta => Ok(text.to_ascii_lowercase()),
        Platform::Tiktok | Platform::Google | Platform::Ga4 => Ok(text.to_owned()),
    }
}

/// An id that the platform made: never lower-cased, cut or hashed.
pub(crate) fn opaque(text: &str) -> Form {
    if text::is_placeholder(text) {
        return Err(Reason::Placeholder);
    }
    if text.contains(char::is_control) {
        return Err(Reason::ControlCharacter);
    }
    Ok(text.to_owned())
}

fn is_uuid(text: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let mut given = text.split('-');
    groups.iter().all(|length| {
        given
            .next()
            .is_some_and(|group| group.len() == *length && group.bytes().all(|b| b.is_ascii_hexdigit()))
    }) && given.next().is_none()
}

fn is_nil_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(|b| *b != b'-');
    text.len() >= 32 && text.bytes().all(|b| matches!(b, b'0' | b'-')) && digits.count() == 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_nobody_are_refused() {
        for id in ["undefined", "NULL", "guest", "0", "00000000-0000-0000-0000-000000000000"] {
            assert!(external_id(Platform::Tiktok, id, false).is_err(), "{id}");
        }
        assert_eq!(external_id(Platform::Tiktok, "00", false), Ok("00".into()));
    }

    #[test]
    fn the_case_of_an_external_id_is_the_platforms() {
        assert_eq!(external_id(Platform::Meta, "Cust-1", false), Ok("cust-1".into()));
        assert_eq!(external_id(Platform::Tiktok, "Cust-1", false), Ok("Cust-1".into()));
        assert_eq!(external_id(Platform::Tiktok, "Cust-1", true), Ok("cust-1".into()));
    }

    #[test]
    fn an_advertising_id_is_a_uuid() {
        let id = "EA7583CD-A667-48BC-B806-42ECB2B48606";
        assert_eq!(mobile_ad_id(Platform::Meta, id), Ok(id.to_ascii_lowercase()));
        assert_eq!(mobile_ad_id(Platform::Tiktok, id), Ok(id.to_owned()));
        assert!(mobile_ad_id(Platform::Meta, "EA7583CDA66748BCB80642ECB2B48606").is_err());
        assert!(mobile_ad_id(Platform::Meta, "EA7583CD-A667-48BC-B806-42ECB2B48606-").is_err());
    }
}
