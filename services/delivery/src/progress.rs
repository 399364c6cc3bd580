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
use tracklayer_journal::PostgresJournal;

use crate::store::cursors::CursorStore;

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
        journal: PostgresJournal,
        cursors: CursorStore,
        interval: Duration,
        shutdown: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match journal.heads().await {
                Ok(heads) => {
                    for head in heads {
                        let position = Position {
                            generation: head.generation,
                            partition: head.partition,
                            offset: head.next,
                        };
                        Self::raise(&self.partition(head.workspace, head.partition).received, position);
                    }
                }
                Err(error) => tracing::warn!(error = %error, "heads of the journal could not be read"),
            }
            match cursors.all_resolve().await {
                Ok(cursors) => {
                    for cursor in cursors {
                        let position = Position {
                            generation: cursor.generation,
                            partition: cursor.partition,
                            offset: cursor.next,
                        };
                        Self::raise(&self.partition(cursor.workspace, cursor.partition).resolved, position);
                    }
                }
                Err(error) => tracing::warn!(error = %error, "resolve cursors could not be read"),
            }
        }
    }
}
