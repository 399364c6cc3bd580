//! For whom a platform counts requests, where that is more than one connection.

use std::fmt;

use sha2::{Digest, Sha256};

/// For whom a platform counts requests. Connections with the same key, of whatever workspace, share what is allowed. Only a hash, which
/// may stand in Redis and in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuotaKey([u8; 16]);

impl QuotaKey {
    /// The key of what these parts name together. Whoever is let in under a name must have shown that it is theirs before anything is
    /// counted: what one workspace writes into its settings must not use up what another one has.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
