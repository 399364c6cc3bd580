//! Who is asking: an admin key says which workspaces it may see. Keys are random and kept as SHA-256 only, so that the table is
//! worth nothing to who reads it.

use sha2::{Digest as _, Sha256};
use tracklayer_ids::{Secret, WorkspaceId};

use crate::error::ControlError;

/// What an admin key may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every workspace, and what belongs to none.
    Installation,
    /// One workspace.
    Workspace(WorkspaceId),
}

/// An admin key as the table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownKey {
    /// Its id.
    pub id: i64,
    /// SHA-256 of the key.
    pub sha256: KeyHash,
    /// What it may see.
    pub scope: Scope,
}

/// SHA-256 of a write key or an admin key. Equality takes the same time wherever two differ.
#[derive(Clone, Copy)]
pub struct KeyHash(pub [u8; 32]);

/// Prefix of admin keys, so that a secret scanner and a person see what it is.
pub const ADMIN_KEY_PREFIX: &str = "tla_";
/// Prefix of write keys.
pub const WRITE_KEY_PREFIX: &str = "wk_";

impl Scope {
    /// Refuses another workspace than the key's.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], whether it exists or not.
    pub fn check(self, workspace: WorkspaceId) -> Result<(), ControlError> {
        match self {
            Self::Installation => Ok(()),
            Self::Workspace(own) if own == workspace => Ok(()),
            Self::Workspace(_) => Err(ControlError::OtherWorkspace { workspace }),
        }
    }

    /// Refuses every workspace's key.
    ///
    /// # Errors
    /// [`ControlError::InstallationOnly`].
    pub fn check_installation(self, what: &'static str) -> Result<(), ControlError> {
        match self {
            Self::Installation => Ok(()),
            Self::Workspace(_) => Err(ControlError::InstallationOnly { what }),
        }
    }
}

impl KeyHash {
    /// Of a key.
    #[must_use]
    pub fn of(key: &Secret<String>) -> Self {
        Self(Sha256::digest(key.expose().as_bytes()).into())
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |differences, (one, two)| differences | (one ^ two)) == 0
    }
}

impl Eq for KeyHash {}

impl std::fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspaces_key_sees_only_that_workspace() {
        let scope = Scope::Workspace(WorkspaceId(1));
        assert!(scope.check(WorkspaceId(1)).is_ok());
        assert!(matches!(scope.check(WorkspaceId(2)), Err(ControlError::OtherWorkspace { .. })));
        assert!(scope.check_installation("make a workspace").is_err());
        assert!(Scope::Installation.check(WorkspaceId(2)).is_ok());
        assert!(Scope::Installation.check_installation("make a workspace").is_ok());
    }

    #[test]
    fn hashes_differ_if_any_byte_does() {
        let hash = KeyHash::of(&Secret::new("k".to_owned()));
        assert_eq!(hash, KeyHash::of(&Secret::new("k".to_owned())));
        for at in [0, 31] {
            let mut other = hash;
            other.0[at] ^= 1;
            assert_ne!(hash, other);
        }
    }
}
