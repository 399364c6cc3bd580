//! Every answer that goes out. No SDK reads a success; a refusal's text is for people.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use serde::Serialize;
use tracklayer_event::batch::BodyError;
use tracklayer_event::{RejectCode, Rejection};
use tracklayer_ids::WorkspaceId;
use tracklayer_rpc::{RpcError as _, http_status};

use crate::error::IngestError;
use crate::metrics::{self, Wire};
use crate::outcome::Outcome;

/// A transparent pixel, GIF89a.
const GIF: [u8; 43] = [
    0x47, 0x49, 0x46, 0x38, 0x39, 0x61, 0x01, 0x00, 0x01, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff,
    0xff, 0xff, 0x21, 0xf9, 0x04, 0x01, 0x00, 0x00, 0x00, 0x00, 0x2c, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
    0x01, 0x00, 0x00, 0x02, 0x02, 0x44, 0x01, 0x00, 0x3b,
];

/// A request that was refused as a whole.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) field: Option<Box<str>>,
    pub(super) retry_after: Option<Duration>,
    pub(super) allow: Option<Method>,
    /// Whose request it was, where only the body said so.
    pub(super) workspace: Option<WorkspaceId>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, code, message, field: None, retry_after: None, allow: None, workspace: None }
    }

    /// The same to a request of this workspace.
    pub(super) fn to(self, workspace: WorkspaceId) -> Self {
        Self { workspace: Some(workspace), ..self }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    pub(super) fn wrong_method(allowed: Method) -> Self {
        let message = format!("this path takes {allowed}");
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        Self { allow: Some(allowed), ..refusal }
    }

    /// A single call that cannot be accepted.
    pub(super) fn of_rejection(rejection: &Rejection) -> Self {
        let status = match rejection.code {
            RejectCode::EventTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        let field = (!rejection.field.is_empty()).then(|| rejection.field.as_str().into());
        Self { field, ..Self::new(status, rejection.code.as_str(), rejection.reason.clone()) }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.code(), error.to_string())
    }
}

impl From<IngestError> for Refusal {
    fn from(error: IngestError) -> Self {
        // Node and the browser obey Retry-After on 429 only: overload, unlike an outage, is never a 503.
        let status = http_status(&error);
        if status.is_server_error() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                code = error.code(),
                "request could not be worked on"
            );
        }
        let retry_after = error.retry_after();
        Self { retry_after, ..Self::new(status, error.code(), error.to_string()) }
    }
}

/// A refusal as it goes out; counted.
pub(super) fn refused(refusal: &Refusal) -> Response {
    refused_on(Wire::Http, refusal)
}

/// The same on another wire.
pub(super) fn refused_on(wire: Wire, refusal: &Refusal) -> Response {
    #[derive(Serialize)]
    struct Refused<'a> {
        success: bool,
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
    }
    metrics::refused(wire, refusal.code);
    let body = Refused {
        success: false,
        code: refusal.code,
        message: &refusal.message,
        field: refusal.field.as_deref(),
    };
    let mut response = json(refusal.status, &body);
    if let Some(retry_after) = refusal.retry_after {
        // Whole seconds, at least one: 0 is "none" for one SDK, and more than 300 is not obeyed.
        let seconds = retry_after.as_millis().div_ceil(1_000).clamp(1, 300);
        if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
    }
    if let Some(allow) = &refusal.allow
        && let Ok(value) = HeaderValue::from_str(&format!("{allow}, OPTIONS"))
    {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// `{"success":true}`.
pub(super) fn success() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "success": true }))
}

/// A batch that was looked at: what was rejected and what was mended stands beside the success.
pub(super) fn batch(outcomes: &[Outcome]) -> Response {
    #[derive(Serialize)]
    struct Rejected<'a> {
        index: usize,
        code: &'static str,
        field: &'a str,
        reason: &'a str,
        #[serde(rename = "messageId", skip_serializing_if = "str::is_empty")]
        message_id: &'a str,
    }
    #[derive(Serialize)]
    struct Mended<'a> {
        index: usize,
        code: &'a str,
    }
    #[derive(Serialize)]
    struct Batch<'a> {
        success: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        rejected: Vec<Rejected<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Mended<'a>>,
    }
    let mut body = Batch { success: true, rejected: Vec::new(), warnings: Vec::new() };
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Accepted { warnings, .. } => {
                body.warnings.extend(warnings.iter().map(|code| Mended { index, code }));
            }
            Outcome::Duplicate { .. } => {}
            Outcome::Rejected(rejection) => body.rejected.push(Rejected {
                index,
                code: rejection.code.as_str(),
                field: &rejection.field,
                reason: &rejection.reason,
                message_id: &rejection.message_id,
            }),
        }
    }
    json(StatusCode::OK, &body)
}

/// A webhook of which no event was made, and why.
pub(super) fn ignored(reason: &'static str, explanation: &'static str) -> Response {
    json(StatusCode::OK, &serde_json::json!({ "success": true, "ignored": reason, "message": explanation }))
}

/// The pixel; the same whatever happened.
pub(super) fn gif() -> Response {
    let mut response = Response::new(Body::from(GIF.as_slice()));
    put(&mut response, CONTENT_TYPE, "image/gif");
    put(&mut response, CACHE_CONTROL, "no-store");
    response
}

/// That this host honours Global Privacy Control. Source: W3C, Global Privacy Control, "GPC Support Resource"; 2026-04.
pub(super) fn gpc_support() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "gpc": true }))
}

/// A JSON body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    put(&mut response, CONTENT_TYPE, "application/json");
    response
}

pub(super) fn put(response: &mut Response, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}
