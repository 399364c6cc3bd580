//! The resolved journal and the fenced commit that makes a row of it exist.

use sqlx::{PgPool, Row};
use tracklayer_ids::{Generation, Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::postgres::MAX_BLOCK_EVENTS;
use tracklayer_journal::{Block, BlockHeader, ReceivedBlock};

use super::{StoreError, attempting, fence};
use crate::lease::Lease;

/// Statements on `delivery.resolved`, its cursor and the message index.
#[derive(Debug, Clone)]
pub struct ResolvedStore {
    pool: PgPool,
}

/// One range of `received`, resolved.
#[derive(Debug)]
pub struct ResolvedCommit<'a> {
    /// Position of the first event.
    pub first: Position,
    /// The resolved block: as many events as the range.
    pub block: &'a Block,
    /// Hash of each event's message_id, in order.
    pub message_hashes: Vec<i64>,
    /// The dedup generation that the claims were made in.
    pub dedup_generation: i64,
}

impl ResolvedStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Commits a resolved range: the block, the index and the cursor, or nothing. Not to be repeated after success:
    /// the cursor has moved then, and the repeat says so.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::DedupGenerationBumped`], [`StoreError::CursorMoved`], or the database.
    pub async fn commit(&self, lease: &Lease, commit: &ResolvedCommit<'_>) -> Result<(), StoreError> {
        let what = attempting("commit a resolved range");
        let mut tx = self.pool.begin().await.map_err(&what)?;
        fence(&mut tx, lease).await?;
        let same = sqlx::query(
            "select 1 from delivery.dedup_generation where generation = $1 and rebuilt for share",
        )
        .bind(commit.dedup_generation)
        .fetch_optional(&mut *tx)
        .await
        .map_err(&what)?;
        if same.is_none() {
            return Err(StoreError::DedupGenerationBumped);
        }
        let workspace = lease.duty.workspace.0;
        let partition = lease.duty.partition.0.cast_signed();
        let generation = commit.first.generation.0.cast_signed();
        let base = commit.first.offset.0.cast_signed();
        let count = commit.block.header.event_count.cast_signed();
        let moved = sqlx::query(
            "update delivery.resolve_cursor set generation = $3, next_offset = $4 + $5
             where workspace_id = $1 and partition = $2
               and ((generation = $3 and next_offset = $4) or (generation < $3 and $4 = 0))",
        )
        .bind(workspace)
        .bind(partition)
        .bind(generation)
        .bind(base)
        .bind(i64::from(count))
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        if moved.rows_affected() != 1 {
            return Err(StoreError::CursorMoved);
        }
        sqlx::query(
            "insert into delivery.resolved
                 (workspace_id, partition, generation, base_offset, event_count, header, payload)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(workspace)
        .bind(partition)
        .bind(generation)
        .bind(base)
        .bind(count)
        .bind(&commit.block.header_bytes)
        .bind(&commit.block.payload)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        sqlx::query(
            "insert into delivery.message_index (workspace_id, message_hash, partition, generation, event_offset)
             select $1, h, $2, $3, $4 + n - 1 from unnest($5::bigint[]) with ordinality as u (h, n)",
        )
        .bind(workspace)
        .bind(partition)
        .bind(generation)
        .bind(base)
        .bind(&commit.message_hashes)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        // What was accepted per source and minute, from the header: connection 0, state 0.
        let counts = &commit.block.header.counts;
        sqlx::query(
            "insert into delivery.rollup as r
                 (workspace_id, connection_id, partition, minute, source_id, state, reason, events)
             select $1, 0, $2, u.m, u.s, 0, '', u.n from unnest($3::bigint[], $4::bigint[], $5::bigint[]) as u (m, s, n)
             on conflict on constraint rollup_pkey do update set events = r.events + excluded.events",
        )
        .bind(workspace)
        .bind(partition)
        .bind(counts.iter().map(|c| c.minute).collect::<Vec<_>>())
        .bind(counts.iter().map(|c| c.source_id).collect::<Vec<_>>())
        .bind(counts.iter().map(|c| i64::from(c.count)).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        tx.commit().await.map_err(&what)
    }

    /// Reads whole resolved blocks from the one that holds `from`.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn read(
        &self,
        workspace: WorkspaceId,
        from: Position,
        max_blocks: i64,
    ) -> Result<Vec<ReceivedBlock>, StoreError> {
        let what = attempting("read the resolved journal");
        let rows = sqlx::query(
            "select base_offset, header, payload from delivery.resolved
             where workspace_id = $1 and partition = $2 and generation = $3
               and base_offset > $4 - $6 and base_offset + event_count > $4
             order by base_offset limit $5",
        )
        .bind(workspace.0)
        .bind(from.partition.0.cast_signed())
        .bind(from.generation.0.cast_signed())
        .bind(from.offset.0.cast_signed())
        .bind(max_blocks)
        .bind(MAX_BLOCK_EVENTS)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        rows.iter()
            .map(|row| {
                let base: i64 = row.try_get(0).map_err(&what)?;
                let header = BlockHeader::read(row.try_get(1).map_err(&what)?)
                    .map_err(|_| StoreError::Corrupt { what: "a resolved header" })?;
                Ok(ReceivedBlock {
                    first: Position { offset: Offset(base.cast_unsigned()), ..from },
                    header,
                    payload: row.try_get(2).map_err(&what)?,
                })
            })
            .collect()
    }

    /// Resolved blocks committed since a time, oldest first, after a key: for the rebuild of claims.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn page_since(
        &self,
        since: jiff::Timestamp,
        after: Option<(i64, Position)>,
        limit: i64,
    ) -> Result<Vec<DatedBlock>, StoreError> {
        let what = attempting("read the resolved journal for a rebuild");
        let (workspace, at) = after.unwrap_or((i64::MIN, Position::new(0, 0, 0)));
        let rows = sqlx::query(
            "select workspace_id, partition, generation, base_offset, header, payload, resolved_at
             from delivery.resolved
             where resolved_at >= $1 and (workspace_id, partition, generation, base_offset) > ($2, $3, $4, $5)
             order by workspace_id, partition, generation, base_offset limit $6",
        )
        .bind(jiff_sqlx::Timestamp::from(since))
        .bind(workspace)
        .bind(if after.is_some() { at.partition.0.cast_signed() } else { -1 })
        .bind(at.generation.0.cast_signed())
        .bind(at.offset.0.cast_signed())
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        rows.iter()
            .map(|row| {
                let workspace: i64 = row.try_get(0).map_err(&what)?;
                let (partition, generation, base): (i32, i32, i64) = (
                    row.try_get(1).map_err(&what)?,
                    row.try_get(2).map_err(&what)?,
                    row.try_get(3).map_err(&what)?,
                );
                let header = BlockHeader::read(row.try_get(4).map_err(&what)?)
                    .map_err(|_| StoreError::Corrupt { what: "a resolved header" })?;
                let first = Position::new(
                    generation.cast_unsigned(),
                    partition.cast_unsigned(),
                    base.cast_unsigned(),
                );
                let block = ReceivedBlock { first, header, payload: row.try_get(5).map_err(&what)? };
                let resolved_at: jiff_sqlx::Timestamp = row.try_get(6).map_err(&what)?;
                Ok(DatedBlock {
                    workspace: WorkspaceId(workspace),
                    block,
                    resolved_at: resolved_at.to_jiff(),
                })
            })
            .collect()
    }

    /// Every position that carries a message_id, in order of acceptance within a partition.
    ///
    /// # Errors
    /// The database.
    pub async fn positions_of(
        &self,
        workspace: WorkspaceId,
        message_hash: i64,
    ) -> Result<Vec<Position>, StoreError> {
        let rows: Vec<(i32, i32, i64)> = sqlx::query_as(
            "select partition, generation, event_offset from delivery.message_index
             where workspace_id = $1 and message_hash = $2 order by generation, partition, event_offset",
        )
        .bind(workspace.0)
        .bind(message_hash)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("look a message_id up"))?;
        Ok(rows
            .into_iter()
            .map(|(p, g, o)| Position::new(g.cast_unsigned(), p.cast_unsigned(), o.cast_unsigned()))
            .collect())
    }
}

/// A resolved block of any workspace, and when it was committed.
#[derive(Debug, Clone)]
pub struct DatedBlock {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Where and what.
    pub block: ReceivedBlock,
    /// By PostgreSQL's clock.
    pub resolved_at: jiff::Timestamp,
}

/// How far resolve has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolveCursor {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The partition.
    pub partition: Partition,
    /// The generation being read.
    pub generation: Generation,
    /// The next offset to resolve.
    pub next: Offset,
}
