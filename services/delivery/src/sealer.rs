//! Seals what orders were matched by, and golden events: personal data that is kept for weeks stands in no table as it is.

use serde_json::json;
use tracklayer_ids::{MasterKey, WorkspaceId};

use crate::match_keys::Kept;

const PATH: &str = "match_key";

/// Seals and opens under a key of one workspace that serves nothing else.
pub struct Sealer([u8; 32]);

impl Sealer {
    /// Of a workspace.
    #[must_use]
    pub fn of(master_key: &MasterKey, workspace: WorkspaceId) -> Self {
        Self(master_key.workspace(workspace).value_mac("delivery.order_match_key", ""))
    }

    /// Of a workspace's golden events.
    #[must_use]
    pub fn of_golden_events(master_key: &MasterKey, workspace: WorkspaceId) -> Self {
        Self(master_key.workspace(workspace).value_mac("delivery.golden_event", ""))
    }

    /// None: there is no randomness.
    #[must_use]
    pub fn seal(&self, kept: &Kept) -> Option<String> {
        self.seal_text(&serde_json::to_string(kept).ok()?)
    }

    /// None: there is no randomness.
    #[must_use]
    pub fn seal_text(&self, text: &str) -> Option<String> {
        let mut document = json!({ PATH: text });
        tracklayer_secrets::seal_document(&self.0, &mut document, &[PATH]).ok()?;
        document[PATH].as_str().map(str::to_owned)
    }

    /// None: it was sealed under another master key, or by a version that knows more.
    #[must_use]
    pub fn open(&self, sealed: &str) -> Option<Kept> {
        serde_json::from_str(&self.open_text(sealed)?).ok()
    }

    /// None: it was sealed under another master key, or for something else.
    #[must_use]
    pub fn open_text(&self, sealed: &str) -> Option<String> {
        let mut document = json!({ PATH: sealed });
        tracklayer_secrets::open_document(&self.0, &mut document, &[PATH]).ok()?;
        document[PATH].as_str().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use tracklayer_destination::MatchKey;

    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_workspace_alone_and_shows_nothing() {
        let master = MasterKey::new([7; 32]);
        let kept = Kept {
            key: MatchKey::Gclid("Cj0abc".to_owned()),
            identifiers: vec![("user_id".to_owned(), "u-1".to_owned())],
        };
        let sealer = Sealer::of(&master, WorkspaceId(1));
        let sealed = sealer.seal(&kept).unwrap();
        assert!(!sealed.contains("Cj0abc") && !sealed.contains("u-1"), "{sealed}");
        assert_ne!(sealer.seal(&kept).unwrap(), sealed, "equal ones do not look equal");
        assert!(sealer.open(&sealed) == Some(kept));
        assert!(Sealer::of(&master, WorkspaceId(2)).open(&sealed).is_none());
        assert!(Sealer::of_golden_events(&master, WorkspaceId(1)).open(&sealed).is_none(), "another purpose");
    }
}
