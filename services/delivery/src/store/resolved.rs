//! The resolved journal and the fenced commit that makes a row of it exist.
//!
//! Where the journal keeps resolved blocks in a log of its own, the block is appended there first, and the row holds its
//! record's number in place of the payload. What a process that has lost its lease appends is named by no row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};
use tracklayer_ids::{ConnectionId, Generation, Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::postgres::MAX_BLOCK_EVENTS;
use tracklayer_journal::{Block, BlockError, BlockHeader, Place, ReceivedBlock, Record, ResolvedLog};

use super::index::{Found, Index, NewRun};
use super::twins::{TwinCounts, TwinKey, TwinRows};
use super::{StoreError, attempting, held_lease};
use crate::lease::{Duty, Lease};
use crate::reused_ids::ReusedIds;
use crate::runs::MessageAt;

/// Statements on `delivery.resolved`, its cursor and the message index.
#[derive(Debug, Clone)]
pub struct ResolvedStore {
    pool: PgPool,
    /// By it a message_id is found.
    index: Index,
    /// Where payloads are, if not in the rows.
    log: Option<Arc<dyn ResolvedLog>>,
}

/// The places of a range in a journal that numbers records: before its first event, and behind its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where its first event stands.
    pub from: Record,
    /// Where the event after its last does.
    pub to: Record,
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
    /// How many of its events count though their message_id was used before.
    pub reused: Vec<ReusedIds>,
    /// What the twin audit counts of the duplicates among them.
    pub twins: TwinRows,
}

impl ResolvedStore {
    /// Over the service's pool, with payloads in the rows.
    #[must_use]
    pub fn new(index: Index) -> Self {
        Self::over(index, None)
    }

    /// Over the service's pool, with payloads in a log, if there is one.
    #[must_use]
    pub fn over(index: Index, log: Option<Arc<dyn ResolvedLog>>) -> Self {
        Self { pool: index.pool().clone(), index, log }
    }

    /// Most bytes that a block may have; none: any number.
    #[must_use]
    pub fn max_block_bytes(&self) -> Option<usize> {
        self.log.as_ref().map(|log| log.max_block_bytes())
    }

    /// Commits a resolved range: the block, the index and the cursor, or nothing. Not to be repeated after success:
    /// the cursor has moved then, and the repeat says so.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::DedupGenerationBumped`], [`StoreError::CursorMoved`], or the database.
    pub async fn commit(&self, lease: &Lease, commit: &ResolvedCommit<'_>) -> Result<(), StoreError> {
        self.commit_span(lease, commit, None).await
    }

    /// As [`ResolvedStore::commit`], with the places of the range where the journal numbers records.
    ///
    /// # Errors
    /// As there, and [`StoreError::Log`].
    pub async fn commit_span(
        &self,
        lease: &Lease,
        commit: &ResolvedCommit<'_>,
        span: Option<Span>,
    ) -> Result<(), StoreError> {
        let (workspace, partition) = (lease.duty.workspace, lease.duty.partition);
        let record = match &self.log {
            None => None,
            Some(log) => Some(log.append(workspace, partition, commit.block).await.map_err(|error| {
                StoreError::Log { what: "append a resolved block", source: Box::new(error) }
            })?),
        };
        let what = attempting("commit a resolved range");
        if self.index.is_read_by_all() {
            let offsets = commit.first.offset.0..;
            let messages = commit.message_hashes.iter().zip(offsets).map(|(hash, offset)| MessageAt {
                hash: *hash,
                generation: commit.first.generation,
                offset: Offset(offset),
            });
            let run = NewRun::of(messages.collect());
            // A statement by itself is a transaction: nothing has to begin and to end it.
            let mut connection = self.pool.acquire().await.map_err(&what)?;
            settle(&mut connection, lease, commit, span, record, run).await?;
            self.index.grew(lease.duty);
            return Ok(());
        }
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        settle(&mut tx, lease, commit, span, record, None).await?;
        add_rows(&mut tx, lease.duty, commit).await?;
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
            "select workspace_id, partition, generation, base_offset, header, payload, payload_record
             from delivery.resolved
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
        let mut blocks = Vec::with_capacity(rows.len());
        for row in &rows {
            let (_, block) = self.block(row).await?;
            let block = block.ok_or(StoreError::Trimmed)?;
            if blocks.is_empty() && block.first.offset > from.offset {
                return Err(StoreError::Trimmed);
            }
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// The block of a row, its payload fetched from where it is; none: it was trimmed.
    async fn block(&self, row: &PgRow) -> Result<(WorkspaceId, Option<ReceivedBlock>), StoreError> {
        let what = attempting("read a resolved row");
        let workspace = WorkspaceId(row.try_get("workspace_id").map_err(&what)?);
        let (partition, generation, base): (i32, i32, i64) = (
            row.try_get("partition").map_err(&what)?,
            row.try_get("generation").map_err(&what)?,
            row.try_get("base_offset").map_err(&what)?,
        );
        let first =
            Position::new(generation.cast_unsigned(), partition.cast_unsigned(), base.cast_unsigned());
        let header = header_of(row.try_get("header").map_err(&what)?)?;
        let kept: Option<Vec<u8>> = row.try_get("payload").map_err(&what)?;
        let record: Option<i64> = row.try_get("payload_record").map_err(&what)?;
        let payload = self.payload(workspace, first.partition, kept, record).await?;
        let block = payload.map(|payload| ReceivedBlock { first, header, payload, record: None });
        Ok((workspace, block))
    }

    /// A row's payload, fetched from where it is; none: it was trimmed.
    pub(super) async fn payload(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        kept: Option<Vec<u8>>,
        record: Option<i64>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match (kept, record, &self.log) {
            (Some(payload), _, _) => Ok(Some(payload)),
            (None, Some(record), Some(log)) => {
                let read = log.read(workspace, partition, record.cast_unsigned()).await;
                read.map(Some).map_err(|error| StoreError::Log {
                    what: "read a resolved block",
                    source: Box::new(error),
                })
            }
            (None, Some(_), None) => Err(StoreError::OtherJournal),
            (None, None, _) => Ok(None),
        }
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Resolved blocks of a partition that were committed since a time, oldest first, after a position: for the rebuild of
    /// claims. Days that ended before that time are not looked at.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn blocks_since(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        since: jiff::Timestamp,
        after: Option<Position>,
        limit: i64,
    ) -> Result<Vec<DatedBlock>, StoreError> {
        let what = attempting("read the resolved journal for a rebuild");
        let rows = sqlx::query(
            "select workspace_id, partition, generation, base_offset, header, payload, payload_record, resolved_at
             from delivery.resolved
             where workspace_id = $1 and partition = $2 and (generation, base_offset) > ($3, $4)
               and resolved_on >= ($5 at time zone 'utc')::date and resolved_at >= $5
               and (payload is not null or payload_record is not null)
             order by generation, base_offset limit $6",
        )
        .bind(workspace.0)
        .bind(partition.0.cast_signed())
        .bind(after.map_or(0, |at| at.generation.0.cast_signed()))
        .bind(after.map_or(-1, |at| at.offset.0.cast_signed()))
        .bind(jiff_sqlx::Timestamp::from(since))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let mut dated = Vec::with_capacity(rows.len());
        for row in &rows {
            let resolved_at: jiff_sqlx::Timestamp = row.try_get("resolved_at").map_err(&what)?;
            if let (workspace, Some(block)) = self.block(row).await? {
                dated.push(DatedBlock { workspace, block, resolved_at: resolved_at.to_jiff() });
            }
        }
        Ok(dated)
    }

    /// Where an event was received that is resolved, in a journal that numbers records; none: it is not resolved, or the
    /// journal numbers events.
    ///
    /// # Errors
    /// The database.
    pub async fn received_place(
        &self,
        workspace: WorkspaceId,
        position: Position,
    ) -> Result<Option<Place>, StoreError> {
        let row: Option<(i64, Option<i64>, Option<i32>)> = sqlx::query_as(
            "select base_offset, from_offset, from_step from delivery.resolved
             where workspace_id = $1 and partition = $2 and generation = $3
               and base_offset > $4 - $5 and base_offset <= $4 and base_offset + event_count > $4",
        )
        .bind(workspace.0)
        .bind(position.partition.0.cast_signed())
        .bind(position.generation.0.cast_signed())
        .bind(position.offset.0.cast_signed())
        .bind(MAX_BLOCK_EVENTS)
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("find where an event was received"))?;
        let Some((base, Some(offset), Some(step))) = row else { return Ok(None) };
        Ok(Some(Place {
            at: Position { offset: Offset(base.cast_unsigned()), ..position },
            record: Some(record(offset, step, None)),
        }))
    }

    /// The newest places up to which a partition was read, newest first: by them a log that was changed is known again.
    ///
    /// # Errors
    /// The database.
    pub async fn known_records(
        &self,
        workspace: WorkspaceId,
        partition: Partition,
        limit: i64,
    ) -> Result<Vec<Record>, StoreError> {
        let rows: Vec<(i64, i32, Option<i64>)> = sqlx::query_as(
            "select record_offset, record_step, record_mark from delivery.resolved
             where workspace_id = $1 and partition = $2 and record_offset is not null
             order by generation desc, base_offset desc limit $3",
        )
        .bind(workspace.0)
        .bind(partition.0.cast_signed())
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read how far a log was known"))?;
        Ok(rows.into_iter().map(|(offset, step, mark)| record(offset, step, mark)).collect())
    }

    /// Gives back the room of a partition's blocks before a position that were resolved before a time, where they are kept in
    /// a log: the rows forget their records, then the log does. Their headers stay.
    ///
    /// # Errors
    /// The database, or the log: what was not trimmed now is by a later call.
    pub async fn trim(
        &self,
        workspace: WorkspaceId,
        before: Position,
        resolved_before: jiff::Timestamp,
    ) -> Result<(), StoreError> {
        let Some(log) = &self.log else { return Ok(()) };
        let what = attempting("forget resolved blocks");
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        sqlx::query(
            "update delivery.resolved set payload_record = null
             where workspace_id = $1 and partition = $2 and payload_record is not null and resolved_at < $5
               and (generation, base_offset + event_count) <= ($3, $4)",
        )
        .bind(workspace.0)
        .bind(before.partition.0.cast_signed())
        .bind(before.generation.0.cast_signed())
        .bind(before.offset.0.cast_signed())
        .bind(jiff_sqlx::Timestamp::from(resolved_before))
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        let (first_kept,): (Option<i64>,) = sqlx::query_as(
            "select min(payload_record) from delivery.resolved where workspace_id = $1 and partition = $2",
        )
        .bind(workspace.0)
        .bind(before.partition.0.cast_signed())
        .fetch_one(&mut *tx)
        .await
        .map_err(&what)?;
        tx.commit().await.map_err(&what)?;
        // Nothing kept says nothing of what is on its way: the next one tells.
        let Some(first_kept) = first_kept else { return Ok(()) };
        let trimmed = log.trim(workspace, before.partition, first_kept.cast_unsigned()).await;
        trimmed.map_err(|error| StoreError::Log { what: "trim resolved blocks", source: Box::new(error) })
    }

    /// Which of these (message_id's hash, position) can never be resolved any more: their generation has ended before them.
    ///
    /// # Errors
    /// The database.
    pub async fn void(
        &self,
        workspace: WorkspaceId,
        claimed: &[(i64, Position)],
    ) -> Result<Vec<bool>, StoreError> {
        // Only a generation that has ended has what is never resolved. Where it ended because a log was lost, that is written down.
        let ended: Vec<(bool, Option<i64>)> = sqlx::query_as(
            "select coalesce(c.generation > u.g, false), e.next_offset
             from unnest($2::integer[], $3::integer[]) with ordinality as u (p, g, n)
             left join delivery.resolve_cursor c on c.workspace_id = $1 and c.partition = u.p
             left join delivery.ended_generation e
                 on e.workspace_id = $1 and e.partition = u.p and e.generation = u.g
             order by u.n",
        )
        .bind(workspace.0)
        .bind(claimed.iter().map(|c| c.1.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(claimed.iter().map(|c| c.1.generation.0.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("look whether a claim is void"))?;
        let mut void: Vec<bool> = claimed
            .iter()
            .zip(&ended)
            .map(|((_, at), (ended, end))| *ended && end.is_none_or(|end| at.offset.0 >= end.cast_unsigned()))
            .collect();
        let ends_unknown = ended.iter().map(|(ended, end)| *ended && end.is_none());
        let to_find: Vec<usize> =
            (0..).zip(ends_unknown).filter(|(_, unknown)| *unknown).map(|(n, _)| n).collect();
        if to_find.is_empty() {
            return Ok(void);
        }
        let asked: HashSet<(i64, Position)> = to_find.iter().map(|n| claimed[*n]).collect();
        let hashes: Vec<i64> = asked.iter().map(|(hash, _)| *hash).collect();
        let resolved = self.indexed(workspace, &hashes, |at| asked.contains(at)).await?;
        let resolved: HashSet<(i64, Position)> = resolved.into_iter().collect();
        for n in to_find {
            void[n] = !resolved.contains(&claimed[n]);
        }
        Ok(void)
    }

    /// Up to where each partition is resolved.
    ///
    /// # Errors
    /// The database.
    pub async fn committed(&self) -> Result<HashMap<(WorkspaceId, Partition), Position>, StoreError> {
        let rows: Vec<(i64, i32, i32, i64)> = sqlx::query_as(
            "select workspace_id, partition, generation, next_offset from delivery.resolve_cursor",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read how far everything is resolved"))?;
        let ends = rows.into_iter().map(|(workspace, partition, generation, next)| {
            let end =
                Position::new(generation.cast_unsigned(), partition.cast_unsigned(), next.cast_unsigned());
            ((WorkspaceId(workspace), end.partition), end)
        });
        Ok(ends.collect())
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
        let found = self.indexed(workspace, &[message_hash], |_| true).await?;
        let mut positions: Vec<Position> = found.into_iter().map(|(_, position)| position).collect();
        positions.sort_by_key(|at| (at.generation, at.partition, at.offset));
        Ok(positions)
    }

    /// Every position that carries one of these message_ids, in no order.
    ///
    /// # Errors
    /// The database.
    pub async fn positions_of_all(
        &self,
        workspace: WorkspaceId,
        message_hashes: &[i64],
    ) -> Result<Vec<Position>, StoreError> {
        let found = self.indexed(workspace, message_hashes, |_| true).await?;
        Ok(found.into_iter().map(|(_, position)| position).collect())
    }

    /// What the headers of a partition's blocks say, from the one that holds a position, or the first behind it.
    ///
    /// # Errors
    /// The database, or [`StoreError::Newer`].
    pub async fn outlines(
        &self,
        workspace: WorkspaceId,
        from: Position,
        limit: i64,
    ) -> Result<Vec<Outline>, StoreError> {
        let what = attempting("read headers of the resolved journal");
        // Twice the same bound: the first is one that the index knows.
        let rows: Vec<OutlineRow> = sqlx::query_as(
            "select generation, base_offset, event_count, header, payload is not null or payload_record is not null
             from delivery.resolved
             where workspace_id = $1 and partition = $2 and (generation, base_offset) > ($3, $4 - $5)
               and (generation, base_offset + event_count) > ($3, $4)
             order by generation, base_offset limit $6",
        )
        .bind(workspace.0)
        .bind(from.partition.0.cast_signed())
        .bind(from.generation.0.cast_signed())
        .bind(from.offset.0.cast_signed())
        .bind(MAX_BLOCK_EVENTS)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        rows.into_iter().map(|row| Outline::read(from.partition, row)).collect()
    }

    /// What the header of the block says that stands directly before a position, or in which the position is; none: there is none.
    ///
    /// # Errors
    /// The database, or [`StoreError::Newer`].
    pub async fn outline_before(
        &self,
        workspace: WorkspaceId,
        before: Position,
    ) -> Result<Option<Outline>, StoreError> {
        let row: Option<OutlineRow> = sqlx::query_as(
            "select generation, base_offset, event_count, header, payload is not null or payload_record is not null
             from delivery.resolved
             where workspace_id = $1 and partition = $2 and (generation, base_offset) < ($3, $4)
             order by generation desc, base_offset desc limit 1",
        )
        .bind(workspace.0)
        .bind(before.partition.0.cast_signed())
        .bind(before.generation.0.cast_signed())
        .bind(before.offset.0.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("read a header of the resolved journal"))?;
        row.map(|row| Outline::read(before.partition, row)).transpose()
    }

    /// Every position of these hashes that is wanted, in the index or in a row of its own.
    async fn indexed(
        &self,
        workspace: WorkspaceId,
        hashes: &[i64],
        wanted: impl Fn(&(i64, Position)) -> bool,
    ) -> Result<Vec<(i64, Position)>, StoreError> {
        let what = attempting("look a message_id up");
        let mut connection = self.pool.acquire().await.map_err(&what)?;
        let mut found = Vec::new();
        let mut rows = sqlx::query_as(
            "select message_hash, partition, generation, event_offset from delivery.message_index
             where workspace_id = $1 and message_hash = any($2)",
        )
        .bind(workspace.0)
        .bind(hashes)
        .fetch(&mut *connection);
        while let Some((hash, p, g, o)) = rows.try_next().await.map_err(&what)? {
            let (p, g, o): (i32, i32, i64) = (p, g, o);
            found.push((hash, Position::new(g.cast_unsigned(), p.cast_unsigned(), o.cast_unsigned())));
            if !found.last().is_some_and(&wanted) {
                found.pop();
            }
        }
        drop(rows);
        let place = |found: &Found<MessageAt>| {
            let MessageAt { hash, generation, offset } = found.record;
            (hash, Position { generation, partition: found.partition, offset })
        };
        let of = (workspace, ConnectionId(0));
        let in_runs = self.index.find(&mut connection, of, hashes, |found| wanted(&place(found))).await?;
        found.extend(in_runs.iter().map(place));
        Ok(found)
    }
}

/// A resolved range in one statement: the fence, the dedup generation, the cursor, the block, the run of the index, what was accepted,
/// whose message_ids were used before, and what were twins. Without one of the first three nothing is written.
///
/// Its parts see the same snapshot and run in no order of their own, but each of the first three takes its rows from the one before, and
/// what is written takes them from `moved`: locks are taken in this order. What was changed after the snapshot is looked at again as it
/// stands once its lock is there, so that neither a lease that was taken over in between is held, nor a generation that was bumped
/// the same.
const SETTLE: &str = concat!(
    "with held as materialized (",
    held_lease!("$4", "$24"),
    "), same as materialized (
        select 1 from held, delivery.dedup_generation d where d.generation = $5 and d.rebuilt for share of d
    ), moved as (
        update delivery.resolve_cursor c
        set generation = $6, next_offset = $7 + $8, record_offset = $9, record_step = $10, record_mark = $11
        from same
        where c.workspace_id = $1 and c.partition = $3
          and ((c.generation = $6 and c.next_offset = $7) or (c.generation < $6 and $7 = 0))
        returning 1
    ), block as (
        insert into delivery.resolved
            (workspace_id, partition, generation, base_offset, event_count, header, payload, payload_record,
             from_offset, from_step, record_offset, record_step, record_mark)
        select $1, $3, $6, $7, $8, $12, $13, $14, $15, $16, $9, $10, $11 from moved
    ), run as (
        -- Its number is drawn under the lock of the cursor: the newer of two runs has the higher one.
        insert into delivery.index_run
            (workspace_id, connection_id, partition, level, run, segment, first_hash, last_hash, records, body)
        select $1, $2, $3, 0, nextval('delivery.index_run_number'), 0, $17, $18, $19, $20
        from moved where $20 is not null
    ), accepted as (
        -- Per source and minute, from the header: connection 0, state 0.
        insert into delivery.rollup as r
            (workspace_id, connection_id, partition, minute, source_id, state, reason, events)
        select $1, 0, $3, u.m, u.s, 0, '', u.n
        from moved, unnest($21::bigint[], $22::bigint[], $23::bigint[]) as u (m, s, n)
        on conflict on constraint rollup_pkey do update set events = r.events + excluded.events
    ), reused as (
        insert into delivery.reused_id as r (workspace_id, hour, partition, source_id, cause, events)
        select $1, u.h, $3, u.s, u.c, u.n
        from moved, unnest($25::bigint[], $26::bigint[], $27::smallint[], $28::bigint[]) as u (h, s, c, n)
        on conflict on constraint reused_id_pkey do update set events = r.events + excluded.events
    ), twins as (
        insert into delivery.twin_count as t
            (workspace_id, partition, minute, first_source_id, second_source_id, by_order, copies, twins, first_twins)
        select $1, $3, u.m, u.f, u.s, u.o, u.c, u.t, u.n
        from moved, unnest($29::bigint[], $30::bigint[], $31::bigint[], $32::boolean[], $33::bigint[], $34::bigint[],
            $35::bigint[]) as u (m, f, s, o, c, t, n)
        on conflict on constraint twin_count_pkey do update
        set copies = t.copies + excluded.copies, twins = t.twins + excluded.twins,
            first_twins = t.first_twins + excluded.first_twins
    )
    select exists (select from held), exists (select from same), exists (select from moved)"
);

async fn settle(
    connection: &mut PgConnection,
    lease: &Lease,
    commit: &ResolvedCommit<'_>,
    span: Option<Span>,
    record: Option<u64>,
    run: Option<NewRun>,
) -> Result<(), StoreError> {
    let what = attempting("settle a resolved range");
    let counts = &commit.block.header.counts;
    let (from, to) = (span.map(|span| span.from), span.map(|span| span.to));
    let of_twins = |of: fn(&TwinKey) -> i64| commit.twins.keys().map(of).collect::<Vec<_>>();
    let twins = |of: fn(&TwinCounts) -> u64| -> Vec<i64> {
        commit.twins.values().map(|counts| of(counts).cast_signed()).collect()
    };
    let row = sqlx::query(SETTLE)
        .bind(lease.duty.workspace.0)
        .bind(lease.duty.connection.0)
        .bind(lease.duty.partition.0.cast_signed())
        .bind(lease.epoch)
        .bind(commit.dedup_generation)
        .bind(commit.first.generation.0.cast_signed())
        .bind(commit.first.offset.0.cast_signed())
        .bind(commit.block.header.event_count.cast_signed())
        .bind(to.map(|to| to.offset.cast_signed()))
        .bind(to.map(|to| to.step.cast_signed()))
        .bind(to.and_then(|to| to.mark))
        .bind(&commit.block.header_bytes)
        .bind(record.is_none().then_some(&commit.block.payload))
        .bind(record.map(u64::cast_signed))
        .bind(from.map(|from| from.offset.cast_signed()))
        .bind(from.map(|from| from.step.cast_signed()))
        .bind(run.as_ref().map(|run| run.first_hash))
        .bind(run.as_ref().map(|run| run.last_hash))
        .bind(run.as_ref().map(|run| run.records))
        .bind(run.as_ref().map(|run| run.body.as_slice()))
        .bind(counts.iter().map(|c| c.minute).collect::<Vec<_>>())
        .bind(counts.iter().map(|c| c.source_id).collect::<Vec<_>>())
        .bind(counts.iter().map(|c| i64::from(c.count)).collect::<Vec<_>>())
        .bind(lease.history)
        .bind(commit.reused.iter().map(|r| r.hour).collect::<Vec<_>>())
        .bind(commit.reused.iter().map(|r| r.source.0).collect::<Vec<_>>())
        .bind(commit.reused.iter().map(|r| r.reuse.number()).collect::<Vec<_>>())
        .bind(commit.reused.iter().map(|r| r.events.cast_signed()).collect::<Vec<_>>())
        .bind(of_twins(|key| key.minute))
        .bind(of_twins(|key| key.first.0))
        .bind(of_twins(|key| key.second.0))
        .bind(commit.twins.keys().map(|key| key.by_order).collect::<Vec<_>>())
        .bind(twins(|counts| counts.copies))
        .bind(twins(|counts| counts.twins))
        .bind(twins(|counts| counts.first_twins))
        .fetch_one(connection)
        .await
        .map_err(&what)?;
    let held: bool = row.try_get(0).map_err(&what)?;
    let same: bool = row.try_get(1).map_err(&what)?;
    let moved: bool = row.try_get(2).map_err(&what)?;
    match (held, same, moved) {
        (false, _, _) => Err(StoreError::Fenced),
        (true, false, _) => Err(StoreError::DedupGenerationBumped),
        (true, true, false) => Err(StoreError::CursorMoved),
        (true, true, true) => Ok(()),
    }
}

/// A row for each event, as long as a process is there that does not read the index.
async fn add_rows(tx: &mut PgConnection, duty: Duty, commit: &ResolvedCommit<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "insert into delivery.message_index (workspace_id, message_hash, partition, generation, event_offset)
         select $1, h, $2, $3, $4 + n - 1 from unnest($5::bigint[]) with ordinality as u (h, n)",
    )
    .bind(duty.workspace.0)
    .bind(duty.partition.0.cast_signed())
    .bind(commit.first.generation.0.cast_signed())
    .bind(commit.first.offset.0.cast_signed())
    .bind(&commit.message_hashes)
    .execute(tx)
    .await
    .map_err(attempting("index message_ids"))?;
    Ok(())
}

fn header_of(bytes: &[u8]) -> Result<BlockHeader, StoreError> {
    BlockHeader::read(bytes).map_err(|error| match error {
        BlockError::FeatureLevel { needed, supported } => StoreError::Newer { needed, supported },
        _ => StoreError::Corrupt { what: "a resolved header" },
    })
}

/// A place from its columns.
pub(super) fn record(offset: i64, step: i32, mark: Option<i64>) -> Record {
    Record { offset: offset.cast_unsigned(), step: step.cast_unsigned(), mark }
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

/// Generation, base, events, header, and whether the payload is kept.
type OutlineRow = (i32, i64, i32, Vec<u8>, bool);

/// What the header of a resolved block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Position of its first event.
    pub first: Position,
    /// Events in it.
    pub events: u32,
    /// Whether the journal still has them.
    pub is_kept: bool,
    /// Whether the header is what was written: else nothing is known of its events.
    pub is_readable: bool,
    /// The first minute in which one of them was received, since the Unix epoch.
    pub first_minute: i64,
    /// The last one.
    pub last_minute: i64,
    /// Events by minute and source.
    pub counts: Vec<(i64, i64, i64)>,
}

impl Outline {
    fn read(
        partition: Partition,
        (generation, base, events, header, is_kept): OutlineRow,
    ) -> Result<Self, StoreError> {
        let header = match header_of(&header) {
            // It must not stop whoever walks.
            Err(StoreError::Corrupt { .. }) => None,
            header => Some(header?),
        };
        let counts = || header.iter().flat_map(|header| &header.counts);
        let minutes = || counts().map(|count| count.minute);
        Ok(Self {
            first: Position::new(generation.cast_unsigned(), partition.0, base.cast_unsigned()),
            events: events.cast_unsigned(),
            is_kept,
            is_readable: header.is_some(),
            // Of one that does not say it anything may be in it.
            first_minute: minutes().min().unwrap_or(i64::MIN),
            last_minute: minutes().max().unwrap_or(i64::MAX),
            counts: counts().map(|c| (c.minute, c.source_id, i64::from(c.count))).collect(),
        })
    }

    /// The position after its last event.
    #[must_use]
    pub fn end(&self) -> Position {
        Position { offset: Offset(self.first.offset.0 + u64::from(self.events)), ..self.first }
    }
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
