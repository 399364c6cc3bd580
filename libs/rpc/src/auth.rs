//! Bearer tokens, on both sides of a call.

use sha2::{Digest as _, Sha256};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::Interceptor,
};
use tracklayer_ids::Secret;

use crate::{Code, RpcError, layer::deadline, status};

/// The caller is nobody that we know.
#[derive(Debug, thiserror::Error)]
enum AuthError {
    #[error("no bearer token in metadata `authorization`")]
    Missing,
    #[error(
        "the bearer token is not this installation's service token; do all services share one master key?"
    )]
    Wrong,
}

impl RpcError for AuthError {
    fn describe(&self) -> (Code, &'static str) {
        match self {
            Self::Missing => (Code::Unauthenticated, "TOKEN_MISSING"),
            Self::Wrong => (Code::Unauthenticated, "TOKEN_UNKNOWN"),
        }
    }
}

/// The token of metadata `authorization: Bearer <token>`, if there is one.
#[must_use]
pub fn bearer(metadata: &MetadataMap) -> Option<String> {
    let text = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// Lets through only calls that carry this token.
#[must_use]
pub fn require_service_token(token: &str) -> ServiceToken {
    ServiceToken { expected: Sha256::digest(token).into() }
}

/// See [`require_service_token`].
#[derive(Clone)]
pub struct ServiceToken {
    expected: [u8; 32],
}

impl ServiceToken {
    /// Checks a call by hand, for services that take another kind of credential, too.
    ///
    /// # Errors
    /// UNAUTHENTICATED.
    pub fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let token = bearer(metadata).ok_or_else(|| status(&AuthError::Missing))?;
        if self.matches(&token) { Ok(()) } else { Err(status(&AuthError::Wrong)) }
    }

    /// Whether this is the token. What the time of the comparison could tell is about a hash, not about the token.
    #[must_use]
    pub fn matches(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token).into();
        given == self.expected
    }
}

impl std::fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceToken(***)")
    }
}

impl Interceptor for ServiceToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(request.metadata())?;
        Ok(request)
    }
}

/// Puts on each call to another service: the token, what is left of the caller's deadline (or less, if the call asks for less), and
/// the trace.
#[derive(Clone)]
pub struct BearerToken {
    authorization: MetadataValue<Ascii>,
}

impl BearerToken {
    /// `None` if the token cannot stand in a header.
    pub(crate) fn new(token: &Secret<String>) -> Option<Self> {
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", token.expose()).parse().ok()?;
        authorization.set_sensitive(true);
        Some(Self { authorization })
    }
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(***)")
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.authorization.clone());
        if let Some(remaining) = deadline::remaining() {
            let asked = deadline::callers(request.metadata().as_ref());
            request.set_timeout(asked.map_or(remaining, |asked| asked.min(remaining)));
        }
        if let Some(traceparent) = tracklayer_telemetry::context::current_traceparent()
            && let Ok(value) = traceparent.parse()
        {
            request.metadata_mut().insert("traceparent", value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authorization: &str) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        request
    }

    #[test]
    fn only_the_service_token_passes() {
        let mut guard = require_service_token("right");
        assert!(guard.call(request("Bearer right")).is_ok());
        assert!(guard.call(request("bearer right")).is_ok());
        for wrong in ["Bearer wrong", "Bearer right2", "Basic right", "Bearer ", "right"] {
            let refused = guard.call(request(wrong)).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{wrong}");
        }
        assert!(guard.call(Request::new(())).is_err());
    }

    #[test]
    fn neither_side_prints_the_token() {
        let client = BearerToken::new(&Secret::new("hush".to_owned())).unwrap();
        let shown = format!("{client:?} {:?} {:?}", require_service_token("hush"), client.authorization);
        assert!(!shown.contains("hush"), "{shown}");
        assert!(BearerToken::new(&Secret::new("line\nbreak".to_owned())).is_none());
    }
}
