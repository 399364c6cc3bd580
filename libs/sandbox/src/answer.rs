//! A platform's answer before it becomes a response.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;

/// What is answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Bytes,
    /// Whether the request was refused, whatever the status says.
    pub(crate) refused: bool,
}

const JSON: &str = "application/json; charset=UTF-8";

impl Answer {
    /// JSON; refused from 400 on.
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        // Our own answers have text keys and finite numbers; nothing in them can fail to be written.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { status, content_type: JSON, headers: Vec::new(), body: body.into(), refused: status >= 400 }
    }

    /// Plain text.
    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: body.into().into(),
            refused: status >= 400,
        }
    }

    /// A page.
    pub(crate) fn html(status: u16, title: &str) -> Self {
        let body = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>");
        Self { content_type: "text/html; charset=utf-8", ..Self::text(status, body) }
    }

    /// Nothing but the status.
    pub(crate) fn empty(status: u16) -> Self {
        Self::text(status, "")
    }

    /// Marks the request as refused although the status is good.
    pub(crate) const fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }

    /// The response, with another body if given.
    pub(crate) fn response(self, body: Option<Body>) -> Response {
        let mut response = Response::new(body.unwrap_or_else(|| Body::from(self.body.clone())));
        *response.status_mut() =
            http::StatusCode::from_u16(self.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        if !self.body.is_empty() {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}
