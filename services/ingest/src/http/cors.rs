//! Cross-origin rules: any page may send, and may read when to come back. Source: WHATWG, Fetch, "CORS protocol"; 2026-11.
//!
//! The origin is echoed, since `*` does not do for pages that send with credentials; no cookie is ever read here.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap, HeaderName, HeaderValue, VARY,
};

use super::answer::put;

/// Headers that SDKs send.
const ALLOWED_HEADERS: [&str; 4] = ["authorization", "content-type", "x-retry-count", "traceparent"];
/// Most further headers that a page may ask for.
const MAX_ASKED_HEADERS: usize = 20;

/// Marks an answer as readable by the page that asked.
pub(super) fn mark(response: &mut Response, origin: Option<HeaderValue>) {
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    put(response, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    put(response, ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After");
}

/// The answer to a preflight: nobody has to authenticate for it.
pub(super) fn preflight(headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    put(&mut response, ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS");
    if let Ok(allowed) = HeaderValue::from_str(&allowed_headers(headers)) {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    put(&mut response, ACCESS_CONTROL_MAX_AGE, "86400");
    response.headers_mut().append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}

/// Ours, and those that a page's own SDK settings add.
fn allowed_headers(headers: &HeaderMap) -> String {
    let asked =
        headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    let asked = asked.flat_map(|value| value.split(',')).take(MAX_ASKED_HEADERS);
    let mut allowed: Vec<String> = ALLOWED_HEADERS.iter().map(|&name| name.to_owned()).collect();
    for name in asked.filter_map(|name| name.trim().parse::<HeaderName>().ok()) {
        if allowed.iter().all(|known| known != name.as_str()) {
            allowed.push(name.as_str().to_owned());
        }
    }
    allowed.join(", ")
}
