//! What goes on the wire. Secrets are wrapped, so that nothing printed, previewed or dead-lettered carries one.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tracklayer_ids::Secret;

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// A header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// May be shown.
    Plain(String),
    /// A credential: `prefix` may be shown ("Bearer "), the rest may not.
    Secret {
        /// Shown.
        prefix: &'static str,
        /// Never shown.
        value: Secret<String>,
    },
}

impl HeaderText {
    /// As sent.
    #[must_use]
    pub fn expose(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Secret { prefix, value } => format!("{prefix}{}", value.expose()),
        }
    }

    /// As shown.
    #[must_use]
    pub fn masked(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Secret { prefix, .. } => format!("{prefix}{MASK}"),
        }
    }
}

/// One HTTP request.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// `POST`.
    pub method: &'static str,
    /// Without secret query parameters.
    pub url: String,
    /// Query parameters that are secrets (GA4's `api_secret`): appended to `url` when sending.
    pub secret_query: Vec<(&'static str, Secret<String>)>,
    /// Names in lower case.
    pub headers: Vec<(String, HeaderText)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body itself is a secret (a token request): never shown.
    pub body_is_secret: bool,
}

impl HttpRequest {
    /// A JSON `POST`.
    #[must_use]
    pub fn post_json(url: String, body: &impl Serialize) -> Self {
        Self {
            method: "POST",
            url,
            secret_query: Vec::new(),
            headers: vec![("content-type".to_owned(), HeaderText::Plain("application/json".to_owned()))],
            // Bodies are made of texts, numbers and written items: nothing in them can fail.
            body: serde_json::to_vec(body).unwrap_or_default(),
            body_is_secret: false,
        }
    }

    /// A form `POST` whose fields are secrets.
    #[must_use]
    pub fn post_secret_form(url: String, fields: &[(&str, &str)]) -> Self {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            form.append_pair(name, value);
        }
        let content_type = HeaderText::Plain("application/x-www-form-urlencoded".to_owned());
        Self {
            method: "POST",
            url,
            secret_query: Vec::new(),
            headers: vec![("content-type".to_owned(), content_type)],
            body: form.finish().into_bytes(),
            body_is_secret: true,
        }
    }

    /// A `GET`.
    #[must_use]
    pub const fn get(url: String) -> Self {
        Self {
            method: "GET",
            url,
            secret_query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            body_is_secret: false,
        }
    }

    /// Adds a header that may be shown.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), HeaderText::Plain(value.into())));
        self
    }

    /// Adds a credential.
    #[must_use]
    pub fn secret_header(mut self, name: &str, prefix: &'static str, value: &Secret<String>) -> Self {
        self.headers.push((name.to_owned(), HeaderText::Secret { prefix, value: value.clone() }));
        self
    }

    /// The address as sent, secrets included. Never log it.
    #[must_use]
    pub fn full_url(&self) -> String {
        let mut url = self.url.clone();
        for (name, value) in &self.secret_query {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(name);
            url.push('=');
            url.extend(url::form_urlencoded::byte_serialize(value.expose().as_bytes()));
        }
        url
    }

    /// The address as a person may see it.
    fn masked_url(&self) -> String {
        let mut url = self.url.clone();
        for (name, _) in &self.secret_query {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(name);
            url.push('=');
            url.push_str(MASK);
        }
        url
    }

    /// The headers as a person may see them.
    fn masked_headers(&self) -> Map<String, Value> {
        self.headers.iter().map(|(name, value)| (name.clone(), Value::String(value.masked()))).collect()
    }

    /// The request as [`Self::masked`] has it, to be written out: a JSON body as it is, byte for byte.
    #[must_use]
    pub fn shown(&self) -> ShownRequest<'_> {
        let lossy = || Value::String(String::from_utf8_lossy(&self.body).into_owned());
        let body = if self.body_is_secret {
            ShownBody::Other(Value::String(MASK.to_owned()))
        } else {
            let text = std::str::from_utf8(&self.body).ok();
            // A line break, as between two values only, would end the line that it is written to.
            let text = text.filter(|text| !text.contains(['\n', '\r']));
            let raw = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
            raw.filter(|raw| raw.get().len() == self.body.len())
                .map_or_else(|| ShownBody::Other(lossy()), ShownBody::Json)
        };
        ShownRequest { method: self.method, url: self.masked_url(), headers: self.masked_headers(), body }
    }

    /// The request as a person may see it: `{"method","url","headers","body"}`, secrets as `***`, the body as JSON.
    #[must_use]
    pub fn masked(&self) -> Value {
        let (url, headers) = (self.masked_url(), self.masked_headers());
        let body = if self.body_is_secret {
            Value::String(MASK.to_owned())
        } else {
            serde_json::from_slice::<Value>(&self.body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.body).into_owned()))
        };
        json!({ "method": self.method, "url": url, "headers": headers, "body": body })
    }
}

/// A request with its secrets masked. What it serialises to has the bytes of a JSON body in it.
#[derive(Serialize)]
pub struct ShownRequest<'r> {
    method: &'static str,
    url: String,
    headers: Map<String, Value>,
    body: ShownBody<'r>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ShownBody<'r> {
    Json(&'r RawValue),
    Other(Value),
}

/// Shows no header value and no body: a request carries personal data, which no log line may have.
impl std::fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_request_shows_no_secret_and_the_sent_one_has_them() {
        let token = Secret::new("t0ken".to_owned());
        let mut request = HttpRequest::post_json("https://example.com/e?a=1".to_owned(), &json!({"b": 1}))
            .secret_header("authorization", "Bearer ", &token);
        request.secret_query.push(("api_secret", Secret::new("s&cret".to_owned())));

        assert_eq!(request.full_url(), "https://example.com/e?a=1&api_secret=s%26cret");
        assert_eq!(request.headers[1].1.expose(), "Bearer t0ken");
        let shown = request.masked();
        assert_eq!(shown["url"], "https://example.com/e?a=1&api_secret=***");
        assert_eq!(shown["headers"]["authorization"], "Bearer ***");
        assert_eq!(shown["body"]["b"], 1);
        let everything = format!("{shown} {request:?}");
        assert!(!everything.contains("t0ken") && !everything.contains("s&cret"), "{everything}");
    }
}
