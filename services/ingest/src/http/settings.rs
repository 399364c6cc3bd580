//! What analytics.js asks its "CDN" for before it sends anything.
//!
//! `integrations["Segment.io"]` must be there with the edge's own address: a page's override is merged over present keys
//! only, and without it the SDK would send the events to Segment. Any second key makes it load legacy bundles, and a
//! missing sample rate makes it post metrics. Source: @segment/analytics-next 1.84.3; 2026-11.

use axum::response::Response;
use http::header::{CACHE_CONTROL, HOST, HeaderValue, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;

use super::Edge;
use super::answer::{self, Refusal};
use crate::source::Source;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The settings of a source's pages.
pub(super) fn settings(edge: &Edge, head: &Parts, write_key: &str) -> Response {
    let snapshot = match edge.ingest.snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) => return answer::refused(&error.into()),
    };
    if let Err(error) = Source::of_write_key(&snapshot, write_key) {
        // Fails loudly in the page's console; an empty answer would send the page's events elsewhere.
        let refusal = Refusal { status: StatusCode::NOT_FOUND, ..Refusal::from(error) };
        return answer::refused(&refusal);
    }
    let proxied = edge.settings.trusted_proxies > 0;
    let Some(host) = public_host(head, proxied) else {
        let refusal = Refusal::new(
            StatusCode::BAD_REQUEST,
            "missing_host",
            "the request names no host to send events to",
        );
        return answer::refused(&refusal);
    };
    let protocol = match edge.settings.public_protocol.as_deref() {
        Some(configured) => configured,
        None if proxied && header(&head.headers, FORWARDED_PROTO) == Some("https") => "https",
        None => "http",
    };
    let body = json!({
        "integrations": {
            "Segment.io": {
                "apiKey": write_key,
                "apiHost": format!("{host}/v1"),
                "protocol": protocol,
                "unbundledIntegrations": [],
                "addBundledMetadata": true,
                "maybeBundledConfigIds": {},
            },
        },
        "plan": {
            "track": { "__default": { "enabled": true, "integrations": {} } },
            "identify": { "__default": { "enabled": true } },
            "group": { "__default": { "enabled": true } },
        },
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "remotePlugins": [],
        "legacyVideoPluginsEnabled": false,
        "metrics": { "sampleRate": 0 },
    });
    let mut response = answer::json(StatusCode::OK, &body);
    answer::put(&mut response, CACHE_CONTROL, "public, max-age=300");
    if proxied {
        // What one visitor wrote into these headers must not be another's answer from a cache in between: it says where
        // the page's events go.
        response.headers_mut().append(VARY, HeaderValue::from_static("X-Forwarded-Host, X-Forwarded-Proto"));
    }
    response
}

/// The host by which the page reached us, with its port.
fn public_host(head: &Parts, proxied: bool) -> Option<&str> {
    let headers = &head.headers;
    let forwarded = if proxied { header(headers, FORWARDED_HOST) } else { None };
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let host = forwarded.or_else(|| header(headers, HOST)).or(authority)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (!host.is_empty() && host.bytes().all(plain)).then_some(host)
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}
