//! What the books say: everything that a balance needs, from one snapshot; and the counts of the live page.

use std::collections::BTreeMap;

use prost::Message as _;
use sqlx::PgPool;
use tracklayer_ids::{Partition, Position, WorkspaceId};
use tracklayer_journal::BlockHeader;

use super::cursors::LaneCursor;
use super::{StoreError, attempting};
use crate::lease::Duty;
use crate::ledger::{LedgerEntries, State};

/// Reads for balance and statistics.
#[derive(Debug, Clone)]
pub struct StatsStore {
    pool: PgPool,
}

/// Everything that was accepted and what became of it, as of one moment.
#[derive(Debug, Default)]
pub struct Books {
    /// Position and events of every received block, by header, ascending per partition.
    pub received: Vec<(Position, u32)>,
    /// Blocks whose header's counts do not add up to its events.
    pub bad_headers: Vec<Position>,
    /// Every lane.
    pub lanes: Vec<LaneCursor>,
    /// Per connection: its ledger blocks, ascending.
    pub blocks: BTreeMap<i64, Vec<(Position, LedgerEntries)>>,
    /// Per connection: what overrides them.
    pub late: BTreeMap<i64, Vec<(Position, State, String)>>,
}

/// Events per source, state and reason of one connection.
pub type StateCounts = Vec<(i64, i64, i16, String, i64)>;

fn position(generation: i32, partition: i32, offset: i64) -> Position {
    Position::new(generation.cast_unsigned(), partition.cast_unsigned(), offset.cast_unsigned())
}

impl StatsStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The books of a workspace, all read in one snapshot, so that lanes may go on meanwhile.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn books(&self, workspace: WorkspaceId) -> Result<Books, StoreError> {
        let what = attempting("read the books");
        let mut tx = self.pool.begin().await.map_err(&what)?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        let mut books = Books::default();

        let received: Vec<(i32, i32, i64, i32, Vec<u8>)> = sqlx::query_as(
            "select generation, partition, base_offset, event_count, header from journal.received
             where workspace_id = $1 order by partition, generation, base_offset",
        )
        .bind(workspace.0)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        for (generation, partition, base, count, header) in received {
            let at = position(generation, partition, base);
            let counted: u64 = BlockHeader::read(&header)
                .map_err(|_| StoreError::Corrupt { what: "a received header" })?
                .counts
                .iter()
                .map(|c| u64::from(c.count))
                .sum();
            if counted != u64::from(count.cast_unsigned()) {
                books.bad_headers.push(at);
            }
            books.received.push((at, u32::try_from(counted).unwrap_or(u32::MAX)));
        }

        let lanes: Vec<(i64, i32, i32, i64, i32, i64)> = sqlx::query_as(
            "select connection_id, partition, start_generation, start_offset, generation, next_offset
             from delivery.lane_cursor where workspace_id = $1 order by connection_id, partition",
        )
        .bind(workspace.0)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        books.lanes = lanes
            .into_iter()
            .map(|(connection, partition, sg, so, g, o)| LaneCursor {
                duty: Duty {
                    workspace,
                    connection: connection.into(),
                    partition: Partition(partition.cast_unsigned()),
                },
                start: position(sg, partition, so),
                next: position(g, partition, o),
            })
            .collect();

        let blocks: Vec<(i64, i32, i32, i64, Vec<u8>)> = sqlx::query_as(
            "select connection_id, generation, partition, base_offset, entries from delivery.ledger_block
             where workspace_id = $1 order by connection_id, partition, generation, base_offset",
        )
        .bind(workspace.0)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        for (connection, generation, partition, base, bytes) in blocks {
            let entries = LedgerEntries::decode(bytes.as_slice())
                .map_err(|_| StoreError::Corrupt { what: "a ledger block" })?;
            books
                .blocks
                .entry(connection)
                .or_default()
                .push((position(generation, partition, base), entries));
        }

        let late: Vec<(i64, i32, i32, i64, i16, String)> = sqlx::query_as(
            "select connection_id, generation, partition, event_offset, state, reason from delivery.ledger_late
             where workspace_id = $1 order by connection_id, partition, generation, event_offset",
        )
        .bind(workspace.0)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        for (connection, generation, partition, offset, state, reason) in late {
            let state = State::from_number(state).ok_or(StoreError::Corrupt { what: "a late row" })?;
            books.late.entry(connection).or_default().push((
                position(generation, partition, offset),
                state,
                reason,
            ));
        }
        tx.commit().await.map_err(&what)?;
        Ok(books)
    }

    /// Accepted events per source: the rollup of what is resolved, and the headers beyond it.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn accepted(&self, workspace: WorkspaceId) -> Result<BTreeMap<i64, u64>, StoreError> {
        let what = attempting("count what was accepted");
        let resolved: Vec<(i64, i64)> = sqlx::query_as(
            "select source_id, sum(events)::bigint from delivery.rollup
             where workspace_id = $1 and connection_id = 0 group by source_id",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let beyond: Vec<(Vec<u8>,)> = sqlx::query_as(
            "select r.header from journal.received r
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
        for (header,) in beyond {
            let header =
                BlockHeader::read(&header).map_err(|_| StoreError::Corrupt { what: "a received header" })?;
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
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "select l.connection_id,
                    coalesce(sum(case when r.generation > l.generation then r.event_count
                                      else least(r.event_count, r.base_offset + r.event_count - l.next_offset) end),
                             0)::bigint
             from delivery.lane_cursor l
             left join journal.received r
               on r.workspace_id = l.workspace_id and r.partition = l.partition
              and (r.generation > l.generation
                   or (r.generation = l.generation and r.base_offset + r.event_count > l.next_offset))
             where l.workspace_id = $1 group by l.connection_id",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("count what waits"))?;
        Ok(rows.into_iter().map(|(connection, events)| (connection, events.cast_unsigned())).collect())
    }
}
