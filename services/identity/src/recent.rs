//! Pairs that this process knows to be stored, so that they are not asked about again.
//!
//! A link row only goes with its identifiers, and whether those are what they were is always asked; so a stale entry can never hide that
//! something must be recorded. It saves a third of the probes of a usual batch.

use jiff::{SignedDuration, Timestamp};
use tracklayer_ids::WorkspaceId;

use crate::store::touch::SeenPair;

/// Most pairs remembered, about 150 bytes each.
const CAPACITY: u64 = 300_000;
/// How much later a link must be seen again before that is written.
pub const LAST_SEEN_COARSE: SignedDuration = SignedDuration::from_hours(1);

/// Workspace, source, and the first halves of both hashes: 128 bits each, which no two identifiers share.
type Key = (i64, i64, [u8; 16], [u8; 16]);

/// Stored pairs with bounds of their stored times. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RecentPairs {
    /// At the latest stored as first sight, at the earliest stored as last sight.
    stored: moka::sync::Cache<Key, (Timestamp, Timestamp)>,
}

impl Default for RecentPairs {
    fn default() -> Self {
        Self { stored: moka::sync::Cache::new(CAPACITY) }
    }
}

impl RecentPairs {
    /// Whether the pair is stored and these sights of it are not worth a write.
    #[must_use]
    pub fn covers(&self, workspace: WorkspaceId, pair: &SeenPair) -> bool {
        self.stored.get(&key(workspace, pair)).is_some_and(|(first, last)| {
            first <= pair.first_seen && pair.last_seen.duration_since(last) <= LAST_SEEN_COARSE
        })
    }

    /// Notes that the pair is stored, first seen at `first` or before, last at `last` or after.
    pub fn note(&self, workspace: WorkspaceId, pair: &SeenPair, first: Timestamp, last: Timestamp) {
        self.stored.insert(key(workspace, pair), (first, last));
    }
}

fn key(workspace: WorkspaceId, pair: &SeenPair) -> Key {
    let half = |mac: &[u8; 32]| std::array::from_fn(|n| mac[n]);
    (workspace.0, pair.source.0, half(&pair.a.0), half(&pair.b.0))
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::SourceId;

    use super::*;
    use crate::identifier::ValueMac;

    fn seen(first: i64, last: i64) -> SeenPair {
        let at = |minute: i64| Timestamp::from_second(1_700_000_000 + 60 * minute).unwrap();
        SeenPair {
            a: ValueMac([1; 32]),
            b: ValueMac([2; 32]),
            source: SourceId(1),
            first_seen: at(first),
            last_seen: at(last),
            message_id: "m".to_owned(),
        }
    }

    #[test]
    fn an_earlier_or_much_later_sight_is_not_covered_nor_another_source_or_workspace() {
        let recent = RecentPairs::default();
        let stored = seen(10, 20);
        assert!(!recent.covers(WorkspaceId(1), &stored));
        recent.note(WorkspaceId(1), &stored, stored.first_seen, stored.last_seen);
        for (first, last, covered) in [(10, 20, true), (30, 80, true), (9, 20, false), (30, 81, false)] {
            assert_eq!(recent.covers(WorkspaceId(1), &seen(first, last)), covered, "{first} to {last}");
        }
        assert!(!recent.covers(WorkspaceId(2), &stored));
        assert!(!recent.covers(WorkspaceId(1), &SeenPair { source: SourceId(2), ..stored }));
    }
}
