//! The fenced commits of a lane: a range settled, or retries settled. Each is one transaction; a range of which nothing gets a row of its
//! own is one statement.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use sqlx::{PgConnection, Row as _};
use tracklayer_ids::{ConnectionId, Position, SourceId, WorkspaceId};
use uuid::Uuid;

use super::dead_letters::Whose;
use super::index::Index;
use super::replay_events::Ended;
use super::sums::{Sums, rollup_key, with_sums};
use super::{StoreError, attempting, fence, held_lease};
use crate::lease::{Duty, Lease};
use crate::ledger::{LedgerEntries, State, Verdict};

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
    /// Sales of which the platform says that it has the order: it keeps what it has.
    pub there_before: Vec<super::orders::OrderChange>,
    /// What those that were sold were matched by.
    pub match_keys: Vec<super::match_keys::SealedKey>,
    /// Those of them that a replay had taken and that end so.
    pub replayed: Vec<Ended>,
    /// Requests that the platform took and judges later.
    pub taken: Vec<super::ingest_requests::TakenRequest>,
    /// What the persons of those that went out, or would have, could be matched by.
    pub quality: Vec<super::match_quality::QualityRow>,
}

impl LaneCommit {
    /// Whether it writes rows that are no sums, late ones apart.
    fn has_rows(&self) -> bool {
        // All of them are named: what is new here has to say on which side it is.
        let Self {
            id: _,
            settled: _,
            retries,
            dead,
            intents: _,
            requests: _,
            orders,
            there_before,
            match_keys,
            replayed: _,
            taken,
            quality: _,
        } = self;
        let has_letters = !retries.is_empty() || !dead.is_empty();
        let has_orders = !orders.is_empty() || !there_before.is_empty();
        has_letters || has_orders || !match_keys.is_empty() || !taken.is_empty()
    }
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
        // In a range only what waits gets a row of its own; a retry always has one.
        let late: Vec<&Settled> = commit.settled.iter().filter(|s| s.verdict.state == State::Held).collect();
        if late.is_empty() && !commit.has_rows() {
            // A statement by itself is a transaction: nothing has to begin and to end it.
            let mut connection = self.index.pool().acquire().await.map_err(&what)?;
            return settle_range(&mut connection, lease, first, commit).await;
        }
        let mut tx = tracklayer_postgres::begin(self.index.pool()).await.map_err(&what)?;
        settle_range(&mut tx, lease, first, commit).await?;
        let grows = write_rows(&mut tx, &self.index, lease, commit, &late).await?;
        tx.commit().await.map_err(&what)?;
        if grows {
            self.index.grew(lease.duty);
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
        let mut tx = tracklayer_postgres::begin(self.index.pool()).await.map_err(&what)?;
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
        let late: Vec<&Settled> = commit.settled.iter().collect();
        let grows = write_rows(&mut tx, &self.index, lease, commit, &late).await?;
        Sums::of(commit, deltas).add(&mut tx, duty).await?;
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
        let acquired = self.index.pool().acquire().await;
        let mut db = acquired.map_err(attempting("read the ledger of several events"))?;
        verdicts_at(&mut db, Duty { workspace, connection, partition }, positions).await
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

/// What [`LedgerStore::verdicts`] answers, as a transaction sees it; the positions are of the lane's
/// partition.
pub(super) async fn verdicts_at(
    db: &mut PgConnection,
    duty: Duty,
    positions: &[Position],
) -> Result<HashMap<Position, Option<Verdict>>, StoreError> {
    if positions.is_empty() {
        return Ok(HashMap::new());
    }
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
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(&generations)
    .bind(&offsets)
    .fetch_all(&mut *db)
    .await
    .map_err(&what)?;
    let mut blocks: BTreeMap<(u32, u64), (u64, Option<LedgerEntries>)> = BTreeMap::new();
    for (generation, base, events, bytes) in rows {
        let (base, entries) = (base.cast_unsigned(), LedgerEntries::decode(bytes.as_slice()).ok());
        blocks
            .insert((generation.cast_unsigned(), base), (base + u64::from(events.cast_unsigned()), entries));
    }
    let late: Vec<(i32, i64, i16, String, String, i32)> = sqlx::query_as(
        "select l.generation, l.event_offset, l.state, l.reason, l.detail, l.attempts
         from unnest($4::integer[], $5::bigint[]) as u (g, o)
         join delivery.ledger_late l
           on l.workspace_id = $1 and l.connection_id = $2 and l.partition = $3
          and l.generation = u.g and l.event_offset = u.o",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(&generations)
    .bind(&offsets)
    .fetch_all(&mut *db)
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
        let at = Position::new(generation.cast_unsigned(), duty.partition.0, offset.cast_unsigned());
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

/// The fence, the cursor, the block and the sums of a range in one statement; without one of the first two nothing is written.
///
/// Its parts see the same snapshot and run in no order of their own, but each takes its rows from the one before: `moved` has none
/// without `held`, and what is written has none without `moved`. So the lease is locked first and the cursor next, as in any commit.
/// A row that was changed after the snapshot is looked at again as it stands once its lock is there: a lease that was taken over in
/// between is not `held`, and a cursor that another try of this commit has moved does not move again.
const SETTLE_RANGE: &str = with_sums!(
    [
        "with held as materialized (",
        held_lease!("$22", "$27"),
        "), moved as (
         update delivery.lane_cursor c set generation = $23, next_offset = $24 + $25
         from held
         where c.workspace_id = $1 and c.connection_id = $2 and c.partition = $3
           and ((c.generation = $23 and c.next_offset = $24) or (c.generation < $23 and $24 = 0))
         returning 1
     ), block as (
         insert into delivery.ledger_block
             (workspace_id, connection_id, partition, generation, base_offset, event_count, epoch, entries)
         select $1, $2, $3, $23, $24, $25::integer, $22, $26 from moved
     )"
    ],
    "select exists (select from held), exists (select from moved)"
);

async fn settle_range(
    connection: &mut PgConnection,
    lease: &Lease,
    first: Position,
    commit: &LaneCommit,
) -> Result<(), StoreError> {
    let what = attempting("settle a lane's range");
    let mut rollups = BTreeMap::new();
    for settled in &commit.settled {
        *rollups.entry(rollup_key(settled)).or_insert(0i64) += 1;
    }
    let entries = LedgerEntries::pack(commit.settled.iter().map(|s| &s.verdict)).encode_to_vec();
    let row = Sums::of(commit, rollups)
        .bind(sqlx::query(SETTLE_RANGE), lease.duty)
        .bind(lease.epoch)
        .bind(first.generation.0.cast_signed())
        .bind(first.offset.0.cast_signed())
        .bind(i64::try_from(commit.settled.len()).unwrap_or(i64::MAX))
        .bind(entries)
        .bind(lease.history)
        .fetch_one(connection)
        .await
        .map_err(&what)?;
    let held: bool = row.try_get(0).map_err(&what)?;
    let moved: bool = row.try_get(1).map_err(&what)?;
    match (held, moved) {
        (false, _) => Err(StoreError::Fenced),
        (true, false) => Err(StoreError::CursorMoved),
        (true, true) => Ok(()),
    }
}

/// Writes what is no sum: it has rows of its own. Answers whether the index has grown.
async fn write_rows(
    tx: &mut PgConnection,
    index: &Index,
    lease: &Lease,
    commit: &LaneCommit,
    late: &[&Settled],
) -> Result<bool, StoreError> {
    write_late(tx, lease.duty, late).await?;
    super::retries::write(tx, lease, &commit.retries).await?;
    super::retries::bury(tx, lease.duty, &commit.dead).await?;
    let grows = super::orders::apply(tx, index, lease, &commit.orders, &commit.there_before).await?;
    super::match_keys::write(tx, lease, &commit.match_keys).await?;
    super::ingest_requests::write(tx, lease, &commit.taken).await?;
    Ok(grows)
}

pub(super) async fn write_late(
    tx: &mut PgConnection,
    duty: Duty,
    late: &[&Settled],
) -> Result<(), StoreError> {
    if late.is_empty() {
        return Ok(());
    }
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
