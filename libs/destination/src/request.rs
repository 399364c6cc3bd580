//! What goes on the wire. Secrets are wrapped, so that nothing printed, previewed or dead-lettered carries one.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tracklayer_ids::Secret;

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// A shorter secret is not looked for in answers: it would be found in words that mean something else.
const FEWEST_OF_A_SECRET: usize = 8;

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
    /// The secrets in such a body.
    pub body_secrets: Vec<Secret<String>>,
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
            body_secrets: Vec::new(),
        }
    }

    /// A form `POST` that is not to be shown, with the secrets among its fields.
    #[must_use]
    pub fn post_secret_form(url: String, fields: &[(&str, &str)], secrets: &[Secret<String>]) -> Self {
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
            body_secrets: secrets.to_vec(),
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
            body_secrets: Vec::new(),
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

    /// An answer's bytes without the secrets of this request, which platforms quote ("Malformed access token …"): as they are, and
    /// as they stand in a form, an address or JSON.
    #[must_use]
    pub fn without_secrets(&self, mut answer: Vec<u8>) -> Vec<u8> {
        for secret in self.secrets() {
            let in_form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let quoted = Value::from(secret).to_string();
            let in_json = quoted.get(1..quoted.len() - 1).unwrap_or_default();
            // Meta's JSON escapes the slash as well.
            let in_metas = in_json.replace('/', "\\/");
            let forms: [&str; 4] = [secret, &in_form, in_json, &in_metas];
            for (place, form) in forms.iter().enumerate() {
                if !forms[..place].contains(form) {
                    answer = masked_in(answer, form.as_bytes());
                }
            }
        }
        answer
    }

    /// The secrets that an answer could quote.
    fn secrets(&self) -> impl Iterator<Item = &str> {
        let of_headers = self.headers.iter().filter_map(|(_, value)| match value {
            HeaderText::Plain(_) => None,
            HeaderText::Secret { value, .. } => Some(value),
        });
        let of_query = self.secret_query.iter().map(|(_, value)| value);
        of_headers
            .chain(of_query)
            .chain(&self.body_secrets)
            // "Bearer …" may stand in a setting: what is quoted may be the credential alone.
            .flat_map(|secret| [Some(secret.expose().as_str()), secret.expose().split_once(' ').map(|s| s.1)])
            .flatten()
            .filter(|secret| secret.len() >= FEWEST_OF_A_SECRET)
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

/// The bytes with the mask wherever `what` stands.
fn masked_in(text: Vec<u8>, what: &[u8]) -> Vec<u8> {
    let mut rest = &text[..];
    let mut masked = Vec::new();
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        masked.extend_from_slice(&rest[..at]);
        masked.extend_from_slice(MASK.as_bytes());
        rest = &rest[at + what.len()..];
    }
    if masked.is_empty() {
        return text;
    }
    masked.extend_from_slice(rest);
    masked
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

    #[test]
    fn what_an_answer_quotes_of_the_requests_secrets_is_masked() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let mut request =
            HttpRequest::post_secret_form("https://example.com/".to_owned(), &[], &[secret("1//0g/refresh")])
                .secret_header("authorization", "Bearer ", &secret("EAABtoken"))
                .secret_header("x-own", "", &secret("Basic dXNlcjpwYXNz"))
                .secret_header("x-short", "", &secret("data"));
        request.secret_query.push(("api_secret", secret("s&cret+\"key")));
        for (quote, told) in [
            ("token EAABtoken, EAABtoken", "token ***, ***"),
            ("no such credential: dXNlcjpwYXNz", "no such credential: ***"),
            ("/collect?api_secret=s%26cret%2B%22key", "/collect?api_secret=***"),
            (r#"{"secret":"s&cret+\"key"}"#, r#"{"secret":"***"}"#),
            (r"1//0g/refresh 1%2F%2F0g%2Frefresh 1\/\/0g\/refresh", "*** *** ***"),
            (r#"{"data":[]}"#, r#"{"data":[]}"#),
        ] {
            let masked = request.without_secrets(quote.as_bytes().to_vec());
            assert_eq!(String::from_utf8(masked).unwrap(), told);
        }
        let other = b"EAAB \xff token of somebody else".to_vec();
        assert_eq!(request.without_secrets(other.clone()), other, "byte for byte");
    }
}
