//! What waits for the disk: counted in bytes, bounded, and [shared](crate::share) by the workspaces, and within each by its sources.
//! One that hands over more than the disk takes is told to come back, and the others' room is untouched.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracklayer_ids::{SourceId, WorkspaceId};

use crate::error::AppendError;
use crate::share;

/// Until it is worth asking again.
const COME_BACK: Duration = Duration::from_secs(1);

/// The room of an appender.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    limit_bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_workspace: HashMap<WorkspaceId, usize>,
    by_source: HashMap<(WorkspaceId, SourceId), usize>,
}

/// Bytes that a caller's events take of it, until the last of them is answered.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    _place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    of: Arc<WaitingRoom>,
    workspace: WorkspaceId,
    source: SourceId,
    bytes: usize,
}

impl WaitingRoom {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, taken: Mutex::default() }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().all
    }

    /// Takes room for so many bytes of a workspace's source, or refuses at once.
    pub(crate) fn take(
        self: &Arc<Self>,
        workspace: WorkspaceId,
        source: SourceId,
        bytes: usize,
    ) -> Result<Room, AppendError> {
        let mut taken = self.lock();
        let of_workspace = taken.by_workspace.get(&workspace).copied().unwrap_or_default();
        let held = taken.by_source.get(&(workspace, source)).copied().unwrap_or_default();
        // What fits into the workspace's part fits into the whole.
        let part = share::most(of_workspace, taken.all, self.limit_bytes);
        if !share::fits(held, bytes, of_workspace, part) {
            return Err(AppendError::Overloaded {
                waiting_bytes: taken.all.saturating_add(bytes),
                limit_bytes: self.limit_bytes,
                retry_after: COME_BACK,
            });
        }
        taken.all += bytes;
        *taken.by_workspace.entry(workspace).or_default() += bytes;
        *taken.by_source.entry((workspace, source)).or_default() += bytes;
        Ok(Room { _place: Arc::new(Place { of: Arc::clone(self), workspace, source, bytes }) })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.all = taken.all.saturating_sub(self.bytes);
        give_back(&mut taken.by_workspace, &self.workspace, self.bytes);
        give_back(&mut taken.by_source, &(self.workspace, self.source), self.bytes);
    }
}

/// Who holds nothing any more is forgotten.
fn give_back<K: Eq + Hash>(holders: &mut HashMap<K, usize>, holder: &K, bytes: usize) {
    let Some(held) = holders.get_mut(holder) else { return };
    *held = held.saturating_sub(bytes);
    if *held == 0 {
        holders.remove(holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WorkspaceId = WorkspaceId(1);
    const TWO: WorkspaceId = WorkspaceId(2);

    const BROWSER: SourceId = SourceId(1);
    const SERVER: SourceId = SourceId(2);

    /// Room that a source gets if it takes whatever it can.
    fn fill(waiting: &Arc<WaitingRoom>, workspace: WorkspaceId, source: SourceId) -> Vec<Room> {
        std::iter::from_fn(|| waiting.take(workspace, source, 1).ok()).collect()
    }

    #[test]
    fn a_workspace_that_hands_over_too_much_leaves_room_for_others() {
        let waiting = Arc::new(WaitingRoom::new(1_000));
        let first = fill(&waiting, ONE, BROWSER);
        assert_eq!(first.len(), 762, "of the four fifths that its workspace may have, nearly all");
        let second = fill(&waiting, TWO, BROWSER);
        assert_eq!(second.len(), 182, "as much of the rest");
        let refused = waiting.take(TWO, BROWSER, 50).unwrap_err();
        assert!(matches!(refused, AppendError::Overloaded { waiting_bytes: 994, limit_bytes: 1_000, .. }));
        let of_a_third = waiting.take(WorkspaceId(3), BROWSER, 40).unwrap();
        let parts = first.clone();
        drop(first);
        assert_eq!(waiting.bytes(), 984, "until the last part of each is answered");
        drop((parts, second, of_a_third));
        let taken = waiting.lock();
        assert_eq!(
            (taken.all, taken.by_workspace.len(), taken.by_source.len()),
            (0, 0, 0),
            "all is given back"
        );
    }

    #[test]
    fn a_source_that_hands_over_too_much_leaves_room_for_others_of_its_workspace() {
        let waiting = Arc::new(WaitingRoom::new(1_000));
        let browser = fill(&waiting, ONE, BROWSER);
        assert!(waiting.take(ONE, BROWSER, 1).is_err());
        assert_eq!(fill(&waiting, ONE, SERVER).len(), 37);
        drop(browser);
        assert!(waiting.take(ONE, BROWSER, 1).is_ok());
    }
}
