//! Addresses that are nobody's public address: never a person's, and not to be called by a webhook unless an operator says so.

use std::net::IpAddr;

use tracklayer_normalise::address;

/// Whether a host, as it stands in a URL, is a private or local name or address. A name that is not an address says nothing
/// about what it resolves to: whoever connects must ask again.
#[must_use]
pub fn is_private(host: &str) -> bool {
    let host =
        host.trim().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return address::is_private(ip);
    }
    host.is_empty()
        || host == "localhost"
        || [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet"]
            .iter()
            .any(|end| host.ends_with(end))
        || !host.contains('.')
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
}
