//! Ids, addresses of machines, and texts that a platform made itself and wants back as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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

/// A public IP address in its canonical form. A private one is the address of a proxy or of the shop's own network:
/// it would match everybody behind it.
///
/// Source: Meta, "Customer Information Parameters" (2026-01): real and public.
pub(crate) fn ip(text: &str) -> Form {
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()))
        .map_err(|_| Reason::NotAnIp)?
        .to_canonical();
    let is_public = match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    };
    if is_public { Ok(address.to_string()) } else { Err(Reason::NotPublic) }
}

/// Source: IANA IPv4 Special-Purpose Address Registry; 2026-11. Documentation ranges are left in for tests.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || is_shared
        || address.is_multicast()
        || a >= 240)
}

/// Source: IANA IPv6 Special-Purpose Address Registry; 2026-11.
fn is_public_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || address.is_multicast())
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
    fn addresses_take_their_canonical_form() {
        assert_eq!(ip("2001:DB8:0:0::1"), Ok("2001:db8::1".into()));
        assert_eq!(ip("::ffff:203.0.113.7"), Ok("203.0.113.7".into()));
        assert_eq!(ip("203.0.113.7:4711"), Ok("203.0.113.7".into()));
        assert_eq!(ip("[2001:db8::1]:443"), Ok("2001:db8::1".into()));
    }

    #[test]
    fn an_address_of_a_private_network_is_nobodys() {
        for address in [
            "10.1.2.3",
            "192.168.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fd00::1",
        ] {
            assert_eq!(ip(address), Err(Reason::NotPublic), "{address}");
        }
        assert_eq!(ip("203.0.113.999"), Err(Reason::NotAnIp));
        assert_eq!(ip("1.1.1.1, 10.0.0.1"), Err(Reason::NotAnIp));
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
