//! A connection: one destination with its settings. Its document is checked in clear, as delivery will open it, and leaves this
//! module sealed (for the table) and masked (for people); nothing else of it is kept.

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracklayer_destination::{Kind, WorkspaceDefaults, open, secret_paths};
use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_secrets::{SecretError, mask_document, merge_unchanged, open_document, seal_document};

use crate::error::ControlError;
use crate::hold::Pause;

/// Largest document, so that a snapshot of all connections stays a small message.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// A connection as saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Whose.
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// off, shadow, live.
    pub mode: String,
    /// The document, secrets sealed, as text: a copy in clear exists only inside [`prepare`].
    pub sealed_document: String,
    /// Rises with each change of the document.
    pub revision: u64,
    /// The pause that holds.
    pub pause: Option<Pause>,
    /// When the newest pause that was ended was ended.
    pub resumed_at: Option<Timestamp>,
    /// How fast all its lanes together send what has waited for a release, events a second; 0: no limit. None: the default.
    pub release_events_per_second: Option<u32>,
}

/// A document that is right, in the two forms that may leave this module.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Its kind.
    pub kind: Kind,
    /// off, shadow, live.
    pub mode: String,
    /// Secrets sealed, for the table.
    pub sealed: String,
    /// Whether it says something else than what is saved.
    pub changed: bool,
}

impl Connection {
    /// The document with its secrets masked, for people.
    ///
    /// # Errors
    /// [`ControlError::Corrupt`].
    pub fn masked_document(&self) -> Result<Value, ControlError> {
        let corrupt = || ControlError::Corrupt { what: format!("document of connection {}", self.id) };
        let kind = Kind::parse(&self.kind).ok_or_else(corrupt)?;
        let mut document: Value = serde_json::from_str(&self.sealed_document).map_err(|_| corrupt())?;
        mask_document(&mut document, secret_paths(kind));
        Ok(document)
    }
}

/// Parses the text of a request.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_document(text: &str) -> Result<Value, ControlError> {
    const FIELD: &str = "document_json";
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(ControlError::invalid(FIELD, "must have at most 262,144 bytes"));
    }
    // The error's text shows a position and what was expected there, never the value.
    let document: Value = serde_json::from_str(text)
        .map_err(|error| ControlError::invalid(FIELD, format!("is not JSON: {error}")))?;
    if !document.is_object() {
        return Err(ControlError::invalid(FIELD, "must be a JSON object with `kind`, `mode` and `settings`"));
    }
    Ok(document)
}

/// Checks a document and makes it ready to be saved. Secrets given as "***" are taken over from `saved`.
///
/// # Errors
/// Everything that is wrong with the document, by path; another kind than the saved one; a saved secret that cannot be taken
/// over (never saved, another master key, another address).
pub fn prepare(
    key: &[u8; 32],
    mut document: Value,
    saved: Option<&Connection>,
    defaults: &WorkspaceDefaults,
) -> Result<Prepared, ControlError> {
    let Some(kind) = document.get("kind").and_then(Value::as_str).and_then(Kind::parse) else {
        // Opening says what kinds there are.
        open(&document, defaults)?;
        return Err(ControlError::invalid("kind", "is not known"));
    };
    if let Some(saved) = saved.filter(|saved| saved.kind != kind.as_str()) {
        let why = format!(
            "cannot change from {}: make another connection, the ledger of this one stays",
            saved.kind
        );
        return Err(ControlError::invalid("kind", why));
    }
    let paths = secret_paths(kind);
    let before = saved.map(|saved| open_saved(key, saved, paths)).transpose()?;
    let kept = match &before {
        Some(Err(unreadable)) => {
            let kept = merge_unchanged(&mut document.clone(), Some(&document), paths)?;
            if !kept.is_empty() {
                return Err(unreadable.clone().into());
            }
            kept
        }
        Some(Ok(before)) => merge_unchanged(&mut document, Some(before), paths)?,
        None => merge_unchanged(&mut document, None, paths)?,
    };
    let before = before.and_then(Result::ok);
    if let (Some(secret), Some(before)) = (kept.first(), &before)
        && let Some(address) = changed_address(before, &document)
    {
        let why = format!(
            "must be given again, since `{address}` changes: a saved secret does not move to another address"
        );
        return Err(ControlError::invalid(*secret, why));
    }
    open(&document, defaults)?;

    let mode = document.get("mode").and_then(Value::as_str).unwrap_or("off").to_owned();
    let changed = before.as_ref() != Some(&document);
    seal_document(key, &mut document, paths)?;
    Ok(Prepared { kind, mode, sealed: document.to_string(), changed })
}

/// What is saved, in clear. The inner error is a seal that does not open: no reason to refuse a document that brings every
/// secret anew, which is the way out of a lost master key.
fn open_saved(
    key: &[u8; 32],
    saved: &Connection,
    paths: &[&str],
) -> Result<Result<Value, SecretError>, ControlError> {
    let mut document: Value = serde_json::from_str(&saved.sealed_document)
        .map_err(|_| ControlError::Corrupt { what: format!("document of connection {}", saved.id) })?;
    Ok(open_document(key, &mut document, paths).map(|()| document))
}

/// The first setting that says where requests go and differs between two documents. Whoever may change a document, but was
/// never shown its secrets, must not get at them by pointing the connection at himself.
fn changed_address(before: &Value, after: &Value) -> Option<String> {
    let empty = Map::new();
    let settings =
        |document: &Value| document.get("settings").and_then(Value::as_object).unwrap_or(&empty).clone();
    let (before, after) = (settings(before), settings(after));
    differing_address("settings", &before, &after)
}

fn differing_address(path: &str, before: &Map<String, Value>, after: &Map<String, Value>) -> Option<String> {
    before.keys().chain(after.keys()).find_map(|key| {
        let path = format!("{path}.{key}");
        let (one, two) = (before.get(key), after.get(key));
        if let (Some(Value::Object(one)), Some(Value::Object(two))) = (one, two) {
            return differing_address(&path, one, two);
        }
        let folded = key.to_ascii_lowercase();
        let is_address =
            ["url", "uri", "endpoint", "host", "address"].iter().any(|word| folded.contains(word));
        (is_address && one != two).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_found_at_any_depth() {
        let before =
            json!({"settings": {"base_url": "http://a", "oauth": {"token_url": "http://b", "client": "1"}}});
        let mut after = before.clone();
        after["settings"]["oauth"]["client"] = json!("2");
        assert_eq!(changed_address(&before, &after), None);
        after["settings"]["oauth"]["token_url"] = json!("http://c");
        assert_eq!(changed_address(&before, &after).as_deref(), Some("settings.oauth.token_url"));
        after = json!({"settings": {}});
        assert_eq!(changed_address(&before, &after).as_deref(), Some("settings.base_url"));
    }

    #[test]
    fn a_document_that_is_no_json_object_is_refused_without_showing_it() {
        for bad in ["", "{", "[]", "\"EAAB-secret\"", "{\"settings\": EAAB-secret}"] {
            let error = parse_document(bad).unwrap_err().to_string();
            assert!(error.starts_with("`document_json`"), "{error}");
            assert!(!error.contains("EAAB"), "{error}");
        }
        assert!(parse_document(&format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_DOCUMENT_BYTES))).is_err());
    }
}
