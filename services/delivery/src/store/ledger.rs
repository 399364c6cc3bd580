//! The fenced commits of a lane: a range settled, or retries settled. Each is one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message as _;
use sqlx::PgConnection;
use tracklayer_ids::{ConnectionId, Position, SourceId, WorkspaceId};
use uuid::Uuid;

use super::dead_letters::Whose;
use super::index::Index;
use super::replay_events::Ended;
use super::{StoreError, attempting, fence};
use crate::lease::Lease;
use crate::ledger::{LedgerEntries, State, Verdict, latency_bucket};

/// Statements on the ledger.
#[derive(Debug, Clone)]
pub struct LedgerStore {
    /// Beside the ledger it is told what was sold.
    index: Index,
}

/// One settled event.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Where it stands.
    pub position: Position,
    /// Its source.
    pub source: SourceId,
    /// Minute of receipt.
    pub minute: i64,
    /// What became of it.
    pub verdict: Verdict,
}

/// An event that waits for another try.
#[derive(Debug, Clone)]
pub struct RetryRow {
    /// Where it stands.
    pub position: Position,
    /// Its order key.
    pub order_key: u64,
    /// Requests so far.
    pub attempts: u32,
    /// How often the platform asked to try it again later.
    pub tries: u32,
    /// How often a request with it was answered by trouble of the platform.
    pub transient_holds: u32,
    /// Not before.
    pub next_at: jiff::Timestamp,
    /// When a request first carried it.
    pub first_sent_at: Option<jiff::Timestamp>,
    /// How long it has waited for its order, holds apart; none: it does not.
    pub waited: Option<jiff::SignedDuration>,
    /// Why it waits.
    pub reason: String,
    /// Its copy.
    pub resolved: Vec<u8>,
}

/// An event that will not be delivered.
#[derive(Debug, Clone)]
pub struct DeadRow {
    /// Where it stands.
    pub position: Position,
    /// Its id.
    pub message_id: String,
    /// From the closed list, or the platform's.
    pub code: String,
    /// Field to blame.
    pub field: String,
    /// For people.
    pub detail: String,
    /// The request, masked.
    pub request: String,
    /// The answer, shortened.
    pub answer: String,
    /// Its copy.
    pub resolved: Vec<u8>,
    /// Whose it is; none: nobody has said so, and its copy has to.
    pub whose: Option<Whose>,
}

/// What one commit of a lane writes.
#[derive(Debug, Default)]
pub struct LaneCommit {
    /// The same for every try of the same commit.
    pub id: Uuid,
    /// Events that were settled, in order of position; for a range they follow each other without a hole.
    pub settled: Vec<Settled>,
    /// Those of them that wait.
    pub retries: Vec<RetryRow>,
    /// Those of them that are dead.
    pub dead: Vec<DeadRow>,
    /// Intents whose outcome is known now.
    pub intents: Vec<Uuid>,
    /// Requests that were sent.
    pub requests: u64,
    /// Changes to orders.
    pub orders: Vec<super::orders::OrderChange>,
    /// What those that were sold were matched by.
    pub match_keys: Vec<super::match_keys::SealedKey>,
    /// Those of them that a replay had taken and that end so.
    pub replayed: Vec<Ended>,
    /// Requests that the platform took and judges later.
    pub taken: Vec<super::ingest_requests::TakenRequest>,
    /// What the persons of those that went out, or would have, could be matched by.
    pub quality: Vec<super::match_quality::QualityRow>,
}

impl LedgerStore {
    /// Over the index' pool.
    #[must_use]
    pub fn new(index: Index) -> Self {
        Self { index }
    }

    /// Commits a range from `first`: ledger block, late rows, retries, dead letters, rollups, cursor. All or nothing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::CursorMoved`], or the database.
    pub async fn commit_range(
        &self,
        lease: &Lease,
        first: Position,
        commit: &LaneCommit,
    ) -> Result<(), StoreError> {
        let what = attempting("commit a lane's range");
        let mut tx = self.index.pool().begin().await.map_err(&what)?;
        fence(&mut tx, lease).await?;
        let duty = lease.duty;
        let count = i64::try_from(commit.settled.len()).unwrap_or(i64::MAX);
        let base = first.offset.0.cast_signed();
        let generation = first.generation.0.cast_signed();
        let moved = sqlx::query(
            "update delivery.lane_cursor set generation = $4, next_offset = $5 + $6
             where workspace_id = $1 and connection_id = $2 and partition = $3
               and ((generation = $4 and next_offset = $5) or (generation < $4 and $5 = 0))",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(generation)
        .bind(base)
        .bind(count)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        if moved.rows_affected() != 1 {
            return Err(StoreError::CursorMoved);
        }
        let entries = LedgerEntries::pack(commit.settled.iter().map(|s| &s.verdict)).encode_to_vec();
        sqlx::query(
            "insert into delivery.ledger_block
                 (workspace_id, connection_id, partition, generation, base_offset, event_count, epoch, entries)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(generation)
        .bind(base)
        .bind(i32::try_from(count).unwrap_or(i32::MAX))
        .bind(lease.epoch)
        .bind(entries)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        let mut deltas = BTreeMap::new();
        for settled in &commit.settled {
            *deltas.entry(rollup_key(settled)).or_insert(0i64) += 1;
        }
        let grows = write_common(&mut tx, &self.index, lease, commit, deltas, true).await?;
        tx.commit().await.map_err(&what)?;
        if grows {
            self.index.grew(duty);
        }
        Ok(())
    }

    /// Commits the outcome of retries: their rows go or move, the late rows say what became of them, rollups follow. The same
    /// commit again changes nothing: after an error it is not known whether it came through.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::CursorMoved`] if one of them waits no longer, or the database.
    pub async fn commit_retries(&self, lease: &Lease, commit: &LaneCommit) -> Result<(), StoreError> {
        let what = attempting("commit a lane's retries");
        let mut tx = self.index.pool().begin().await.map_err(&what)?;
        fence(&mut tx, lease).await?;
        let duty = lease.duty;
        let last: Option<(Option<Uuid>,)> = sqlx::query_as(
            "select last_retries from delivery.lane_cursor
             where workspace_id = $1 and connection_id = $2 and partition = $3 for no key update",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .fetch_optional(&mut *tx)
        .await
        .map_err(&what)?;
        match last {
            None => return Err(StoreError::CursorMoved),
            Some((last,)) if last == Some(commit.id) => return Ok(()),
            Some(_) => {}
        }
        sqlx::query(
            "update delivery.lane_cursor set last_retries = $4
             where workspace_id = $1 and connection_id = $2 and partition = $3",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(commit.id)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        let generations: Vec<i32> =
            commit.settled.iter().map(|s| s.position.generation.0.cast_signed()).collect();
        let offsets: Vec<i64> = commit.settled.iter().map(|s| s.position.offset.0.cast_signed()).collect();
        let before: Vec<(i32, i64, i64, i16, String)> = sqlx::query_as(
            "delete from delivery.ledger_late l using unnest($4::integer[], $5::bigint[]) as u (g, o)
             where l.workspace_id = $1 and l.connection_id = $2 and l.partition = $3
               and l.generation = u.g and l.event_offset = u.o
             returning l.generation, l.event_offset, l.source_id, l.state, l.reason",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(&generations)
        .bind(&offsets)
        .fetch_all(&mut *tx)
        .await
        .map_err(&what)?;
        sqlx::query(
            "delete from delivery.retry r using unnest($4::integer[], $5::bigint[]) as u (g, o)
             where r.workspace_id = $1 and r.connection_id = $2 and r.partition = $3
               and r.generation = u.g and r.event_offset = u.o",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(&generations)
        .bind(&offsets)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        let mut deltas = BTreeMap::new();
        for settled in &commit.settled {
            let position = settled.position;
            let was = before.iter().find(|(g, o, ..)| {
                g.cast_unsigned() == position.generation.0 && o.cast_unsigned() == position.offset.0
            });
            let Some((_, _, _, state, reason)) = was else { return Err(StoreError::CursorMoved) };
            *deltas.entry((settled.minute, settled.source.0, *state, reason.clone())).or_insert(0) -= 1;
            *deltas.entry(rollup_key(settled)).or_insert(0) += 1;
        }
        super::replay_events::end(&mut tx, duty, &commit.replayed).await?;
        let grows = write_common(&mut tx, &self.index, lease, commit, deltas, false).await?;
        tx.commit().await.map_err(&what)?;
        if grows {
            self.index.grew(duty);
        }
        Ok(())
    }

    /// The verdicts of events of one partition at a connection: of one that waits there is none, and where the ledger is not what was
    /// written it says nothing.
    ///
    /// # Errors
    /// The database.
    pub async fn verdicts(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        positions: &[Position],
    ) -> Result<HashMap<Position, Option<Verdict>>, StoreError> {
        let Some(partition) = positions.first().map(|at| at.partition) else { return Ok(HashMap::new()) };
        let what = attempting("read the ledger of several events");
        let generations: Vec<i32> = positions.iter().map(|at| at.generation.0.cast_signed()).collect();
        let offsets: Vec<i64> = positions.iter().map(|at| at.offset.0.cast_signed()).collect();
        // Each block once, however many of the events it holds.
        let rows: Vec<(i32, i64, i32, Vec<u8>)> = sqlx::query_as(
            "select b.generation, b.base_offset, b.event_count, b.entries
             from (
                 select distinct k.generation, k.base_offset
                 from unnest($4::integer[], $5::bigint[]) as u (g, o)
                 cross join lateral (
                     select generation, base_offset from delivery.ledger_block
                     where workspace_id = $1 and connection_id = $2 and partition = $3 and generation = u.g
                       and base_offset <= u.o
                     order by base_offset desc limit 1
                 ) k
             ) k
             join delivery.ledger_block b
               on b.workspace_id = $1 and b.connection_id = $2 and b.partition = $3
              and b.generation = k.generation and b.base_offset = k.base_offset",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(partition.0.cast_signed())
        .bind(&generations)
        .bind(&offsets)
        .fetch_all(self.index.pool())
        .await
        .map_err(&what)?;
        let mut blocks: BTreeMap<(u32, u64), (u64, Option<LedgerEntries>)> = BTreeMap::new();
        for (generation, base, events, bytes) in rows {
            let (base, entries) = (base.cast_unsigned(), LedgerEntries::decode(bytes.as_slice()).ok());
            blocks.insert(
                (generation.cast_unsigned(), base),
                (base + u64::from(events.cast_unsigned()), entries),
            );
        }
        let late: Vec<(i32, i64, i16, String, String, i32)> = sqlx::query_as(
            "select l.generation, l.event_offset, l.state, l.reason, l.detail, l.attempts
             from unnest($4::integer[], $5::bigint[]) as u (g, o)
             join delivery.ledger_late l
               on l.workspace_id = $1 and l.connection_id = $2 and l.partition = $3
              and l.generation = u.g and l.event_offset = u.o",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(partition.0.cast_signed())
        .bind(&generations)
        .bind(&offsets)
        .fetch_all(self.index.pool())
        .await
        .map_err(&what)?;
        let mut verdicts = HashMap::with_capacity(positions.len());
        for at in positions {
            let (generation, offset) = (at.generation.0, at.offset.0);
            let Some(((of, base), (end, entries))) = blocks.range(..=(generation, offset)).next_back() else {
                continue;
            };
            if *of == generation && offset < *end {
                let step = usize::try_from(offset - base).unwrap_or(usize::MAX);
                verdicts.insert(*at, entries.as_ref().and_then(|entries| entries.verdict(step)));
            }
        }
        for (generation, offset, state, reason, detail, attempts) in late {
            let at = Position::new(generation.cast_unsigned(), partition.0, offset.cast_unsigned());
            let Some(verdict) = verdicts.get_mut(&at) else { continue };
            let state = State::from_number(state);
            *verdict = verdict.take().zip(state).map(|(verdict, state)| Verdict {
                state,
                reason,
                detail,
                attempts: attempts.cast_unsigned(),
                ..verdict
            });
        }
        Ok(verdicts)
    }

    /// One event's verdict at a connection, and when it was committed; none while it waits.
    ///
    /// # Errors
    /// The database or corrupt bytes.
    pub async fn verdict(
        &self,
        workspace: WorkspaceId,
        connection: i64,
        position: Position,
    ) -> Result<Option<(Verdict, jiff::Timestamp)>, StoreError> {
        let what = attempting("read one event's ledger");
        let late: Option<(i16, String, String, i32, i32, jiff_sqlx::Timestamp)> = sqlx::query_as(
            "select state, reason, detail, attempts, latency_ms, changed_at from delivery.ledger_late
             where workspace_id = $1 and connection_id = $2 and partition = $3
               and generation = $4 and event_offset = $5",
        )
        .bind(workspace.0)
        .bind(connection)
        .bind(position.partition.0.cast_signed())
        .bind(position.generation.0.cast_signed())
        .bind(position.offset.0.cast_signed())
        .fetch_optional(self.index.pool())
        .await
        .map_err(&what)?;
        let block: Option<(i64, Vec<u8>, jiff_sqlx::Timestamp)> = sqlx::query_as(
            "select base_offset, entries, committed_at from delivery.ledger_block
             where workspace_id = $1 and connection_id = $2 and partition = $3 and generation = $4
               and base_offset <= $5 and base_offset + event_count > $5
             order by base_offset desc limit 1",
        )
        .bind(workspace.0)
        .bind(connection)
        .bind(position.partition.0.cast_signed())
        .bind(position.generation.0.cast_signed())
        .bind(position.offset.0.cast_signed())
        .fetch_optional(self.index.pool())
        .await
        .map_err(&what)?;
        let Some((base, bytes, committed_at)) = block else { return Ok(None) };
        let entries = LedgerEntries::decode(bytes.as_slice())
            .map_err(|_| StoreError::Corrupt { what: "a ledger block" })?;
        let step = usize::try_from(position.offset.0 - base.cast_unsigned()).unwrap_or(usize::MAX);
        let Some(mut verdict) = entries.verdict(step) else { return Ok(None) };
        let Some((state, reason, detail, attempts, latency_ms, changed_at)) = late else {
            return Ok(Some((verdict, committed_at.to_jiff())));
        };
        verdict.state = State::from_number(state).ok_or(StoreError::Corrupt { what: "a late row" })?;
        (verdict.reason, verdict.detail) = (reason, detail);
        (verdict.attempts, verdict.latency_ms) = (attempts.cast_unsigned(), latency_ms.cast_unsigned());
        Ok(Some((verdict, changed_at.to_jiff())))
    }
}

pub(super) type RollupKey = (i64, i64, i16, String);

pub(super) fn rollup_key(settled: &Settled) -> RollupKey {
    (settled.minute, settled.source.0, settled.verdict.state.number(), settled.verdict.reason.clone())
}

/// Answers whether the index has grown.
async fn write_common(
    tx: &mut PgConnection,
    index: &Index,
    lease: &Lease,
    commit: &LaneCommit,
    deltas: BTreeMap<RollupKey, i64>,
    in_range: bool,
) -> Result<bool, StoreError> {
    // In a range only what waits gets a row of its own; a retry always has one.
    let late: Vec<&Settled> =
        commit.settled.iter().filter(|s| !in_range || s.verdict.state == State::Held).collect();
    write_late(tx, lease, &late).await?;
    super::retries::write(tx, lease, &commit.retries).await?;
    super::retries::bury(tx, lease, &commit.dead).await?;
    let grows = super::orders::apply(tx, index, lease, &commit.orders).await?;
    super::match_keys::write(tx, lease, &commit.match_keys).await?;
    super::ingest_requests::write(tx, lease, &commit.taken).await?;
    super::match_quality::write(tx, lease, &commit.quality).await?;
    write_rollups(tx, lease, deltas).await?;
    write_latencies(tx, lease, commit).await?;
    settle_intents(tx, lease, commit).await?;
    Ok(grows)
}

pub(super) async fn write_late(
    tx: &mut PgConnection,
    lease: &Lease,
    late: &[&Settled],
) -> Result<(), StoreError> {
    if late.is_empty() {
        return Ok(());
    }
    let duty = lease.duty;
    sqlx::query(
        "insert into delivery.ledger_late
             (workspace_id, connection_id, partition, generation, event_offset, source_id, state, reason, detail,
              attempts, latency_ms)
         select $1, $2, $3, u.g, u.o, u.src, u.st, u.r, u.d, u.a, u.l
         from unnest($4::integer[], $5::bigint[], $6::bigint[], $7::smallint[], $8::text[], $9::text[],
                     $10::integer[], $11::integer[]) as u (g, o, src, st, r, d, a, l)
         on conflict on constraint ledger_late_pkey do update
         set state = excluded.state, reason = excluded.reason, detail = excluded.detail,
             attempts = excluded.attempts, latency_ms = excluded.latency_ms, changed_at = now()",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(late.iter().map(|s| s.position.generation.0.cast_signed()).collect::<Vec<_>>())
    .bind(late.iter().map(|s| s.position.offset.0.cast_signed()).collect::<Vec<_>>())
    .bind(late.iter().map(|s| s.source.0).collect::<Vec<_>>())
    .bind(late.iter().map(|s| s.verdict.state.number()).collect::<Vec<_>>())
    .bind(late.iter().map(|s| s.verdict.reason.as_str()).collect::<Vec<_>>())
    .bind(late.iter().map(|s| s.verdict.detail.as_str()).collect::<Vec<_>>())
    .bind(late.iter().map(|s| s.verdict.attempts.cast_signed()).collect::<Vec<_>>())
    .bind(late.iter().map(|s| s.verdict.latency_ms.cast_signed()).collect::<Vec<_>>())
    .execute(tx)
    .await
    .map_err(attempting("write late rows"))?;
    Ok(())
}

pub(super) async fn write_rollups(
    tx: &mut PgConnection,
    lease: &Lease,
    deltas: BTreeMap<RollupKey, i64>,
) -> Result<(), StoreError> {
    let deltas: Vec<(RollupKey, i64)> = deltas.into_iter().filter(|(_, delta)| *delta != 0).collect();
    if deltas.is_empty() {
        return Ok(());
    }
    let duty = lease.duty;
    sqlx::query(
        "insert into delivery.rollup as r
             (workspace_id, connection_id, partition, minute, source_id, state, reason, events)
         select $1, $2, $3, u.m, u.src, u.st, u.r, u.n
         from unnest($4::bigint[], $5::bigint[], $6::smallint[], $7::text[], $8::bigint[]) as u (m, src, st, r, n)
         on conflict on constraint rollup_pkey do update set events = r.events + excluded.events",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(deltas.iter().map(|d| d.0.0).collect::<Vec<_>>())
    .bind(deltas.iter().map(|d| d.0.1).collect::<Vec<_>>())
    .bind(deltas.iter().map(|d| d.0.2).collect::<Vec<_>>())
    .bind(deltas.iter().map(|d| d.0.3.as_str()).collect::<Vec<_>>())
    .bind(deltas.iter().map(|d| d.1).collect::<Vec<_>>())
    .execute(tx)
    .await
    .map_err(attempting("write rollups"))?;
    Ok(())
}

async fn write_latencies(
    tx: &mut PgConnection,
    lease: &Lease,
    commit: &LaneCommit,
) -> Result<(), StoreError> {
    let duty = lease.duty;
    let mut buckets: BTreeMap<i32, i64> = BTreeMap::new();
    // A repetition is no second delivery, and took as long as somebody waited to ask for it.
    let again = commit.replayed.iter().filter(|ended| ended.was_delivered);
    let again: HashSet<Position> = again.map(|ended| ended.position).collect();
    let delivered = commit.settled.iter().filter(|s| s.verdict.state == State::Delivered);
    for settled in delivered.filter(|s| !again.contains(&s.position)) {
        *buckets.entry(latency_bucket(settled.verdict.latency_ms)).or_default() += 1;
    }
    if !buckets.is_empty() {
        sqlx::query(
            "insert into delivery.latency as l (workspace_id, connection_id, partition, bucket, events)
             select $1, $2, $3, u.b, u.n from unnest($4::integer[], $5::bigint[]) as u (b, n)
             on conflict on constraint latency_pkey do update set events = l.events + excluded.events",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(buckets.keys().copied().collect::<Vec<_>>())
        .bind(buckets.values().copied().collect::<Vec<_>>())
        .execute(&mut *tx)
        .await
        .map_err(attempting("write latencies"))?;
    }
    if commit.requests > 0 {
        sqlx::query(
            "insert into delivery.request_count as c (workspace_id, connection_id, partition, requests)
             values ($1, $2, $3, $4)
             on conflict on constraint request_count_pkey do update set requests = c.requests + excluded.requests",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(commit.requests.cast_signed())
        .execute(&mut *tx)
        .await
        .map_err(attempting("count requests"))?;
    }
    Ok(())
}

async fn settle_intents(tx: &mut PgConnection, lease: &Lease, commit: &LaneCommit) -> Result<(), StoreError> {
    if commit.intents.is_empty() {
        return Ok(());
    }
    let duty = lease.duty;
    sqlx::query(
        "delete from delivery.intent
         where workspace_id = $1 and connection_id = $2 and partition = $3 and intent_id = any($4)",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(&commit.intents)
    .execute(tx)
    .await
    .map_err(attempting("settle intents"))?;
    Ok(())
}
