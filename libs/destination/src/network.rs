//! Addresses that are nobody's public address: never a person's, and not to be called by a webhook unless an operator says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tracklayer_normalise::Reason;

/// Whether a host, as it stands in a URL, is a private or local name or address. A name that is not an address says nothing
/// about what it resolves to: whoever connects must ask [`is_private_address`] again.
#[must_use]
pub fn is_private(host: &str) -> bool {
    let host =
        host.trim().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return is_private_address(ip);
    }
    host.is_empty()
        || host == "localhost"
        || [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet"]
            .iter()
            .any(|end| host.ends_with(end))
        || !host.contains('.')
}

/// Whether an address is private, local, reserved or not unicast.
#[must_use]
pub fn is_private_address(ip: IpAddr) -> bool {
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

/// A person's address in its canonical form: without the port that some proxies write behind it, and an IPv4 address that
/// came wrapped in IPv6 as itself. Documentation ranges pass: they occur in tests only, and no platform refuses them.
///
/// # Errors
/// It is private, or no address.
pub fn public_address(text: &str) -> Result<String, Reason> {
    let text = text.trim();
    if let Ok(v4) = text.parse::<Ipv4Addr>() {
        // There is one way to write it, which this is.
        return if is_private_v4(v4) { Err(Reason::NotPublic) } else { Ok(text.to_owned()) };
    }
    let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    let ip = ip.map_err(|_| Reason::NotAnIp)?.to_canonical();
    if is_private_address(ip) { Err(Reason::NotPublic) } else { Ok(ip.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_hosts_are_told_from_public_ones() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "db",
            "a.local",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "[::1]",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "224.0.0.1",
            "255.255.255.255",
            "metadata.google.internal",
            "",
        ] {
            assert!(is_private(host), "{host} is private");
        }
        for host in
            ["example.com", "8.8.8.8", "2001:4860:4860::8888", "203.0.113.7", "[2a00:1450::1]", "100.128.0.1"]
        {
            assert!(!is_private(host), "{host} is public");
        }
    }

    #[test]
    fn a_persons_address_is_canonical_or_nothing() {
        assert_eq!(public_address(" 2001:DB8::1 ").as_deref(), Ok("2001:db8::1"));
        assert_eq!(public_address("203.0.113.7:4711").as_deref(), Ok("203.0.113.7"));
        assert_eq!(public_address("[2001:db8::1]:443").as_deref(), Ok("2001:db8::1"));
        assert_eq!(public_address("::ffff:203.0.113.7").as_deref(), Ok("203.0.113.7"));
        assert_eq!(public_address("::ffff:10.0.0.1"), Err(Reason::NotPublic));
        assert_eq!(public_address("10.0.0.5"), Err(Reason::NotPublic));
        assert_eq!(public_address("unknown"), Err(Reason::NotAnIp));
    }
}
