//! Events that replays have taken: from the ledger to the retries in one fenced transaction, and to their end with the commit of the
//! retry.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use sqlx::PgConnection;
use tracklayer_ids::{Position, WorkspaceId};

use super::ledger::{RetryRow, Settled, verdicts_at, write_late};
use super::replays::ReplayStore;
use super::sums::{Sums, rollup_key};
use super::{StoreError, attempting, fence};
use crate::lane::early::ORDER_UNKNOWN;
use crate::lease::{Duty, Lease};
use crate::ledger::{LedgerEntries, State, Verdict};
use crate::replay::{BEFORE_START, Counts};

/// An event that a replay takes.
#[derive(Debug, Clone)]
pub struct TakenEvent {
    /// What the ledger says of it until then.
    pub before: Verdict,
    /// What it says from then on: held.
    pub settled: Settled,
    /// Its retry.
    pub row: RetryRow,
}

/// What one step of a replay writes.
#[derive(Debug)]
pub struct Take<'a> {
    /// Which replay.
    pub replay: i64,
    /// Where the lane stands in it.
    pub from: Position,
    /// Where it stands then.
    pub next: Position,
    /// Whether it is done with it then.
    pub done: bool,
    /// Positions that were walked.
    pub walked: u64,
    /// What was found.
    pub counts: &'a Counts,
    /// What is taken of that.
    pub events: Vec<TakenEvent>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// It is written.
    All,
    /// The replay was cancelled: nothing is.
    Cancelled,
    /// The lane stands elsewhere in it, since an earlier try came through, or what was delivered is not any
    /// more by a verdict of its platform: nothing is.
    Moved,
}

/// What a replay is to remember of an event that it has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The state before.
    pub state: State,
    /// Its reason.
    pub reason: String,
    /// Whether it was delivered, or would have been in shadow, at any time before: then it is counted already.
    pub was_counted: bool,
}

/// How a replayed event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub position: Position,
    /// The state.
    pub state: State,
    /// Why.
    pub reason: String,
    /// Whether it was delivered before the replay: then it is counted already.
    pub was_delivered: bool,
}

/// What a replay has done with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedOnce {
    /// Which replay.
    pub replay: i64,
    /// What the ledger said before.
    pub before: (State, String),
    /// When it was taken.
    pub taken_at: jiff::Timestamp,
    /// What it said in the end, and when.
    pub ended: Option<(State, String, jiff::Timestamp)>,
}

/// Events of a lane that replays have taken and that have no end yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// All of them.
    pub all: u64,
    /// Those that do not wait for their order.
    pub not_early: u64,
    /// Those of these that are due.
    pub due: u64,
}

/// Events that stand in front of where a connection began, for whom it is to answer.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// The first of them.
    pub first: Position,
    /// How many.
    pub events: u32,
    /// They by minute of receipt and source.
    pub counts: BTreeMap<(i64, i64), i64>,
}

impl ReplayStore {
    /// Writes a step: the lane stands behind it, and what is taken is held, with a retry that is due. All or nothing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] or the database.
    pub async fn take(&self, lease: &Lease, take: &Take<'_>) -> Result<Took, StoreError> {
        let what = attempting("take what is to be replayed");
        let duty = lease.duty;
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        fence(&mut tx, lease).await?;
        // A cancellation waits for this, or is seen here.
        let runs = sqlx::query(
            "select 1 from delivery.replay
             where workspace_id = $1 and replay_id = $2 and cancelled_at is null for share",
        )
        .bind(duty.workspace.0)
        .bind(take.replay)
        .fetch_optional(&mut *tx)
        .await
        .map_err(&what)?;
        if runs.is_none() {
            return Ok(Took::Cancelled);
        }
        let moved = sqlx::query(
            "update delivery.replay_lane
             set generation = $6, next_offset = $7, walked = walked + $8, done_at = case when $9 then now() end,
                 failure = null
             where workspace_id = $1 and replay_id = $2 and partition = $3
               and generation = $4 and next_offset = $5 and done_at is null",
        )
        .bind(duty.workspace.0)
        .bind(take.replay)
        .bind(duty.partition.0.cast_signed())
        .bind(take.from.generation.0.cast_signed())
        .bind(take.from.offset.0.cast_signed())
        .bind(take.next.generation.0.cast_signed())
        .bind(take.next.offset.0.cast_signed())
        .bind(take.walked.cast_signed())
        .bind(take.done)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        if moved.rows_affected() != 1 {
            return Ok(Took::Moved);
        }
        if !stands_as_delivered(&mut tx, duty, &take.events).await? {
            return Ok(Took::Moved);
        }
        count(&mut tx, duty, take).await?;
        let settled: Vec<&Settled> = take.events.iter().map(|event| &event.settled).collect();
        write_late(&mut tx, duty, &settled).await?;
        let rows: Vec<RetryRow> = take.events.iter().map(|event| event.row.clone()).collect();
        super::retries::write(&mut tx, lease, &rows).await?;
        let mut deltas = BTreeMap::new();
        for event in &take.events {
            let (settled, before) = (&event.settled, &event.before);
            let was = (settled.minute, settled.source.0, before.state.number(), before.reason.clone());
            *deltas.entry(was).or_insert(0) -= 1;
            *deltas.entry(rollup_key(settled)).or_insert(0) += 1;
        }
        Sums::of_rollups(deltas).add(&mut tx, duty).await?;
        mark(&mut tx, duty, take).await?;
        tx.commit().await.map_err(&what)?;
        Ok(Took::All)
    }

    /// Makes a connection answer for events in front of where it began in the lane: they are filtered, `before_start`, until a replay
    /// takes one. Answers whether the lane still began there.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] or the database.
    pub async fn adopt(&self, lease: &Lease, start: Position, adopted: &Adopted) -> Result<bool, StoreError> {
        let what = attempting("answer for what was accepted before");
        let duty = lease.duty;
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        fence(&mut tx, lease).await?;
        let moved = sqlx::query(
            "update delivery.lane_cursor set start_generation = $6, start_offset = $7
             where workspace_id = $1 and connection_id = $2 and partition = $3
               and start_generation = $4 and start_offset = $5",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(start.generation.0.cast_signed())
        .bind(start.offset.0.cast_signed())
        .bind(adopted.first.generation.0.cast_signed())
        .bind(adopted.first.offset.0.cast_signed())
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        if moved.rows_affected() != 1 {
            return Ok(false);
        }
        let verdict = Verdict::of(State::Filtered, BEFORE_START);
        let entries = LedgerEntries::pack((0..adopted.events).map(|_| &verdict)).encode_to_vec();
        sqlx::query(
            "insert into delivery.ledger_block
                 (workspace_id, connection_id, partition, generation, base_offset, event_count, epoch, entries)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(adopted.first.generation.0.cast_signed())
        .bind(adopted.first.offset.0.cast_signed())
        .bind(adopted.events.cast_signed())
        .bind(lease.epoch)
        .bind(entries)
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        let filtered = State::Filtered.number();
        let deltas = adopted
            .counts
            .iter()
            .map(|((minute, source), events)| {
                ((*minute, *source, filtered, BEFORE_START.to_owned()), *events)
            })
            .collect();
        Sums::of_rollups(deltas).add(&mut tx, duty).await?;
        tx.commit().await.map_err(&what)?;
        Ok(true)
    }

    /// Ends what stands among the retries no more: a process of an earlier version has sent it, and does not know of replays.
    ///
    /// # Errors
    /// The database.
    pub async fn end_what_has_ended(&self, duty: Duty) -> Result<(), StoreError> {
        sqlx::query(
            "update delivery.replay_event e set ended_state = l.state, ended_reason = l.reason, ended_at = l.changed_at
             from delivery.ledger_late l
             where e.workspace_id = $1 and e.connection_id = $2 and e.partition = $3 and e.ended_at is null
               and l.workspace_id = $1 and l.connection_id = $2 and l.partition = $3
               and l.generation = e.generation and l.event_offset = e.event_offset
               and not exists (
                   select from delivery.retry r
                   where r.workspace_id = $1 and r.connection_id = $2 and r.partition = $3
                     and r.generation = e.generation and r.event_offset = e.event_offset)",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .execute(&self.pool)
        .await
        .map_err(attempting("end what was replayed"))?;
        Ok(())
    }

    /// How many events of a lane replays have taken that have no end yet.
    ///
    /// # Errors
    /// The database.
    pub async fn ahead(&self, duty: Duty, now: jiff::Timestamp) -> Result<Ahead, StoreError> {
        let (all, not_early, due): (i64, i64, i64) = sqlx::query_as(
            "select count(*), count(*) filter (where r.reason is distinct from $5),
                    count(*) filter (where r.next_at <= $4 and r.reason <> $5)
             from delivery.replay_event e
             left join delivery.retry r
               on r.workspace_id = $1 and r.connection_id = $2 and r.partition = $3
              and r.generation = e.generation and r.event_offset = e.event_offset
             where e.workspace_id = $1 and e.connection_id = $2 and e.partition = $3 and e.ended_at is null",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(jiff_sqlx::Timestamp::from(now))
        .bind(ORDER_UNKNOWN)
        .fetch_one(&self.pool)
        .await
        .map_err(attempting("count what is being replayed"))?;
        let [all, not_early, due] = [all, not_early, due].map(i64::cast_unsigned);
        Ok(Ahead { all, not_early, due })
    }

    /// Those of these events that a replay has taken and that have no end yet, and what they were before.
    ///
    /// # Errors
    /// The database, or a state that is none.
    pub async fn marks(
        &self,
        duty: Duty,
        positions: &[Position],
    ) -> Result<HashMap<Position, Mark>, StoreError> {
        // A replay may have ended worse than it began: each of them tells what the event was before it.
        let counted = [State::Delivered, State::Shadowed].map(State::number);
        let rows: Vec<(i32, i64, i16, String, bool)> = sqlx::query_as(
            "select e.generation, e.event_offset, e.state, e.reason,
                    exists (
                        select from delivery.replay_event c
                        where c.workspace_id = $1 and c.connection_id = $2 and c.partition = $3
                          and c.generation = e.generation and c.event_offset = e.event_offset
                          and c.state = any($6::smallint[]))
             from unnest($4::integer[], $5::bigint[]) as u (g, o)
             join delivery.replay_event e
               on e.workspace_id = $1 and e.connection_id = $2 and e.partition = $3
              and e.generation = u.g and e.event_offset = u.o
             where e.ended_at is null",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(positions.iter().map(|p| p.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(positions.iter().map(|p| p.offset.0.cast_signed()).collect::<Vec<_>>())
        .bind(counted.to_vec())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read what is being replayed"))?;
        rows.into_iter()
            .map(|(generation, offset, state, reason, was_counted)| {
                let at = Position::new(generation.cast_unsigned(), duty.partition.0, offset.cast_unsigned());
                let state =
                    State::from_number(state).ok_or(StoreError::Corrupt { what: "a replayed event" })?;
                Ok((at, Mark { state, reason, was_counted }))
            })
            .collect()
    }

    /// Every replay that has taken an event of a connection, oldest first.
    ///
    /// # Errors
    /// The database, or a state that is none.
    pub async fn of_event(
        &self,
        workspace: WorkspaceId,
        connection: i64,
        position: Position,
    ) -> Result<Vec<ReplayedOnce>, StoreError> {
        type Row = (
            i64,
            i16,
            String,
            jiff_sqlx::Timestamp,
            Option<i16>,
            Option<String>,
            Option<jiff_sqlx::Timestamp>,
        );
        let rows: Vec<Row> = sqlx::query_as(
            "select replay_id, state, reason, taken_at, ended_state, ended_reason, ended_at from delivery.replay_event
             where workspace_id = $1 and connection_id = $2 and partition = $3 and generation = $4 and event_offset = $5
             order by replay_id",
        )
        .bind(workspace.0)
        .bind(connection)
        .bind(position.partition.0.cast_signed())
        .bind(position.generation.0.cast_signed())
        .bind(position.offset.0.cast_signed())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read an event's replays"))?;
        let known =
            |number| State::from_number(number).ok_or(StoreError::Corrupt { what: "a replayed event" });
        rows.into_iter()
            .map(|(replay, state, reason, taken_at, ended_state, ended_reason, ended_at)| {
                let ended = match (ended_state, ended_at) {
                    (Some(state), Some(at)) => {
                        Some((known(state)?, ended_reason.unwrap_or_default(), at.to_jiff()))
                    }
                    _ => None,
                };
                Ok(ReplayedOnce {
                    replay,
                    before: (known(state)?, reason),
                    taken_at: taken_at.to_jiff(),
                    ended,
                })
            })
            .collect()
    }
}

/// Whether what was delivered when the page was walked is so still: only a verdict of its platform changes
/// that beside the lane.
async fn stands_as_delivered(
    tx: &mut PgConnection,
    duty: Duty,
    events: &[TakenEvent],
) -> Result<bool, StoreError> {
    let delivered: Vec<&TakenEvent> =
        events.iter().filter(|event| event.before.state == State::Delivered).collect();
    let positions: Vec<Position> = delivered.iter().map(|event| event.settled.position).collect();
    let verdicts = verdicts_at(tx, duty, &positions).await?;
    Ok(delivered.iter().all(|event| {
        let now = verdicts.get(&event.settled.position).and_then(Option::as_ref);
        now.is_some_and(|now| now.state == State::Delivered && now.reason == event.before.reason)
    }))
}

async fn count(tx: &mut PgConnection, duty: Duty, take: &Take<'_>) -> Result<(), StoreError> {
    if take.counts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into delivery.replay_count as c (workspace_id, replay_id, partition, what, reason, events)
         select $1, $2, $3, u.w, u.r, u.n from unnest($4::text[], $5::text[], $6::bigint[]) as u (w, r, n)
         on conflict on constraint replay_count_pkey do update set events = c.events + excluded.events",
    )
    .bind(duty.workspace.0)
    .bind(take.replay)
    .bind(duty.partition.0.cast_signed())
    .bind(take.counts.keys().map(|(what, _)| what.as_str()).collect::<Vec<_>>())
    .bind(take.counts.keys().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>())
    .bind(take.counts.values().map(|events| events.cast_signed()).collect::<Vec<_>>())
    .execute(tx)
    .await
    .map_err(attempting("count what was found"))?;
    Ok(())
}

/// What is taken is no dead letter any more, and its history begins.
async fn mark(tx: &mut PgConnection, duty: Duty, take: &Take<'_>) -> Result<(), StoreError> {
    if take.events.is_empty() {
        return Ok(());
    }
    let what = attempting("mark what is being replayed");
    let generations: Vec<i32> =
        take.events.iter().map(|e| e.settled.position.generation.0.cast_signed()).collect();
    let offsets: Vec<i64> = take.events.iter().map(|e| e.settled.position.offset.0.cast_signed()).collect();
    sqlx::query(
        "delete from delivery.dead_letter d using unnest($4::integer[], $5::bigint[]) as u (g, o)
         where d.workspace_id = $1 and d.connection_id = $2 and d.partition = $3
           and d.generation = u.g and d.event_offset = u.o",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(&generations)
    .bind(&offsets)
    .execute(&mut *tx)
    .await
    .map_err(&what)?;
    sqlx::query(
        "insert into delivery.replay_event
             (workspace_id, connection_id, partition, generation, event_offset, replay_id, state, reason)
         select $1, $2, $3, u.g, u.o, $4, u.s, u.r
         from unnest($5::integer[], $6::bigint[], $7::smallint[], $8::text[]) as u (g, o, s, r)",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(take.replay)
    .bind(&generations)
    .bind(&offsets)
    .bind(take.events.iter().map(|e| e.before.state.number()).collect::<Vec<_>>())
    .bind(take.events.iter().map(|e| e.before.reason.as_str()).collect::<Vec<_>>())
    .execute(&mut *tx)
    .await
    .map_err(&what)?;
    Ok(())
}

/// Writes down how replayed events ended, in the commit that ends them.
pub(super) async fn end(tx: &mut PgConnection, duty: Duty, ended: &[Ended]) -> Result<(), StoreError> {
    if ended.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update delivery.replay_event e set ended_state = u.s, ended_reason = u.r, ended_at = now()
         from unnest($4::integer[], $5::bigint[], $6::smallint[], $7::text[]) as u (g, o, s, r)
         where e.workspace_id = $1 and e.connection_id = $2 and e.partition = $3
           and e.generation = u.g and e.event_offset = u.o and e.ended_at is null",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(ended.iter().map(|e| e.position.generation.0.cast_signed()).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.position.offset.0.cast_signed()).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.state.number()).collect::<Vec<_>>())
    .bind(ended.iter().map(|e| e.reason.as_str()).collect::<Vec<_>>())
    .execute(tx)
    .await
    .map_err(attempting("end what was replayed"))?;
    Ok(())
}
