//! What an examination of the installation asks the database. Reads only.

use sqlx::PgPool;
use tracklayer_ids::{ConnectionId, SourceId, WorkspaceId};

use super::{StoreError, attempting};
use crate::dedup::Reuse;
use crate::lease::Duty;

/// Statements of an examination.
#[derive(Debug, Clone)]
pub struct ExamineStore {
    pool: PgPool,
}

/// Why lanes of a connection hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Whose.
    pub connection: ConnectionId,
    /// How many partitions' lanes.
    pub lanes: u64,
    /// Why the first of them holds.
    pub why: String,
    /// For how long, seconds.
    pub seconds: u64,
}

/// Events of a source that are resolved, by the minutes of their receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceEvents {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The source.
    pub source: SourceId,
    /// How many.
    pub events: u64,
}

/// Events of a source that count though their message_id was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reused {
    /// The source.
    pub source: SourceId,
    /// For what the ids were used before.
    pub reuse: Reuse,
    /// How many.
    pub events: u64,
}

impl ExamineStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// PostgreSQL's clock.
    ///
    /// # Errors
    /// The database.
    pub async fn clock(&self) -> Result<jiff::Timestamp, StoreError> {
        let now: jiff_sqlx::Timestamp = sqlx::query_scalar("select clock_timestamp()")
            .fetch_one(&self.pool)
            .await
            .map_err(attempting("read the database's clock"))?;
        Ok(now.to_jiff())
    }

    /// What each process that takes part can read.
    ///
    /// # Errors
    /// The database.
    pub async fn feature_levels(&self) -> Result<Vec<u32>, StoreError> {
        let levels: Vec<i32> = sqlx::query_scalar("select feature_level from delivery.member order by 1")
            .fetch_all(&self.pool)
            .await
            .map_err(attempting("see which processes take part"))?;
        Ok(levels.into_iter().map(i32::cast_unsigned).collect())
    }

    /// Those of these that nobody holds at the moment.
    ///
    /// # Errors
    /// The database.
    pub async fn unheld(&self, duties: &[Duty]) -> Result<Vec<Duty>, StoreError> {
        let places: Vec<i64> = sqlx::query_scalar(
            "select u.n from unnest($1::bigint[], $2::bigint[], $3::integer[]) with ordinality as u (w, c, p, n)
             where not exists (
                 select 1 from delivery.lease l
                 where l.workspace_id = u.w and l.connection_id = u.c and l.partition = u.p
                   and l.holder is not null and l.expires_at >= now())
             order by u.n",
        )
        .bind(duties.iter().map(|duty| duty.workspace.0).collect::<Vec<_>>())
        .bind(duties.iter().map(|duty| duty.connection.0).collect::<Vec<_>>())
        .bind(duties.iter().map(|duty| duty.partition.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("see which leases nobody holds"))?;
        let duty = |place: i64| duties.get(usize::try_from(place - 1).ok()?).copied();
        Ok(places.into_iter().filter_map(duty).collect())
    }

    /// Which connections of a workspace hold, and why: for each the lane that holds longest.
    ///
    /// # Errors
    /// The database.
    pub async fn holds(&self, workspace: WorkspaceId) -> Result<Vec<Hold>, StoreError> {
        let rows: Vec<(i64, i64, String, i64)> = sqlx::query_as(
            "select distinct on (connection_id) connection_id, count(*) over (partition by connection_id),
                    kind || ': ' || detail, greatest(extract(epoch from now() - since), 0)::bigint
             from delivery.lane_hold where workspace_id = $1 order by connection_id, kind = 'releasing', since",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read why lanes hold"))?;
        Ok(rows
            .into_iter()
            .map(|(connection, lanes, why, seconds)| Hold {
                connection: ConnectionId(connection),
                lanes: lanes.cast_unsigned(),
                why,
                seconds: seconds.cast_unsigned(),
            })
            .collect())
    }

    /// Events of each source that has any in these minutes since the Unix epoch, from the first to before the second.
    ///
    /// # Errors
    /// The database.
    pub async fn events_of_sources(&self, from: i64, before: i64) -> Result<Vec<SourceEvents>, StoreError> {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "select r.workspace_id, r.source_id, sum(r.events)::bigint
             from delivery.resolve_cursor c
             join delivery.rollup r
               on r.workspace_id = c.workspace_id and r.connection_id = 0 and r.partition = c.partition
             where r.minute >= $1 and r.minute < $2
             group by r.workspace_id, r.source_id order by r.workspace_id, r.source_id",
        )
        .bind(from)
        .bind(before)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count events of sources"))?;
        Ok(rows
            .into_iter()
            .map(|(workspace, source, events)| SourceEvents {
                workspace: WorkspaceId(workspace),
                source: SourceId(source),
                events: events.cast_unsigned(),
            })
            .collect())
    }

    /// Events of a workspace whose message_id was used before, from an hour since the Unix epoch on, ascending by source.
    ///
    /// # Errors
    /// The database, or a cause that this version does not know.
    pub async fn reused_ids(&self, workspace: WorkspaceId, since: i64) -> Result<Vec<Reused>, StoreError> {
        let rows: Vec<(i64, i16, i64)> = sqlx::query_as(
            "select source_id, cause, sum(events)::bigint from delivery.reused_id
             where workspace_id = $1 and hour >= $2
             group by source_id, cause order by source_id, cause",
        )
        .bind(workspace.0)
        .bind(since)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count reused message_ids"))?;
        rows.into_iter()
            .map(|(source, cause, events)| {
                let reuse =
                    Reuse::of_number(cause).ok_or(StoreError::Corrupt { what: "a count of reused ids" })?;
                Ok(Reused { source: SourceId(source), reuse, events: events.cast_unsigned() })
            })
            .collect()
    }
}
