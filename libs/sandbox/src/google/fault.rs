//! Google going wrong.

use serde_json::json;

use super::error::{self, AdsError};
use super::oauth;
use crate::answer::Answer;

/// The delay that a throttled account is told.
const RETRY_DELAY: &str = "1s";

/// 429 as the front end answers.
pub(crate) fn exhausted() -> Answer {
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
    });
    let retry = json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": RETRY_DELAY });
    error::status(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", &[info, retry])
}

/// 429 with the Ads API's own details.
pub(crate) fn quota(path: &str) -> Answer {
    let mut error = AdsError::new("quotaError", "RESOURCE_TEMPORARILY_EXHAUSTED", "Too many requests.");
    error.details = Some(Box::new(json!({ "quotaErrorDetails": {
        "rateScope": "ACCOUNT", "rateName": "Requests per account", "retryDelay": RETRY_DELAY,
    }})));
    error::refused(429, version_of(path), error)
}

/// 401: expired.
pub(crate) fn expired() -> Answer {
    error::unauthenticated(Some("ACCESS_TOKEN_EXPIRED"))
}

/// The refresh token is void.
pub(crate) fn invalid_grant() -> Answer {
    oauth::refuse(400, "invalid_grant", "Token has been expired or revoked.")
}

/// A passing error.
pub(crate) fn transient(status: u16) -> Answer {
    match status {
        503 => error::status(503, "UNAVAILABLE", "The service is currently unavailable.", &[]),
        _ => error::status(status, "INTERNAL", "Internal error encountered.", &[]),
    }
}

/// `family.CODE` of the Ads API, with the status that goes with the family.
pub(crate) fn refuse(path: &str, code: &str) -> Answer {
    let (family, code) = code.split_once('.').unwrap_or(("requestError", code));
    let status = match family {
        "authenticationError" => 401,
        "authorizationError" | "notAllowlistedError" => 403,
        "quotaError" => 429,
        "internalError" => 500,
        _ => 400,
    };
    error::refused(status, version_of(path), AdsError::new(family, code, "Refused, as told."))
}

/// A reason of the Data Manager API, for the first destination.
pub(crate) fn refuse_data_manager(reason: &str) -> Answer {
    let (status, name) = match reason {
        "PERMISSION_DENIED" => (403, "PERMISSION_DENIED"),
        "RESOURCE_EXHAUSTED" => return exhausted(),
        "INTERNAL_ERROR" => return transient(500),
        _ => (400, "INVALID_ARGUMENT"),
    };
    let violation = json!({ "field": "destinations.destinations[0]", "description": "Refused, as told.", "reason": reason });
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": name, "domain": "datamanager.googleapis.com",
    });
    let bad = json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation] });
    error::status(status, name, "There was a problem with the request.", &[info, bad])
}

/// An error of the token endpoint.
pub(crate) fn refuse_token(code: &str) -> Answer {
    let status = if code == "invalid_client" { 401 } else { 400 };
    oauth::refuse(status, code, "Refused, as told.")
}

fn version_of(path: &str) -> u32 {
    let version = path.trim_start_matches("/v").split('/').next().and_then(|version| version.parse().ok());
    version.unwrap_or(error::NEWEST)
}
