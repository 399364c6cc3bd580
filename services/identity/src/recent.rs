//! Pairs that this process knows to be stored, so that they are not asked about again.
//!
//! A link row only goes with its identifiers, and whether those are what they were is always asked; so a stale entry can never hide that
//! something must be recorded. It saves a third of the probes of a usual batch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tracklayer_ids::WorkspaceId;

use crate::memory::Generations;
use crate::store::touch::SeenPair;

/// Most pairs remembered, about 110 bytes each.
const CAPACITY: usize = 450_000;
/// How much later a link must be seen again before that is written.
pub const LAST_SEEN_COARSE: SignedDuration = SignedDuration::from_hours(1);

/// Workspace, source, and the first halves of both hashes: 128 bits each, which no two identifiers share.
type Key = (i64, i64, [u8; 16], [u8; 16]);
/// At the latest stored as first sight, at the earliest stored as last sight.
type Bounds = (Timestamp, Timestamp);

/// Stored pairs with bounds of their stored times. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RecentPairs {
    stored: Arc<Mutex<Generations<Key, Bounds>>>,
}

impl Default for RecentPairs {
    fn default() -> Self {
        Self { stored: Arc::new(Mutex::new(Generations::new(CAPACITY, |_| 1))) }
    }
}

impl RecentPairs {
    /// Of each pair, whether it is stored and these sights of it are not worth a write.
    pub fn covers<'e>(&self, workspace: WorkspaceId, pairs: impl Iterator<Item = SeenPair<'e>>) -> Vec<bool> {
        let mut stored = self.lock();
        let covers = |pair: SeenPair<'_>| {
            stored.get(&key(workspace, &pair)).is_some_and(|bounds| is_fine(&pair, *bounds))
        };
        pairs.map(covers).collect()
    }

    /// Notes that pairs are stored, first seen then or before, last then or after.
    pub fn note<'e>(
        &self,
        workspace: WorkspaceId,
        pairs: impl IntoIterator<Item = (SeenPair<'e>, Timestamp, Timestamp)>,
    ) {
        let mut stored = self.lock();
        for (pair, first, last) in pairs {
            stored.note(key(workspace, &pair), (first, last));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations<Key, Bounds>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether sights of a pair are not worth a write over what is stored.
#[must_use]
pub fn is_fine(pair: &SeenPair<'_>, (first, last): (Timestamp, Timestamp)) -> bool {
    first <= pair.first_seen && pair.last_seen.duration_since(last) <= LAST_SEEN_COARSE
}

fn key(workspace: WorkspaceId, pair: &SeenPair<'_>) -> Key {
    (workspace.0, pair.source.0, pair.a.half(), pair.b.half())
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::SourceId;

    use super::*;
    use crate::identifier::ValueMac;

    fn seen(first: i64, last: i64) -> SeenPair<'static> {
        let at = |minute: i64| Timestamp::from_second(1_700_000_000 + 60 * minute).unwrap();
        SeenPair {
            a: ValueMac([1; 32]),
            b: ValueMac([2; 32]),
            source: SourceId(1),
            first_seen: at(first),
            last_seen: at(last),
            message_id: "m",
        }
    }

    #[test]
    fn an_earlier_or_much_later_sight_is_not_covered_nor_another_source_or_workspace() {
        let recent = RecentPairs::default();
        let covers =
            |workspace: i64, pair: SeenPair<'_>| recent.covers(WorkspaceId(workspace), [pair].into_iter())[0];
        let stored = seen(10, 20);
        assert!(!covers(1, stored));
        recent.note(WorkspaceId(1), [(stored, stored.first_seen, stored.last_seen)]);
        for (first, last, covered) in [(10, 20, true), (30, 80, true), (9, 20, false), (30, 81, false)] {
            assert_eq!(covers(1, seen(first, last)), covered, "{first} to {last}");
        }
        assert!(!covers(2, stored));
        assert!(!covers(1, SeenPair { source: SourceId(2), ..stored }));
    }
}
