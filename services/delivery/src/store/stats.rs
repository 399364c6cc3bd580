//! What the books say: everything that a balance needs, from one snapshot and a row at a time; and the counts of the live
//! page.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use prost::Message as _;
use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{ConnectionId, Offset, Position, WorkspaceId};
use tracklayer_journal::postgres::MAX_BLOCK_EVENTS;
use tracklayer_journal::{BlockHeader, Place};

use super::cursors::LaneCursor;
use super::{StoreError, attempting};
use crate::ledger::{LedgerEntries, State};

/// Reads for balance and statistics.
#[derive(Debug, Clone)]
pub struct StatsStore {
    pool: PgPool,
}

/// Takes the books in, a row at a time.
pub trait BookReader {
    /// A lane; all of them come first.
    fn lane(&mut self, lane: LaneCursor);
    /// A received block, ascending per partition: its events by its row, and by the counts of its header. Or what was counted
    /// of many of them that stood there without a hole before they were dropped.
    fn received(&mut self, at: Position, events: u64, counted: u64);
    /// A ledger block, ascending per lane, and the rows that override it.
    fn settled(&mut self, connection: ConnectionId, at: Position, entries: &LedgerEntries, late: &[LateRow]);
    /// A row that overrides no block.
    fn stray(&mut self, connection: ConnectionId, at: Position);
}

/// What became late of one event of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateRow {
    /// Which event.
    pub offset: u64,
    /// Its state.
    pub state: State,
    /// Why.
    pub reason: String,
}

/// What is accepted and where resolve stands, of one moment.
#[derive(Debug, Clone, Default)]
pub struct ResolvedCounts {
    /// Resolved events per source.
    pub accepted: BTreeMap<i64, u64>,
    /// Where resolve stands, per partition.
    pub places: Vec<Place>,
}

/// Most rows that override no block which are told.
const MAX_STRAYS: i64 = 100;

/// Events per source, state and reason of one connection.
pub type StateCounts = Vec<(i64, i64, i16, String, i64)>;

/// Joins to a lane `l` the sums `here.events`, beyond its cursor in its generation, and `later.events`, of the generations
/// after it, from the rows that hold the blocks. `$2` is the most events of a block.
macro_rules! beyond_lanes {
    ($rows:literal) => {
        concat!(
            "left join lateral (
                 select sum(least(r.event_count, r.base_offset + r.event_count - l.next_offset)) as events
                 from ",
            $rows,
            " r
                 where r.workspace_id = l.workspace_id and r.partition = l.partition
                   and r.generation = l.generation
                   and r.base_offset > l.next_offset - $2 and r.base_offset + r.event_count > l.next_offset
             ) here on true
             left join lateral (
                 select sum(r.event_count) as events from ",
            $rows,
            " r
                 where r.workspace_id = l.workspace_id and r.partition = l.partition
                   and r.generation > l.generation
             ) later on true"
        )
    };
}

fn position(generation: i32, partition: i32, offset: i64) -> Position {
    Position::new(generation.cast_unsigned(), partition.cast_unsigned(), offset.cast_unsigned())
}

impl StatsStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Reads the books of a workspace, all in one snapshot, so that lanes may go on meanwhile. What was received is that of
    /// the journal in PostgreSQL.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn read_books(
        &self,
        workspace: WorkspaceId,
        reader: &mut impl BookReader,
    ) -> Result<(), StoreError> {
        self.read_snapshot(workspace, Source::Received, reader).await.map(drop)
    }

    /// As [`StatsStore::read_books`] where the journal is another one: what was received is that which is resolved. Answers
    /// where resolve stood, for whoever reads on in the journal.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn read_resolved_books(
        &self,
        workspace: WorkspaceId,
        reader: &mut impl BookReader,
    ) -> Result<Vec<Place>, StoreError> {
        self.read_snapshot(workspace, Source::Resolved, reader).await
    }

    async fn read_snapshot(
        &self,
        workspace: WorkspaceId,
        source: Source,
        reader: &mut impl BookReader,
    ) -> Result<Vec<Place>, StoreError> {
        let what = attempting("read the books");
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        if source == Source::Received {
            // Before the first look, so that no day is dropped between that and the blocks: its count would not be seen.
            sqlx::query("lock table only journal.received in access share mode")
                .execute(&mut *tx)
                .await
                .map_err(&what)?;
        }
        super::cursors::each_lane(&mut tx, workspace, |lane| reader.lane(lane)).await?;
        read_received(&mut tx, workspace, source, reader).await?;
        read_ledger(&mut tx, workspace, reader).await?;
        read_strays(&mut tx, workspace, reader).await?;
        let places = super::cursors::places_of(&mut tx, workspace).await?;
        tx.commit().await.map_err(&what)?;
        Ok(places)
    }

    /// What is resolved of a workspace, and up to where.
    ///
    /// # Errors
    /// The database.
    pub async fn resolved_counts(&self, workspace: WorkspaceId) -> Result<ResolvedCounts, StoreError> {
        let what = attempting("count what is resolved");
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        let resolved: Vec<(i64, i64)> =
            sqlx::query_as(RESOLVED_BY_SOURCE).bind(workspace.0).fetch_all(&mut *tx).await.map_err(&what)?;
        let places = super::cursors::places_of(&mut tx, workspace).await?;
        tx.commit().await.map_err(&what)?;
        let accepted =
            resolved.into_iter().map(|(source, events)| (source, events.cast_unsigned())).collect();
        Ok(ResolvedCounts { accepted, places })
    }

    /// Events beyond each connection's cursors where the journal is not in this database: the resolved rows, and what is there
    /// between the end of those and the end of the journal, by partition.
    ///
    /// # Errors
    /// The database.
    pub async fn waiting_up_to(
        &self,
        workspace: WorkspaceId,
        ends: &[Position],
    ) -> Result<BTreeMap<i64, u64>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(concat!(
            "select l.connection_id,
                    sum(coalesce(here.events, 0) + coalesce(later.events, 0)
                        + case when e.generation = c.generation then greatest(e.next_offset - c.next_offset, 0) else 0 end
                    )::bigint
             from delivery.lane_cursor l
             left join delivery.resolve_cursor c on c.workspace_id = l.workspace_id and c.partition = l.partition
             left join unnest($3::integer[], $4::integer[], $5::bigint[]) as e (partition, generation, next_offset)
               on e.partition = l.partition ",
            beyond_lanes!("delivery.resolved"),
            " where l.workspace_id = $1 group by l.connection_id"
        ))
        .bind(workspace.0)
        .bind(MAX_BLOCK_EVENTS)
        .bind(ends.iter().map(|end| end.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.offset.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count what waits"))?;
        Ok(rows.into_iter().map(|(connection, events)| (connection, events.cast_unsigned())).collect())
    }

    /// Accepted events per source: the rollup of what is resolved, and the headers beyond it.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn accepted(&self, workspace: WorkspaceId) -> Result<BTreeMap<i64, u64>, StoreError> {
        let what = attempting("count what was accepted");
        let resolved: Vec<(i64, i64)> = sqlx::query_as(RESOLVED_BY_SOURCE)
            .bind(workspace.0)
            .fetch_all(&self.pool)
            .await
            .map_err(&what)?;
        let beyond: Vec<(i32, Vec<u8>)> = sqlx::query_as(
            "select r.event_count, r.header from journal.received r
             left join delivery.resolve_cursor c on c.workspace_id = r.workspace_id and c.partition = r.partition
             where r.workspace_id = $1
               and (r.generation, r.base_offset) >= (coalesce(c.generation, 1), coalesce(c.next_offset, 0))",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let mut accepted: BTreeMap<i64, u64> =
            resolved.into_iter().map(|(source, events)| (source, events.cast_unsigned())).collect();
        for (events, header) in beyond {
            // One that cannot be read stops its partition, and not the figures: nobody knows whose its events are.
            let Ok(header) = BlockHeader::read(&header) else {
                *accepted.entry(0).or_default() += u64::from(events.cast_unsigned());
                continue;
            };
            for count in header.counts {
                *accepted.entry(count.source_id).or_default() += u64::from(count.count);
            }
        }
        Ok(accepted)
    }

    /// Events per connection, source, state and reason.
    ///
    /// # Errors
    /// The database.
    pub async fn states(&self, workspace: WorkspaceId) -> Result<StateCounts, StoreError> {
        sqlx::query_as(
            "select connection_id, source_id, state, reason, sum(events)::bigint from delivery.rollup
             where workspace_id = $1 and connection_id <> 0
             group by connection_id, source_id, state, reason having sum(events) <> 0
             order by connection_id, source_id, state, reason",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count states"))
    }

    /// Delivered events per connection and latency bucket.
    ///
    /// # Errors
    /// The database.
    pub async fn latencies(&self, workspace: WorkspaceId) -> Result<Vec<(i64, i32, i64)>, StoreError> {
        sqlx::query_as(
            "select connection_id, bucket, sum(events)::bigint from delivery.latency
             where workspace_id = $1 group by connection_id, bucket order by connection_id, bucket",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read latencies"))
    }

    /// Requests per connection.
    ///
    /// # Errors
    /// The database.
    pub async fn requests(&self, workspace: WorkspaceId) -> Result<BTreeMap<i64, u64>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "select connection_id, sum(requests)::bigint from delivery.request_count
             where workspace_id = $1 group by connection_id",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count requests"))?;
        Ok(rows.into_iter().map(|(connection, requests)| (connection, requests.cast_unsigned())).collect())
    }

    /// Events beyond each connection's cursors, from the received rows.
    ///
    /// # Errors
    /// The database.
    pub async fn waiting(&self, workspace: WorkspaceId) -> Result<BTreeMap<i64, u64>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(concat!(
            "select l.connection_id, sum(coalesce(here.events, 0) + coalesce(later.events, 0))::bigint
             from delivery.lane_cursor l ",
            beyond_lanes!("journal.received"),
            " where l.workspace_id = $1 group by l.connection_id"
        ))
        .bind(workspace.0)
        .bind(MAX_BLOCK_EVENTS)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count what waits"))?;
        Ok(rows.into_iter().map(|(connection, events)| (connection, events.cast_unsigned())).collect())
    }
}

/// Resolved events per source.
const RESOLVED_BY_SOURCE: &str = "select source_id, sum(events)::bigint from delivery.rollup
     where workspace_id = $1 and connection_id = 0 group by source_id";

/// Whose headers say what was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The journal's.
    Received,
    /// Those of what was made of it: as many events, at the same positions.
    Resolved,
}

/// What a header counts beyond a place in the middle of its block, and where that begins. A header that does not add up goes
/// on not adding up.
#[must_use]
pub fn beyond(place: Place, first: Position, header: &BlockHeader) -> (Position, u64, u64) {
    let counted: u64 = header.counts.iter().map(|count| u64::from(count.count)).sum();
    let step = place.at.offset.0.saturating_sub(first.offset.0);
    let at = Position { offset: Offset(first.offset.0 + step), ..first };
    let events = u64::from(header.event_count).saturating_sub(step);
    (at, events, counted.saturating_sub(step))
}

async fn read_received(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    source: Source,
    reader: &mut impl BookReader,
) -> Result<(), StoreError> {
    let what = attempting("read what was received");
    let statement = match source {
        Source::Received => {
            "select generation, partition, base_offset, event_count, header from journal.received
             where workspace_id = $1 order by partition, generation, base_offset"
        }
        Source::Resolved => {
            "select generation, partition, base_offset, event_count, header from delivery.resolved
             where workspace_id = $1 order by partition, generation, base_offset"
        }
    };
    let mut dropped = match source {
        Source::Received => read_dropped(&mut *tx, workspace).await?,
        Source::Resolved => Vec::new(),
    }
    .into_iter()
    .peekable();
    let order = |at: Position| (at.partition, at.generation, at.offset);
    let mut rows = sqlx::query_as::<_, (i32, i32, i64, i32, Vec<u8>)>(statement).bind(workspace.0).fetch(tx);
    while let Some((generation, partition, base, count, header)) = rows.try_next().await.map_err(&what)? {
        let events = u64::from(count.cast_unsigned());
        // Of one that cannot be read as many as its row says, as for a day that is dropped.
        let counted = BlockHeader::read(&header)
            .map_or(events, |header| header.counts.iter().map(|c| u64::from(c.count)).sum());
        let at = position(generation, partition, base);
        while let Some((first, events, counted)) = dropped.next_if(|range| order(range.0) < order(at)) {
            reader.received(first, events, counted);
        }
        reader.received(at, events, counted);
    }
    dropped.for_each(|(first, events, counted)| reader.received(first, events, counted));
    Ok(())
}

/// What was counted of the days that were dropped: first position, events by the rows, and by the headers.
async fn read_dropped(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
) -> Result<Vec<(Position, u64, u64)>, StoreError> {
    let rows: Vec<(i32, i32, i64, i64, i64)> = sqlx::query_as(
        "select generation, partition, first_offset, next_offset - first_offset, counted from journal.dropped
         where workspace_id = $1 order by partition, generation, first_offset",
    )
    .bind(workspace.0)
    .fetch_all(tx)
    .await
    .map_err(attempting("read what was dropped"))?;
    Ok(rows
        .into_iter()
        .map(|(generation, partition, first, events, counted)| {
            (position(generation, partition, first), events.cast_unsigned(), counted.cast_unsigned())
        })
        .collect())
}

/// Connection, generation, partition, base offset, entries; offsets, states and reasons of what overrides them.
type LedgerRow = (i64, i32, i32, i64, Vec<u8>, Option<Vec<i64>>, Option<Vec<i16>>, Option<Vec<String>>);

async fn read_ledger(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    reader: &mut impl BookReader,
) -> Result<(), StoreError> {
    let what = attempting("read the ledger");
    let mut rows = sqlx::query_as::<_, LedgerRow>(
        "select b.connection_id, b.generation, b.partition, b.base_offset, b.entries, l.offsets, l.states, l.reasons
         from delivery.ledger_block b
         left join lateral (
             select array_agg(t.event_offset order by t.event_offset) as offsets,
                    array_agg(t.state order by t.event_offset) as states,
                    array_agg(t.reason order by t.event_offset) as reasons
             from delivery.ledger_late t
             where t.workspace_id = b.workspace_id and t.connection_id = b.connection_id
               and t.partition = b.partition and t.generation = b.generation
               and t.event_offset >= b.base_offset and t.event_offset < b.base_offset + b.event_count
         ) l on true
         where b.workspace_id = $1
         order by b.connection_id, b.partition, b.generation, b.base_offset",
    )
    .bind(workspace.0)
    .fetch(tx);
    while let Some(row) = rows.try_next().await.map_err(&what)? {
        let (connection, generation, partition, base, entries, offsets, states, reasons) = row;
        let entries = LedgerEntries::decode(entries.as_slice())
            .map_err(|_| StoreError::Corrupt { what: "a ledger block" })?;
        let late: Vec<LateRow> = offsets
            .unwrap_or_default()
            .into_iter()
            .zip(states.unwrap_or_default())
            .zip(reasons.unwrap_or_default())
            .map(|((offset, state), reason)| {
                let state = State::from_number(state).ok_or(StoreError::Corrupt { what: "a late row" })?;
                Ok(LateRow { offset: offset.cast_unsigned(), state, reason })
            })
            .collect::<Result<_, StoreError>>()?;
        reader.settled(connection.into(), position(generation, partition, base), &entries, &late);
    }
    Ok(())
}

async fn read_strays(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    reader: &mut impl BookReader,
) -> Result<(), StoreError> {
    let strays: Vec<(i64, i32, i32, i64)> = sqlx::query_as(
        "select l.connection_id, l.generation, l.partition, l.event_offset from delivery.ledger_late l
         where l.workspace_id = $1 and not exists (
             select 1 from delivery.ledger_block b
             where b.workspace_id = l.workspace_id and b.connection_id = l.connection_id
               and b.partition = l.partition and b.generation = l.generation
               and b.base_offset <= l.event_offset and b.base_offset > l.event_offset - $2
               and b.base_offset + b.event_count > l.event_offset)
         limit $3",
    )
    .bind(workspace.0)
    .bind(MAX_BLOCK_EVENTS)
    .bind(MAX_STRAYS)
    .fetch_all(tx)
    .await
    .map_err(attempting("look for late rows without a block"))?;
    for (connection, generation, partition, offset) in strays {
        reader.stray(connection.into(), position(generation, partition, offset));
    }
    Ok(())
}
