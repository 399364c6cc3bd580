//! Addresses on the network: which are somebody's, and the canonical form of those.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Reason, text};

/// Whether an address is private, local, reserved or not unicast. Documentation ranges pass: they occur in tests only, and no platform
/// refuses them.
///
/// Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; 2026-11.
#[must_use]
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_unspecified()
        || ip.is_broadcast()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        // RFC 6598: shared by carriers.
        || (a == 100 && (64..128).contains(&b))
        // RFC 6890: protocol assignments; RFC 2544: benchmarks.
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_private_v4(v4);
    }
    let [first, second, ..] = ip.segments();
    if first == 0x64 && second == 0xff9b {
        // RFC 6052: an IPv4 address behind NAT64.
        let [.., g, h] = ip.segments();
        let [a, b] = g.to_be_bytes();
        let [c, d] = h.to_be_bytes();
        return is_private_v4(Ipv4Addr::new(a, b, c, d));
    }
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || (first & 0xfe00) == 0xfc00
        || (first & 0xffc0) == 0xfe80
        || (first & 0xffc0) == 0xfec0
}

/// A person's address in its canonical form: without the port that some proxies write behind it, and an IPv4 address that came wrapped in
/// IPv6 as itself. A private one is the address of a proxy or of the shop's own network: it would match everybody behind it.
///
/// Source: Meta, "Customer Information Parameters" (2026-01): real and public.
///
/// # Errors
/// It is private, or no address.
pub fn public(text: &str) -> Result<String, Reason> {
    let text = text::tidy(text);
    if let Ok(v4) = text.parse::<Ipv4Addr>() {
        // There is one way to write it, which this is.
        return if is_private_v4(v4) { Err(Reason::NotPublic) } else { Ok(text.into_owned()) };
    }
    let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    let ip = ip.map_err(|_| Reason::NotAnIp)?.to_canonical();
    if is_private(ip) { Err(Reason::NotPublic) } else { Ok(ip.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_address_is_canonical_or_nothing() {
        assert_eq!(public(" 2001:DB8::1 ").as_deref(), Ok("2001:db8::1"));
        assert_eq!(public("2001:DB8:0:0::1").as_deref(), Ok("2001:db8::1"));
        assert_eq!(public("203.0.113.7:4711").as_deref(), Ok("203.0.113.7"));
        assert_eq!(public("[2001:db8::1]:443").as_deref(), Ok("2001:db8::1"));
        assert_eq!(public("::ffff:203.0.113.7").as_deref(), Ok("203.0.113.7"));
        assert_eq!(public("\u{feff}203.0.113.7\u{200b}").as_deref(), Ok("203.0.113.7"));
        for text in ["unknown", "203.0.113.999", "1.1.1.1, 10.0.0.1"] {
            assert_eq!(public(text), Err(Reason::NotAnIp), "{text}");
        }
    }

    #[test]
    fn an_address_of_a_private_network_is_nobodys() {
        for address in [
            "10.1.2.3",
            "192.168.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fec0::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
        ] {
            assert_eq!(public(address), Err(Reason::NotPublic), "{address}");
        }
    }
}
