//! The only way from an error to the wire.
//!
//! Clients get a code, a reason and, where there is one, the field; what happened inside stays in the log.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of `ErrorInfo`: whose reasons these are.
const DOMAIN: &str = "tracklayer";

/// What kind of failure it is. Closed: a new kind is a decision, not an addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request cannot be right. Caller: mend the named field, do not repeat. Operator: nothing.
    InvalidArgument,
    /// No or an unknown credential. Caller: get the right one. Operator: look whether a key was rotated.
    Unauthenticated,
    /// A known credential that does not reach this far. Caller: use another. Operator: nothing.
    PermissionDenied,
    /// The named thing does not exist, or not for this caller. Caller: do not repeat. Operator: nothing.
    NotFound,
    /// The name is taken. Caller: choose another, or use what is there. Operator: nothing.
    AlreadyExists,
    /// The state does not allow it now. Caller: change the state first. Operator: read the reason.
    FailedPrecondition,
    /// Over a limit or overloaded. Caller: repeat after `RetryInfo`. Operator: add replicas or raise the limit.
    ResourceExhausted,
    /// Something that the service needs is away. Caller: repeat with backoff. Operator: look at that thing.
    Unavailable,
    /// A defect. Caller: repeat once, then report the trace id. Operator: read the log under the trace id.
    Internal,
}

impl Code {
    /// The gRPC code.
    #[must_use]
    pub fn grpc(self) -> tonic::Code {
        match self {
            Self::InvalidArgument => tonic::Code::InvalidArgument,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::NotFound => tonic::Code::NotFound,
            Self::AlreadyExists => tonic::Code::AlreadyExists,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::ResourceExhausted => tonic::Code::ResourceExhausted,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http(self) -> StatusCode {
        match self {
            Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::FailedPrecondition => StatusCode::CONFLICT,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a client reads where the error's own text could tell about the inside.
    fn public_text(self) -> Option<&'static str> {
        match self {
            Self::Unavailable => Some("temporarily unavailable; try again"),
            Self::Internal => Some("internal error; the log has it under this request's trace id"),
            Self::InvalidArgument
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::NotFound
            | Self::AlreadyExists
            | Self::FailedPrecondition
            | Self::ResourceExhausted => None,
        }
    }
}

/// An error that a caller of an RPC may get.
pub trait RpcError: std::error::Error {
    /// Its kind, and its reason: UPPER_SNAKE_CASE, stable, one per thing that a caller can act on.
    fn describe(&self) -> (Code, &'static str);
    /// After what time a repeat is worth it; one second where a repeat is worth it at all and nothing is said.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
    /// Path of the request's field that is wrong, and why.
    fn field(&self) -> Option<(String, String)> {
        None
    }
}

/// The gRPC status of an error, with `ErrorInfo`, `BadRequest` and `RetryInfo` where they apply. Logs the whole chain, once:
/// call it where the error is handled.
#[must_use]
pub fn status(error: &dyn RpcError) -> Status {
    let (code, reason) = error.describe();
    log(error, code, reason);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    if let Some((path, why)) = error.field() {
        details.add_bad_request_violation(path, why);
    }
    if let Some(wait) = wait(error, code) {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(code.grpc(), public_text(error, code), details)
}

/// The HTTP status of an error.
#[must_use]
pub fn http_status(error: &dyn RpcError) -> StatusCode {
    error.describe().0.http()
}

/// The HTTP answer for an error: status, `Retry-After`, and `{"error":{"reason","message","field"}}`. Logs the whole chain, once.
#[must_use]
pub fn http_response(error: &dyn RpcError) -> Response {
    let (code, reason) = error.describe();
    log(error, code, reason);
    let field = error.field().map(|(path, why)| serde_json::json!({ "path": path, "why": why }));
    let body = serde_json::json!({
        "error": { "reason": reason, "message": public_text(error, code), "field": field }
    });
    let mut response = (code.http(), Json(body)).into_response();
    if let Some(wait) = wait(error, code) {
        // Whole seconds, never zero: a client that reads 0 comes back at once.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}

fn public_text(error: &dyn RpcError, code: Code) -> String {
    code.public_text().map_or_else(|| error.to_string(), str::to_owned)
}

fn wait(error: &dyn RpcError, code: Code) -> Option<Duration> {
    let worth_it = matches!(code, Code::ResourceExhausted | Code::Unavailable);
    error.retry_after().or(worth_it.then_some(Duration::from_secs(1)))
}

fn log(error: &dyn RpcError, code: Code, reason: &'static str) {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        chain.push_str(": ");
        chain.push_str(&inner.to_string());
        cause = inner.source();
    }
    match code {
        Code::Internal => tracing::error!(reason, error = chain, "request failed"),
        Code::Unavailable | Code::ResourceExhausted => {
            tracing::warn!(reason, error = chain, "request failed")
        }
        Code::InvalidArgument
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition => tracing::debug!(reason, error = chain, "request refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("identifier is empty")]
        Bad,
        #[error("could not read profiles at 10.0.0.7")]
        Away(#[source] std::io::Error),
        #[error("over the rate of this source")]
        Busy,
    }

    impl RpcError for Sample {
        fn describe(&self) -> (Code, &'static str) {
            match self {
                Self::Bad => (Code::InvalidArgument, "BAD_IDENTIFIER"),
                Self::Away(_) => (Code::Unavailable, "STORE_UNAVAILABLE"),
                Self::Busy => (Code::ResourceExhausted, "RATE"),
            }
        }
        fn retry_after(&self) -> Option<Duration> {
            matches!(self, Self::Busy).then_some(Duration::from_millis(2500))
        }
        fn field(&self) -> Option<(String, String)> {
            matches!(self, Self::Bad)
                .then(|| ("items[3].identifiers[0].value".to_owned(), "empty".to_owned()))
        }
    }

    #[test]
    fn a_client_reads_reason_and_field() {
        let status = status(&Sample::Bad);
        assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, "identifier is empty"));
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "BAD_IDENTIFIER");
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "items[3].identifiers[0].value");
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn a_client_reads_nothing_about_the_inside() {
        let status = status(&Sample::Away(std::io::Error::other("secret host")));
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(!status.message().contains("10.0.0.7") && !status.message().contains("secret"), "{status}");
        assert_eq!(
            status.get_error_details().retry_info().unwrap().retry_delay,
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn http_rounds_the_wait_up_to_whole_seconds() {
        let response = http_response(&Sample::Busy);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        assert!(http_response(&Sample::Bad).headers().get(header::RETRY_AFTER).is_none());
    }
}
