//! Tables `delivery.twin_count` (duplicates by the source of their winner and their own; written by `store/resolved.rs`) and `twin_start`.

use std::collections::BTreeMap;
use std::ops::Range;

use sqlx::PgPool;
use tracklayer_ids::{SourceId, WorkspaceId};

use super::{StoreError, attempting};

/// Rows that one statement forgets, so that none takes long.
const AT_ONCE: i64 = 10_000;

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TwinKey {
    /// In which the copy was received.
    pub minute: i64,
    /// Source of the winner.
    pub first: SourceId,
    /// Source of the copy.
    pub second: SourceId,
    /// Found by the order alone.
    pub by_order: bool,
}

/// How many copies, and what they count as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TwinCounts {
    /// All.
    pub copies: u64,
    /// The first of their source, if that is not the winner's.
    pub twins: u64,
    /// Those before which no other source had sent a copy.
    pub first_twins: u64,
}

/// What a commit counts.
pub type TwinRows = BTreeMap<TwinKey, TwinCounts>;

/// The counts of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinWindow {
    /// The first minute that is counted, and the end: not before everything was counted.
    pub minutes: Range<i64>,
    /// Accepted events by source, duplicates among them.
    pub accepted: BTreeMap<SourceId, u64>,
    /// By source of the winner, source of the copy, and whether the order alone says so.
    pub copies: BTreeMap<(SourceId, SourceId, bool), TwinCounts>,
}

/// Counts of twins.
#[derive(Debug, Clone)]
pub struct TwinStore {
    pool: PgPool,
}

/// Sources of the winner and of the copy, whether by the order; copies, twins, first ones.
type CountRow = (i64, i64, bool, i64, i64, i64);

impl TwinStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// What was counted of events that were received in these minutes.
    ///
    /// # Errors
    /// The database.
    pub async fn window(
        &self,
        workspace: WorkspaceId,
        minutes: Range<i64>,
    ) -> Result<TwinWindow, StoreError> {
        let what = attempting("read which events had a twin");
        // One look at both tables: resolve may commit in between.
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        let (start,): (i64,) = sqlx::query_as("select coalesce(max(minute), 0) from delivery.twin_start")
            .fetch_one(&mut *tx)
            .await
            .map_err(&what)?;
        let from = minutes.start.max(start).min(minutes.end);
        // By partition, so that the key's minutes are a range of its index.
        let accepted: Vec<(i64, i64)> = sqlx::query_as(
            "select r.source_id, sum(r.events)::bigint
             from delivery.resolve_cursor c
             join delivery.rollup r
                 on r.workspace_id = c.workspace_id and r.connection_id = 0 and r.partition = c.partition
             where c.workspace_id = $1 and r.minute >= $2 and r.minute < $3
             group by r.source_id",
        )
        .bind(workspace.0)
        .bind(from)
        .bind(minutes.end)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        let copies: Vec<CountRow> = sqlx::query_as(
            "select first_source_id, second_source_id, by_order, sum(copies)::bigint, sum(twins)::bigint,
                 sum(first_twins)::bigint
             from delivery.twin_count
             where workspace_id = $1 and minute >= $2 and minute < $3
             group by first_source_id, second_source_id, by_order",
        )
        .bind(workspace.0)
        .bind(from)
        .bind(minutes.end)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        let copies = copies.into_iter().map(|(first, second, by_order, copies, twins, first_twins)| {
            let counts = TwinCounts {
                copies: copies.cast_unsigned(),
                twins: twins.cast_unsigned(),
                first_twins: first_twins.cast_unsigned(),
            };
            ((SourceId(first), SourceId(second), by_order), counts)
        });
        Ok(TwinWindow {
            minutes: from..minutes.end,
            accepted: accepted.into_iter().map(|(s, events)| (SourceId(s), events.cast_unsigned())).collect(),
            copies: copies.collect(),
        })
    }

    /// From that minute on everything is counted; what is before it is forgotten by [`TwinStore::forget`].
    ///
    /// # Errors
    /// The database.
    pub async fn start_at(&self, minute: i64) -> Result<(), StoreError> {
        sqlx::query("update delivery.twin_start set minute = $1 where minute < $1")
            .bind(minute)
            .execute(&self.pool)
            .await
            .map_err(attempting("say from when on twins are counted"))?;
        Ok(())
    }

    /// Forgets what was received before that minute, at most some thousands of rows; answers whether there may be more. What another
    /// process forgets is left to it.
    ///
    /// # Errors
    /// The database.
    pub async fn forget(&self, before: i64) -> Result<bool, StoreError> {
        let forgotten = sqlx::query(
            "delete from delivery.twin_count where ctid = any(array(
                 select ctid from delivery.twin_count where minute < $1
                 order by minute limit $2 for update skip locked))",
        )
        .bind(before)
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await
        .map_err(attempting("forget which events had a twin"))?;
        Ok(forgotten.rows_affected() >= AT_ONCE.cast_unsigned())
    }
}
