//! What waits for the disk: counted in bytes, bounded, and [shared](crate::share) by the workspaces. One that hands over more than
//! the disk takes is told to come back, and finds the others' room untouched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracklayer_ids::WorkspaceId;

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

    /// Takes room for so many bytes of a workspace, or refuses at once.
    pub(crate) fn take(self: &Arc<Self>, workspace: WorkspaceId, bytes: usize) -> Result<Room, AppendError> {
        let mut taken = self.lock();
        let held = taken.by_workspace.get(&workspace).copied().unwrap_or_default();
        if !share::fits(held, bytes, taken.all, self.limit_bytes) {
            return Err(AppendError::Overloaded {
                waiting_bytes: taken.all.saturating_add(bytes),
                limit_bytes: self.limit_bytes,
                retry_after: COME_BACK,
            });
        }
        taken.all += bytes;
        *taken.by_workspace.entry(workspace).or_default() += bytes;
        Ok(Room { _place: Arc::new(Place { of: Arc::clone(self), workspace, bytes }) })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        taken.all = taken.all.saturating_sub(self.bytes);
        let Some(held) = taken.by_workspace.get_mut(&self.workspace) else { return };
        *held = held.saturating_sub(self.bytes);
        if *held == 0 {
            taken.by_workspace.remove(&self.workspace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WorkspaceId = WorkspaceId(1);
    const TWO: WorkspaceId = WorkspaceId(2);

    /// Room that a workspace gets if it takes whatever it can.
    fn fill(waiting: &Arc<WaitingRoom>, workspace: WorkspaceId) -> Vec<Room> {
        std::iter::from_fn(|| waiting.take(workspace, 1).ok()).collect()
    }

    #[test]
    fn a_workspace_that_hands_over_too_much_leaves_room_for_others() {
        let waiting = Arc::new(WaitingRoom::new(1_000));
        let first = fill(&waiting, ONE);
        assert_eq!(first.len(), 800);
        let second = fill(&waiting, TWO);
        assert_eq!(second.len(), 160, "four fifths of the rest");
        let refused = waiting.take(TWO, 50).unwrap_err();
        assert!(matches!(refused, AppendError::Overloaded { waiting_bytes: 1_010, limit_bytes: 1_000, .. }));
        let of_a_third = waiting.take(WorkspaceId(3), 40).unwrap();
        let parts = first.clone();
        drop(first);
        assert_eq!(waiting.bytes(), 1_000, "until the last part of each is answered");
        drop((parts, second, of_a_third));
        let taken = waiting.lock();
        assert_eq!((taken.all, taken.by_workspace.len()), (0, 0), "everything is given back");
    }
}
