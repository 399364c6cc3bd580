//! The secret settings of a document, all at once.

use serde_json::Value;

use crate::cipher::{self, CipherFault};
use crate::path::{find, find_mut};

/// What stands in an answer for a secret that is there; in a request it means "as it is".
pub const MASK: &str = "***";

/// Why the secrets of a document cannot be sealed, opened or kept. Never carries a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// A secret setting is not text.
    #[error("`{path}` is a secret and must be text")]
    NotText {
        /// The setting.
        path: String,
    },
    /// A stored secret is in clear, or cut off.
    #[error("`{path}` is not a sealed secret; save the connection again to seal it")]
    NotSealed {
        /// The setting.
        path: String,
    },
    /// The seal does not open: another master key, or a changed value.
    #[error(
        "`{path}` cannot be decrypted: it was sealed under another master key, or changed since; start with the master key \
         that the installation was made with, or save the secret again"
    )]
    WrongKey {
        /// The setting.
        path: String,
    },
    /// "***" where nothing was saved before.
    #[error("`{path}` is \"***\", which keeps the saved secret, but none is saved; give the secret itself")]
    NothingToKeep {
        /// The setting.
        path: String,
    },
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    NoRandomness,
}

impl SecretError {
    /// The setting to blame, if one is.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::NotText { path }
            | Self::NotSealed { path }
            | Self::WrongKey { path }
            | Self::NothingToKeep { path } => Some(path),
            Self::NoRandomness => None,
        }
    }
}

/// Encrypts the secrets at `paths` in place. Absent and null ones stay as they are. The document must be in clear: whatever
/// text stands there is taken for the secret itself.
///
/// # Errors
/// [`SecretError::NotText`], [`SecretError::NoRandomness`]; the document may then be half sealed and must be dropped.
pub fn seal_document(key: &[u8; 32], document: &mut Value, paths: &[&str]) -> Result<(), SecretError> {
    for_each_text(document, paths, |path, text| {
        cipher::seal(key, path, text).map_err(|fault| match fault {
            CipherFault::NoRandomness => SecretError::NoRandomness,
            CipherFault::Malformed | CipherFault::Refused => SecretError::NotText { path: path.to_owned() },
        })
    })
}

/// Decrypts the secrets at `paths` in place.
///
/// # Errors
/// [`SecretError::NotSealed`], [`SecretError::WrongKey`], [`SecretError::NotText`]; the document may then be half open and
/// must be dropped.
pub fn open_document(key: &[u8; 32], document: &mut Value, paths: &[&str]) -> Result<(), SecretError> {
    for_each_text(document, paths, |path, text| {
        let path_of = || path.to_owned();
        cipher::open(key, path, text).map_err(|fault| match fault {
            CipherFault::NoRandomness => SecretError::NoRandomness,
            CipherFault::Malformed => SecretError::NotSealed { path: path_of() },
            CipherFault::Refused => SecretError::WrongKey { path: path_of() },
        })
    })
}

/// Replaces the secrets at `paths` by [`MASK`], whatever they are; absent and null ones show that nothing is there.
pub fn mask_document(document: &mut Value, paths: &[&str]) {
    for path in paths {
        match find_mut(document, path) {
            None | Some(Value::Null) => {}
            Some(value) => *value = Value::String(MASK.to_owned()),
        }
    }
}

/// Puts the secret of `old` wherever `new` says [`MASK`], and returns the paths of those kept. `old` is the document before
/// the change, in the state (open or sealed) that `new` shall be in.
///
/// # Errors
/// [`SecretError::NothingToKeep`].
pub fn merge_unchanged<'p>(
    new: &mut Value,
    old: Option<&Value>,
    paths: &[&'p str],
) -> Result<Vec<&'p str>, SecretError> {
    let mut kept = Vec::new();
    for path in paths {
        let Some(value) = find_mut(new, path).filter(|value| value.as_str() == Some(MASK)) else { continue };
        let saved = old
            .and_then(|old| find(old, path))
            .filter(|saved| !saved.is_null())
            .ok_or_else(|| SecretError::NothingToKeep { path: (*path).to_owned() })?;
        *value = saved.clone();
        kept.push(*path);
    }
    Ok(kept)
}

fn for_each_text(
    document: &mut Value,
    paths: &[&str],
    mut change: impl FnMut(&str, &str) -> Result<String, SecretError>,
) -> Result<(), SecretError> {
    for path in paths {
        match find_mut(document, path) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => *text = change(path, text)?,
            Some(_) => return Err(SecretError::NotText { path: (*path).to_owned() }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::PREFIX;

    const KEY: [u8; 32] = [7; 32];
    const PATHS: &[&str] = &["settings.access_token", "settings.oauth.client_secret"];

    fn document() -> Value {
        json!({
            "kind": "meta_capi",
            "settings": {"dataset_id": "12", "access_token": "EAAB-secret", "oauth": {"client_secret": "s-2"}},
        })
    }

    #[test]
    fn a_sealed_document_shows_no_secret_and_opens_to_what_it_was() {
        let mut sealed = document();
        seal_document(&KEY, &mut sealed, PATHS).unwrap();
        let text = sealed.to_string();
        assert!(!text.contains("EAAB-secret") && !text.contains("s-2"), "{text}");
        assert!(sealed["settings"]["access_token"].as_str().unwrap().starts_with(PREFIX));
        assert_eq!(sealed["settings"]["dataset_id"], "12");
        open_document(&KEY, &mut sealed, PATHS).unwrap();
        assert_eq!(sealed, document());
    }

    #[test]
    fn the_same_secret_never_looks_the_same_twice() {
        let (mut one, mut two) = (document(), document());
        seal_document(&KEY, &mut one, PATHS).unwrap();
        seal_document(&KEY, &mut two, PATHS).unwrap();
        assert_ne!(one, two);
    }

    #[test]
    fn another_master_key_is_told_apart_from_a_broken_value() {
        let mut sealed = document();
        seal_document(&KEY, &mut sealed, PATHS).unwrap();
        let error = open_document(&[8; 32], &mut sealed.clone(), PATHS).unwrap_err();
        assert_eq!(error, SecretError::WrongKey { path: "settings.access_token".to_owned() });
        assert!(error.to_string().contains("another master key"), "{error}");

        let error = open_document(&KEY, &mut document(), PATHS).unwrap_err();
        assert_eq!(error, SecretError::NotSealed { path: "settings.access_token".to_owned() });
        sealed["settings"]["access_token"] = json!("enc:v1:AAAA");
        let error = open_document(&KEY, &mut sealed, PATHS).unwrap_err();
        assert_eq!(error, SecretError::NotSealed { path: "settings.access_token".to_owned() });
    }

    #[test]
    fn a_sealed_value_does_not_open_in_another_setting() {
        let mut sealed = document();
        seal_document(&KEY, &mut sealed, PATHS).unwrap();
        sealed["settings"]["oauth"]["client_secret"] = sealed["settings"]["access_token"].clone();
        let error = open_document(&KEY, &mut sealed, PATHS).unwrap_err();
        assert_eq!(error.path(), Some("settings.oauth.client_secret"));
    }

    #[test]
    fn a_mask_covers_whatever_stands_there() {
        let mut masked =
            json!({"settings": {"access_token": {"nested": "secret"}, "oauth": {"client_secret": null}}});
        mask_document(&mut masked, PATHS);
        assert_eq!(masked, json!({"settings": {"access_token": "***", "oauth": {"client_secret": null}}}));
    }

    #[test]
    fn a_masked_secret_keeps_the_saved_one_and_a_new_one_replaces_it() {
        let mut new = document();
        new["settings"]["access_token"] = json!(MASK);
        new["settings"]["oauth"]["client_secret"] = json!("s-3");
        let kept = merge_unchanged(&mut new, Some(&document()), PATHS).unwrap();
        assert_eq!(kept, ["settings.access_token"]);
        assert_eq!(new["settings"]["access_token"], "EAAB-secret");
        assert_eq!(new["settings"]["oauth"]["client_secret"], "s-3");
    }

    #[test]
    fn a_masked_secret_that_was_never_saved_is_refused() {
        let mut new = document();
        new["settings"]["access_token"] = json!(MASK);
        let expected = SecretError::NothingToKeep { path: "settings.access_token".to_owned() };
        assert_eq!(merge_unchanged(&mut new.clone(), None, PATHS), Err(expected.clone()));
        assert_eq!(merge_unchanged(&mut new, Some(&json!({"settings": {}})), PATHS), Err(expected));
    }

    #[test]
    fn a_secret_that_is_a_number_is_refused_by_path() {
        let error = seal_document(&KEY, &mut json!({"settings": {"access_token": 12}}), PATHS).unwrap_err();
        assert_eq!(error, SecretError::NotText { path: "settings.access_token".to_owned() });
    }

    proptest! {
        #[test]
        fn any_text_opens_to_what_was_sealed(secret in ".*", key in any::<[u8; 32]>()) {
            let before = json!({"settings": {"access_token": secret}});
            let mut document = before.clone();
            seal_document(&key, &mut document, PATHS).unwrap();
            open_document(&key, &mut document, PATHS).unwrap();
            prop_assert_eq!(document, before);
        }

        #[test]
        fn a_flipped_bit_never_opens(bit in 0..(8 * (12 + 11 + 16_usize))) {
            use base64::Engine as _;
            let engine = base64::engine::general_purpose::STANDARD;
            let mut document = json!({"settings": {"access_token": "EAAB-secret"}});
            seal_document(&KEY, &mut document, PATHS).unwrap();
            let sealed = document["settings"]["access_token"].as_str().unwrap().to_owned();
            let mut bytes = engine.decode(sealed.strip_prefix(PREFIX).unwrap()).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            document["settings"]["access_token"] = json!(format!("{PREFIX}{}", engine.encode(bytes)));
            prop_assert!(open_document(&KEY, &mut document, PATHS).is_err());
        }
    }
}
