//! How far the journal and resolve have come, per partition: what resolve loops and lanes wait on.
//!
//! One poll per process reads all heads and cursors; resolve also tells its lanes directly, so that the usual way waits for
//! no poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Partition, Position, WorkspaceId};
use tracklayer_journal::Journal;

use crate::resolve::error_chain;
use crate::store::cursors::CursorStore;

/// Pause after a poll that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The ends of one partition: the next position that will be written.
pub struct PartitionProgress {
    /// Of `received`.
    pub received: watch::Sender<Position>,
    /// Of `resolved`.
    pub resolved: watch::Sender<Position>,
}

type Partitions = HashMap<(WorkspaceId, Partition), Arc<PartitionProgress>>;

/// All partitions. Cheap to clone.
#[derive(Clone, Default)]
pub struct Progress {
    partitions: Arc<Mutex<Partitions>>,
}

impl Progress {
    /// The ends of a partition.
    #[must_use]
    pub fn partition(&self, workspace: WorkspaceId, partition: Partition) -> Arc<PartitionProgress> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Position::new(1, partition.0, 0);
        Arc::clone(partitions.entry((workspace, partition)).or_insert_with(|| {
            Arc::new(PartitionProgress {
                received: watch::Sender::new(begin),
                resolved: watch::Sender::new(begin),
            })
        }))
    }

    /// Raises an end; never lowers it.
    pub fn raise(end: &watch::Sender<Position>, position: Position) {
        end.send_if_modified(|known| {
            let higher = (position.generation, position.offset) > (known.generation, known.offset);
            if higher {
                *known = position;
            }
            higher
        });
    }

    /// Polls until `shutdown`. A database that is away is only a later answer.
    pub async fn poll(
        self,
        journal: Arc<dyn Journal>,
        cursors: CursorStore,
        interval: Duration,
        shutdown: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match self.poll_once(journal.as_ref(), &cursors).await {
                Ok(()) => failing = false,
                Err(error) => {
                    // Told once: the database may be away for as long as it likes.
                    if !std::mem::replace(&mut failing, true) {
                        let error = error_chain(error.as_ref());
                        tracing::warn!(error, "heads and cursors could not be read; trying on");
                    }
                    ticks.reset_after(AFTER_FAILURE.max(interval));
                }
            }
        }
    }

    async fn poll_once(
        &self,
        journal: &dyn Journal,
        cursors: &CursorStore,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for head in journal.heads().await? {
            let end = Position { generation: head.generation, partition: head.partition, offset: head.next };
            Self::raise(&self.partition(head.workspace, head.partition).received, end);
        }
        for cursor in cursors.all_resolve().await? {
            let end =
                Position { generation: cursor.generation, partition: cursor.partition, offset: cursor.next };
            Self::raise(&self.partition(cursor.workspace, cursor.partition).resolved, end);
        }
        Ok(())
    }
}
