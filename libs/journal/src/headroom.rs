//! What large work of one workspace leaves to small work of others. A workspace with much to do works in large pieces, in many
//! places at once, and could keep every core and the disk busy; what another one has just handed over would wait behind all of
//! them. So while there is somebody whose pieces are small, half of the cores work on large ones, and no more. With nobody else
//! there, all do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracklayer_ids::WorkspaceId;

/// How long a workspace counts as there after a small piece.
const THERE: Duration = Duration::from_secs(1);
/// Longest wait for a place. Who holds one may itself wait for a database or a service that is slow for one workspace: that must
/// hold up nobody else for longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Shared by all that do the same kind of work in a process.
#[derive(Debug)]
pub struct Headroom {
    large: Arc<Semaphore>,
    /// The newest small pieces of two workspaces, the newer one first: one of them is another's, whoever asks.
    small: Mutex<[Option<(WorkspaceId, Instant)>; 2]>,
}

impl Headroom {
    /// Lets so many large pieces be at work beside small ones; at least one.
    #[must_use]
    pub fn new(large_at_once: usize) -> Self {
        Self { large: Arc::new(Semaphore::new(large_at_once.max(1))), small: Mutex::default() }
    }

    /// Tells of a small piece.
    pub fn small(&self, workspace: WorkspaceId) {
        let mut small = self.lock();
        if small[0].is_some_and(|(newest, _)| newest != workspace) {
            small.swap(0, 1);
        }
        small[0] = Some((workspace, Instant::now()));
    }

    /// Waits for a place for a large piece, to be kept while it is at work. None: it needs none, since nobody else is there, or has
    /// waited long enough.
    pub async fn large(&self, is_own: impl Fn(WorkspaceId) -> bool) -> Option<OwnedSemaphorePermit> {
        let there = |seen: &(WorkspaceId, Instant)| !is_own(seen.0) && seen.1.elapsed() < THERE;
        let another = self.lock().iter().flatten().any(there);
        if !another {
            return None;
        }
        tokio::time::timeout(PATIENCE, Arc::clone(&self.large).acquire_owned()).await.ok()?.ok()
    }

    fn lock(&self) -> MutexGuard<'_, [Option<(WorkspaceId, Instant)>; 2]> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Headroom {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const ONE: WorkspaceId = WorkspaceId(1);
    const TWO: WorkspaceId = WorkspaceId(2);

    /// None: it waits.
    fn large(headroom: &Headroom, workspace: WorkspaceId) -> Option<Option<OwnedSemaphorePermit>> {
        headroom.large(|own| own == workspace).now_or_never()
    }

    #[tokio::test]
    async fn large_pieces_take_turns_only_while_another_workspace_has_small_ones() {
        let headroom = Headroom::new(1);
        headroom.small(ONE);
        assert!(large(&headroom, ONE).unwrap().is_none(), "alone with itself");
        headroom.small(TWO);
        let held = large(&headroom, ONE).unwrap();
        assert!(held.is_some());
        assert!(large(&headroom, ONE).is_none(), "a second one waits");
        let begun = Instant::now();
        assert!(headroom.large(|own| own == ONE).await.is_none());
        assert!(begun.elapsed() >= PATIENCE, "and not for ever");
        drop(held);
        assert!(large(&headroom, TWO).unwrap().is_some(), "the other is there as well");
    }

    #[tokio::test]
    async fn many_small_pieces_of_one_do_not_hide_another() {
        let headroom = Headroom::new(1);
        headroom.small(TWO);
        for _ in 0..3 {
            headroom.small(ONE);
        }
        assert!(large(&headroom, ONE).unwrap().is_some() && large(&headroom, TWO).unwrap().is_some());
    }
}
