//! Keys derived from the installation's master key.
//!
//! The one trick: a subject key is a pure function of (master key, workspace, type, value), so that ingest, identity and
//! consent name the same person without asking each other, and equal values of two workspaces never meet.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::WorkspaceId;

/// The installation's master key, 32 bytes. Everything at rest hangs on it: back it up, and keep it apart from the database.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

/// The key of one workspace, derived from the master key.
#[derive(Clone)]
pub struct WorkspaceKey([u8; 32]);

/// Keyed hash of one identifier of one workspace: what consent, narrowing entries and profiles are filed under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKey(pub [u8; 16]);

/// A master key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file is not there or not readable.
    #[error("could not read the master key from `{path}`; make one with `tracklayer master-key > FILE`")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The content is not 64 hex digits.
    #[error("the master key must be 64 hexadecimal digits (32 bytes); make one with `tracklayer master-key`")]
    Malformed,
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // 32 bytes are a valid key length for HMAC: every length is.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl MasterKey {
    /// From bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From 64 hexadecimal digits, white space around them ignored.
    ///
    /// # Errors
    /// [`MasterKeyError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let bytes = hex::decode(text.trim()).map_err(|_| MasterKeyError::Malformed)?;
        Ok(Self(bytes.try_into().map_err(|_| MasterKeyError::Malformed)?))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be read, or is not 64 hexadecimal digits.
    pub fn read(path: &std::path::Path) -> Result<Self, MasterKeyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| MasterKeyError::Unreadable { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// The key of one workspace.
    #[must_use]
    pub fn workspace(&self, workspace: WorkspaceId) -> WorkspaceKey {
        WorkspaceKey(mac(&self.0, &[b"workspace\x1f", &workspace.0.to_be_bytes()]))
    }

    /// The token that the installation's own services show each other, 64 hexadecimal digits.
    #[must_use]
    pub fn service_token(&self) -> String {
        hex::encode(mac(&self.0, &[b"service-token"]))
    }

    /// Tells this installation from others in names that others see, 8 hexadecimal digits. No secret.
    #[must_use]
    pub fn installation(&self) -> String {
        hex::encode(&mac(&self.0, &[b"installation"])[..4])
    }

    /// The key under which connection secrets are encrypted.
    #[must_use]
    pub fn secrets(&self) -> [u8; 32] {
        mac(&self.0, &[b"secrets"])
    }
}

impl WorkspaceKey {
    /// Keyed hash of a normalised identifier, 32 bytes: what identity stores instead of the value.
    #[must_use]
    pub fn value_mac(&self, identifier_type: &str, normalised: &str) -> [u8; 32] {
        mac(&self.0, &[b"value\x1f", identifier_type.as_bytes(), b"\x1f", normalised.as_bytes()])
    }

    /// The seed key of an identifier, from its mac.
    #[must_use]
    pub fn seed(&self, identifier_type: &str, value_mac: &[u8; 32]) -> SubjectKey {
        let full = mac(&self.0, &[b"seed\x1f", identifier_type.as_bytes(), b"\x1f", value_mac]);
        let mut key = [0u8; 16];
        key.copy_from_slice(&full[..16]);
        // UUIDv8, so that keys read as UUIDs everywhere.
        key[6] = (key[6] & 0x0f) | 0x80;
        key[8] = (key[8] & 0x3f) | 0x80;
        SubjectKey(key)
    }

    /// The subject key of a normalised identifier.
    #[must_use]
    pub fn subject(&self, identifier_type: &str, normalised: &str) -> SubjectKey {
        self.seed(identifier_type, &self.value_mac(identifier_type, normalised))
    }
}

impl SubjectKey {
    /// From wire bytes; `None` if they are not 16.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As a UUID.
    #[must_use]
    pub fn uuid(self) -> uuid::Uuid {
        uuid::Uuid::from_bytes(self.0)
    }
}

impl std::fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.uuid())
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

impl std::fmt::Debug for WorkspaceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkspaceKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_of_two_workspaces_have_different_keys() {
        let master = MasterKey::new([7; 32]);
        let one = master.workspace(WorkspaceId(1)).subject("user_id", "u-1");
        let two = master.workspace(WorkspaceId(2)).subject("user_id", "u-1");
        assert_ne!(one, two);
        assert_eq!(one, master.workspace(WorkspaceId(1)).subject("user_id", "u-1"));
        assert_ne!(one, master.workspace(WorkspaceId(1)).subject("anonymous_id", "u-1"));
    }

    #[test]
    fn a_short_master_key_is_refused() {
        assert!(MasterKey::parse(&"ab".repeat(32)).is_ok());
        assert!(matches!(MasterKey::parse("abcd"), Err(MasterKeyError::Malformed)));
    }
}
