//! Keeps rejected events for whoever mends the sender: so many per source and hour, the rest is only counted.
//!
//! It is a courtesy, not a promise: if the database does not take them, the answer to the sender is the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sqlx::PgPool;
use tracklayer_event::Rejection;
use tracklayer_ids::{SourceId, WorkspaceId};

use crate::metrics;
use crate::source::Source;
use crate::store::rejected::{self, RejectedRow};

/// Longest wait of a sender for its rejected events to be kept.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is kept of an id.
const MAX_MESSAGE_ID_BYTES: usize = 400;

/// Keeps and lists rejected events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RejectedEvents {
    pool: PgPool,
    per_hour: u32,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    hour: i64,
    by_source: HashMap<SourceId, u32>,
}

impl Kept {
    /// How many of so many may still be kept this hour; counts them.
    fn take(&mut self, source: SourceId, wanted: usize, per_hour: u32, hour: i64) -> usize {
        if hour != self.hour {
            self.hour = hour;
            self.by_source.clear();
        }
        let so_far = self.by_source.entry(source).or_default();
        let room = per_hour.saturating_sub(*so_far) as usize;
        let taken = wanted.min(room);
        *so_far += u32::try_from(taken).unwrap_or(u32::MAX);
        taken
    }
}

impl RejectedEvents {
    /// Over a pool whose database has the `ingest` schema.
    #[must_use]
    pub fn new(pool: PgPool, per_hour: u32) -> Self {
        Self { pool, per_hour, kept: Arc::default() }
    }

    /// Keeps what fits into the hour.
    pub async fn keep(&self, source: &Source, received_at: Timestamp, events: &[(&Rejection, &Bytes)]) {
        let hour = received_at.as_second().div_euclid(3_600);
        let taken = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take(
            source.id,
            events.len(),
            self.per_hour,
            hour,
        );
        metrics::rejected_dropped(events.len() - taken);
        if taken == 0 {
            return;
        }
        let rows: Vec<RejectedRow> = events[..taken]
            .iter()
            .map(|(rejection, raw)| RejectedRow {
                source: source.id,
                received_at,
                message_id: storable_id(&rejection.message_id),
                code: rejection.code.as_str().to_owned(),
                field: rejection.field.clone(),
                reason: rejection.reason.clone(),
                raw: raw.to_vec(),
            })
            .collect();
        match tokio::time::timeout(PATIENCE, rejected::insert(&self.pool, source.workspace, &rows)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                metrics::rejected_dropped(taken);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    events = taken,
                    "rejected events were not kept"
                );
            }
            Err(_) => {
                metrics::rejected_dropped(taken);
                tracing::warn!(events = taken, "rejected events were not kept in time");
            }
        }
    }

    /// The newest of a workspace, newest first.
    ///
    /// # Errors
    /// The database.
    pub async fn newest(&self, workspace: WorkspaceId, limit: u32) -> Result<Vec<RejectedRow>, sqlx::Error> {
        rejected::newest(&self.pool, workspace, i64::from(limit)).await
    }

    /// Forgets what is older than so many hours.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_older_than(&self, hours: u32) -> Result<u64, sqlx::Error> {
        let age = jiff::SignedDuration::from_hours(i64::from(hours));
        let before = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH);
        rejected::delete_before(&self.pool, before).await
    }
}

/// An id that a text column takes.
fn storable_id(id: &str) -> String {
    let end = id.floor_char_boundary(MAX_MESSAGE_ID_BYTES);
    id[..end].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_floods_leaves_room_for_the_next_hour_and_for_others() {
        let mut kept = Kept::default();
        assert_eq!(kept.take(SourceId(1), 7, 10, 100), 7);
        assert_eq!(kept.take(SourceId(1), 7, 10, 100), 3);
        assert_eq!(kept.take(SourceId(1), 7, 10, 100), 0);
        assert_eq!(kept.take(SourceId(2), 7, 10, 100), 7);
        assert_eq!(kept.take(SourceId(1), 7, 10, 101), 7);
    }

    #[test]
    fn an_id_with_a_nul_can_be_stored() {
        assert_eq!(storable_id("a\0b"), "a\u{fffd}b");
        assert_eq!(storable_id(&"é".repeat(300)).len(), 400);
    }
}
