//! Which webhooks a source takes: a document whose `kind` says who sends them. Checked in clear, as ingest will open it, and kept sealed.

use serde_json::Value;
use tracklayer_secrets::{MASK, mask_document, merge_unchanged, open_document, seal_document};
use tracklayer_shopify::{SECRET_PATHS, Settings};

use crate::error::ControlError;
use crate::source::Channel;

/// Largest document, so that a snapshot of all sources stays a small message.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024;
const FIELD: &str = "webhook_json";
const SECRET: &str = "webhook_secret";
const PREVIOUS_SECRET: &str = "previous_webhook_secret";

/// A document as it was sent: secrets in clear, or [`MASK`] for those that stay. Its `Debug` shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookDocument(Value);

impl std::fmt::Debug for WebhookDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookDocument(***)")
    }
}

impl WebhookDocument {
    /// Parses the text of a request; none if it is empty.
    ///
    /// # Errors
    /// [`ControlError::Invalid`].
    pub fn parse(text: &str) -> Result<Option<Self>, ControlError> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(ControlError::invalid(FIELD, "must have at most 16,384 bytes"));
        }
        // The error's text shows a position and what was expected there, never the value.
        let document: Value = serde_json::from_str(text)
            .map_err(|error| ControlError::invalid(FIELD, format!("is not JSON: {error}")))?;
        if !document.is_object() {
            return Err(ControlError::invalid(
                FIELD,
                "must be a JSON object with `kind` and `webhook_secret`",
            ));
        }
        Ok(Some(Self(document)))
    }

    /// Checks it and seals its secrets. Those given as "***" are taken over from `saved`; with `keep_previous` the saved secret
    /// becomes the previous one.
    ///
    /// # Errors
    /// What is wrong, by member; a saved secret that cannot be taken over (never saved, another master key).
    pub fn sealed(
        self,
        key: &[u8; 32],
        saved: Option<&str>,
        keep_previous: bool,
    ) -> Result<String, ControlError> {
        let mut document = self.0;
        let is_kept = |document: &Value, path: &str| document.get(path).and_then(Value::as_str) == Some(MASK);
        let needs_saved = keep_previous || SECRET_PATHS.iter().any(|path| is_kept(&document, path));
        // A seal that does not open is no reason to refuse a document that brings every secret anew.
        let saved = match saved {
            Some(saved) if needs_saved => Some(opened(key, saved)?),
            _ => None,
        };
        if keep_previous {
            let current =
                saved.as_ref().and_then(|saved| saved.get(SECRET)).filter(|secret| secret.is_string());
            let Some(current) = current else {
                return Err(ControlError::invalid(SECRET, "cannot stay valid: none is saved"));
            };
            if is_kept(&document, SECRET) || document.get(SECRET) == Some(current) {
                return Err(ControlError::invalid(
                    SECRET,
                    "must be a new one, beside which the saved one stays valid",
                ));
            }
            document[PREVIOUS_SECRET] = current.clone();
        }
        merge_unchanged(&mut document, saved.as_ref(), SECRET_PATHS)?;
        Settings::parse(&document).map_err(|error| ControlError::invalid(error.path, error.why))?;
        seal_document(key, &mut document, SECRET_PATHS)?;
        Ok(document.to_string())
    }
}

/// Whether a source whose events are made there can take webhooks: the address and user agent of a webhook's request are nobody's.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn check_channel(channel: Channel) -> Result<(), ControlError> {
    match channel {
        Channel::Server => Ok(()),
        Channel::Browser | Channel::Mobile => {
            Err(ControlError::invalid("channel", "must be `server` for a source that takes webhooks"))
        }
    }
}

/// A saved document with its secrets masked, for people.
///
/// # Errors
/// [`ControlError::Corrupt`].
pub fn masked(sealed: &str) -> Result<String, ControlError> {
    let mut document = read(sealed)?;
    mask_document(&mut document, SECRET_PATHS);
    Ok(document.to_string())
}

fn opened(key: &[u8; 32], sealed: &str) -> Result<Value, ControlError> {
    let mut document = read(sealed)?;
    open_document(key, &mut document, SECRET_PATHS)?;
    Ok(document)
}

fn read(sealed: &str) -> Result<Value, ControlError> {
    serde_json::from_str(sealed).map_err(|_| ControlError::Corrupt { what: "webhook of a source".to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn document(secret: &str) -> WebhookDocument {
        let text = json!({"kind": "shopify", "webhook_secret": secret}).to_string();
        WebhookDocument::parse(&text).unwrap().unwrap()
    }

    fn secrets(sealed: &str) -> (Value, Value) {
        let open = opened(&KEY, sealed).unwrap();
        (open[SECRET].clone(), open[PREVIOUS_SECRET].clone())
    }

    #[test]
    fn a_secret_is_sealed_masked_and_replaced_with_the_old_one_beside_it() {
        let first = document("first-secret").sealed(&KEY, None, false).unwrap();
        assert!(!first.contains("first-secret"));
        assert!(masked(&first).unwrap().contains(r#""webhook_secret":"***""#));
        let second = document("second-secret").sealed(&KEY, Some(&first), true).unwrap();
        assert_eq!(secrets(&second), (json!("second-secret"), json!("first-secret")));
        // What is shown can be sent back with another setting changed.
        let mut shown: Value = serde_json::from_str(&masked(&second).unwrap()).unwrap();
        shown["completed_on"] = json!("paid");
        let shown = WebhookDocument::parse(&shown.to_string()).unwrap().unwrap();
        let third = shown.sealed(&KEY, Some(&second), false).unwrap();
        assert_eq!(secrets(&third), (json!("second-secret"), json!("first-secret")));
        // Left out, the old one ends.
        let last = document(MASK).sealed(&KEY, Some(&third), false).unwrap();
        assert_eq!(secrets(&last), (json!("second-secret"), json!(null)));
    }

    #[test]
    fn a_secret_that_cannot_be_kept_is_said_and_a_new_one_needs_no_old_one() {
        let first = document("first-secret").sealed(&KEY, None, false).unwrap();
        let error = document(MASK).sealed(&[8; 32], Some(&first), false).unwrap_err();
        assert!(matches!(error, ControlError::Secret(_)), "{error}");
        assert!(document("second-secret").sealed(&[8; 32], Some(&first), false).is_ok());
        for (document, saved) in [
            (document("second-secret"), None),
            (document(MASK), Some(&first)),
            (document("first-secret"), Some(&first)),
        ] {
            let error = document.sealed(&KEY, saved.map(String::as_str), true).unwrap_err().to_string();
            assert!(error.starts_with("`webhook_secret`") && !error.contains("first-secret"), "{error}");
        }
    }
}
