//! What the connection says about the person behind it: address, user agent, Global Privacy Control.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const SEC_GPC: HeaderName = HeaderName::from_static("sec-gpc");
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-retry-count");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Who connects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Person {
    /// The address; empty if unknown.
    pub(super) ip: String,
    /// The user agent; empty if none.
    pub(super) user_agent: String,
    /// A `Sec-GPC` line was exactly `1`. Source: W3C, Global Privacy Control, "The Sec-GPC Header Field"; 2026-04.
    pub(super) gpc: bool,
    /// Attempts before this one, as the client says.
    pub(super) retry: u32,
    /// W3C traceparent; empty if none.
    pub(super) traceparent: String,
}

impl Person {
    /// Reads the request's head.
    pub(super) fn of(head: &Parts, trusted_proxies: u32) -> Self {
        let headers = &head.headers;
        let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        // Behind a proxy the peer is that proxy: no address is better than its.
        let ip = if trusted_proxies == 0 { peer } else { forwarded_for(headers, trusted_proxies) };
        let text =
            |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        Self {
            ip: ip.map(|ip| ip.to_canonical().to_string()).unwrap_or_default(),
            user_agent: text(USER_AGENT),
            gpc: headers.get_all(SEC_GPC).iter().any(|value| value.as_bytes() == b"1"),
            retry: text(RETRY_COUNT).trim().parse().unwrap_or(0),
            traceparent: text(TRACEPARENT),
        }
    }
}

/// The entry that the outermost trusted proxy wrote. What stands before it was written by the client and is not believed.
fn forwarded_for(headers: &HeaderMap, trusted_proxies: u32) -> Option<IpAddr> {
    let hops = trusted_proxies as usize;
    if hops == 0 {
        return None;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
    let entries: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let entry = entries.len().checked_sub(hops).map_or(entries.first(), |at| entries.get(at))?;
    entry.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_the_entry_of_a_trusted_proxy_is_believed() {
        let headers =
            headers(&[("x-forwarded-for", "6.6.6.6, 203.0.113.7"), ("x-forwarded-for", "10.0.0.1:4711")]);
        assert_eq!(forwarded_for(&headers, 0), None);
        assert_eq!(forwarded_for(&headers, 1), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(forwarded_for(&headers, 2), Some("203.0.113.7".parse().unwrap()));
        assert_eq!(forwarded_for(&HeaderMap::new(), 1), None);
    }

    #[test]
    fn a_proxys_own_address_is_nobodys() {
        let of = |lines: &[(&'static str, &'static str)], trusted_proxies| {
            let (mut head, ()) = http::Request::new(()).into_parts();
            head.headers = headers(lines);
            head.extensions.insert(ConnectInfo("10.0.0.1:80".parse::<SocketAddr>().unwrap()));
            Person::of(&head, trusted_proxies).ip
        };
        assert_eq!(of(&[("x-forwarded-for", "6.6.6.6")], 0), "10.0.0.1", "nobody is in front");
        assert_eq!(of(&[("x-forwarded-for", "203.0.113.7")], 1), "203.0.113.7");
        assert_eq!(of(&[("x-forwarded-for", "unknown")], 1), "");
        assert_eq!(of(&[], 1), "");
    }

    #[test]
    fn gpc_is_on_if_any_line_is_exactly_1() {
        for (lines, on) in [
            (vec![("sec-gpc", "1")], true),
            (vec![("sec-gpc", "0"), ("sec-gpc", "1")], true),
            (vec![("sec-gpc", "true")], false),
            (vec![("sec-gpc", "1, 1")], false),
            (vec![], false),
        ] {
            let (mut head, ()) = http::Request::new(()).into_parts();
            head.headers = headers(&lines);
            assert_eq!(Person::of(&head, 0).gpc, on, "{lines:?}");
        }
    }
}
