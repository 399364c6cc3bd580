//! The newest requests as they came, for a person or a test that wants to see the wire. Tokens, secrets and
//! signatures are masked before anything is kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::platform::Platform;

/// A body is kept up to here.
const KEPT_BODY: usize = 16 * 1024;
const MASK: &str = "***";

/// A request as it came, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRequest {
    /// Place in the order of requests, from 1.
    pub order: u64,
    /// Whose it was.
    pub platform: Platform,
    /// When it came, in milliseconds since 1970.
    pub at_ms: i64,
    /// The HTTP method.
    pub method: String,
    /// Path and query; values of secret parameters masked.
    pub path: String,
    /// The headers; secret ones masked.
    pub headers: BTreeMap<String, String>,
    /// The size of the body in bytes.
    pub body_bytes: usize,
    /// The start of the body, up to 16 KiB; secret members masked where they are at the top.
    pub body: String,
    /// The HTTP status of the answer; none where there was no answer.
    pub status: Option<u16>,
    /// The start of the answer's body.
    pub answer: String,
    /// The fault that was put on it.
    pub fault: Option<String>,
}

/// What a request is remembered by.
pub(crate) struct NewRequest<'a> {
    pub(crate) platform: Platform,
    pub(crate) at_ms: i64,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    pub(crate) status: Option<u16>,
    pub(crate) answer: &'a [u8],
    pub(crate) fault: Option<String>,
}

/// The newest requests.
pub(crate) struct Requests {
    seen: Mutex<(u64, VecDeque<SeenRequest>)>,
    kept: usize,
}

impl Requests {
    /// Keeps the newest `kept`.
    pub(crate) const fn new(kept: usize) -> Self {
        Self { seen: Mutex::new((0, VecDeque::new())), kept }
    }

    /// Remembers one.
    pub(crate) fn push(&self, new: &NewRequest<'_>) {
        let mut request = SeenRequest {
            order: 0,
            platform: new.platform,
            at_ms: new.at_ms,
            method: new.method.to_owned(),
            path: masked_query(new.path),
            headers: new.headers.iter().map(|(name, value)| masked_header(name.as_str(), value)).collect(),
            body_bytes: new.body.len(),
            body: masked_body(&String::from_utf8_lossy(&new.body[..new.body.len().min(KEPT_BODY)])),
            status: new.status,
            answer: masked_body(&String::from_utf8_lossy(&new.answer[..new.answer.len().min(KEPT_BODY)])),
            fault: new.fault.clone(),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0 += 1;
        request.order = seen.0;
        if seen.1.len() >= self.kept.max(1) {
            seen.1.pop_front();
        }
        seen.1.push_back(request);
    }

    /// The newest `last`, oldest of them first.
    pub(crate) fn last(&self, last: usize) -> Vec<SeenRequest> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.1.iter().skip(seen.1.len().saturating_sub(last)).cloned().collect()
    }
}

fn masked_header(name: &str, value: &http::HeaderValue) -> (String, String) {
    let secret =
        matches!(name, "authorization" | "access-token" | "cookie" | "webhook-signature" | "developer-token");
    let shown = if secret { MASK.to_owned() } else { String::from_utf8_lossy(value.as_bytes()).into_owned() };
    (name.to_owned(), shown)
}

const SECRET_PARAMETERS: [&str; 6] =
    ["access_token", "api_secret", "client_secret", "refresh_token", "appsecret_proof", "token"];

fn masked_query(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let masked: Vec<String> = query.split('&').map(masked_pair).collect();
    format!("{path}?{}", masked.join("&"))
}

fn masked_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if SECRET_PARAMETERS.contains(&name) => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    }
}

/// Each of these parameters has one of these words in its name.
const SECRET_WORDS: [&str; 2] = ["token", "secret"];

/// Masks secret members and parameters by their text, so that a body that is no JSON is masked, too.
fn masked_body(body: &str) -> String {
    let mut masked = body.to_owned();
    if !SECRET_WORDS.iter().any(|word| body.contains(word)) {
        return masked;
    }
    for name in SECRET_PARAMETERS {
        let member = format!("\"{name}\":");
        let mut from = 0;
        while let Some(found) = masked[from..].find(&member) {
            let value = from + found + member.len();
            let Some(open) =
                masked[value..].find('"').filter(|gap| masked[value..value + gap].trim().is_empty())
            else {
                from = value;
                continue;
            };
            let start = value + open + 1;
            let end = masked[start..].find('"').map_or(masked.len(), |length| start + length);
            masked.replace_range(start..end, MASK);
            from = start + MASK.len();
        }
    }
    if masked.starts_with('{') || masked.starts_with('[') {
        return masked;
    }
    masked.split('&').map(masked_pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        assert_eq!(
            masked_query("/v26.0/1/events?access_token=abc&x=1"),
            "/v26.0/1/events?access_token=***&x=1"
        );
        assert_eq!(
            masked_body(r#"{"access_token": "abc","data":[]}"#),
            r#"{"access_token": "***","data":[]}"#
        );
        assert_eq!(
            masked_body("client_id=a&client_secret=b&refresh_token=c"),
            "client_id=a&client_secret=***&refresh_token=***"
        );
        assert_eq!(masked_body(r#"{"token":12}"#), r#"{"token":12}"#);
    }

    #[test]
    fn every_secret_parameter_is_told_by_a_word_in_it() {
        for name in SECRET_PARAMETERS {
            assert!(SECRET_WORDS.iter().any(|word| name.contains(word)), "{name}");
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let requests = Requests::new(2);
        for path in ["/a", "/b", "/c"] {
            requests.push(&NewRequest {
                platform: Platform::Meta,
                at_ms: 0,
                method: "POST",
                path,
                headers: &HeaderMap::new(),
                body: b"",
                status: Some(200),
                answer: b"",
                fault: None,
            });
        }
        let paths: Vec<_> = requests.last(10).into_iter().map(|seen| (seen.order, seen.path)).collect();
        assert_eq!(paths, [(2, "/b".to_owned()), (3, "/c".to_owned())]);
    }
}
