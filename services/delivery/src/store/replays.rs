//! Replays: which there are, what they select, how far they are.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};
use tracklayer_ids::{ConnectionId, Generation, Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::postgres::MAX_BLOCK_EVENTS;

use super::{StoreError, attempting};
use crate::lease::Duty;
use crate::replay::walk::Stretch;
use crate::replay::{Origin, Selection};

/// Statements on `delivery.replay` and what belongs to it.
#[derive(Debug, Clone)]
pub struct ReplayStore {
    pub(super) pool: PgPool,
}

/// A replay as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReplay {
    /// Its number.
    pub id: i64,
    /// Whose events.
    pub connection: ConnectionId,
    /// Which.
    pub selection: Selection,
    /// Who asked.
    pub asked_by: String,
    /// When.
    pub asked_at: jiff::Timestamp,
    /// Who cancelled it and when.
    pub cancelled: Option<(String, jiff::Timestamp)>,
    /// Positions that were walked, and those that there are, about.
    pub walked: (u64, u64),
    /// Lanes that are not done; none of one that was cancelled.
    pub open_lanes: u64,
    /// Why a lane's next page could not be read or judged, of the lanes that are not done.
    pub failure: Option<String>,
    /// When the last lane was.
    pub lanes_done_at: Option<jiff::Timestamp>,
}

/// What a replay has found, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Events by what was done with them, and why.
    pub counts: BTreeMap<(String, String), u64>,
    /// Taken events by the ledger's state and reason.
    pub ended: BTreeMap<(i16, String), u64>,
    /// Taken events without an end.
    pub open: u64,
    /// When the last one ended.
    pub last_ended_at: Option<jiff::Timestamp>,
}

const REPLAYS: &str =
    "select r.replay_id, r.connection_id, r.origin, r.codes, r.event_names, r.message_ids, r.received_from,
            r.received_to, r.delivered_too, r.past_dedup_window, r.before_start, r.asked_by, r.asked_at,
            r.cancelled_by, r.cancelled_at, l.walked, l.positions, l.open, l.done_at, l.failure
     from delivery.replay r
     cross join lateral (
         select coalesce(sum(walked), 0)::bigint as walked, coalesce(sum(positions), 0)::bigint as positions,
                count(*) filter (where done_at is null) as open, max(done_at) as done_at,
                max(failure) filter (where done_at is null) as failure
         from delivery.replay_lane l where l.workspace_id = r.workspace_id and l.replay_id = r.replay_id
     ) l";

impl ReplayStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The next dead letters of a lane that are selected by code and id, in the order of their positions: where they stand, and their
    /// copies.
    ///
    /// # Errors
    /// The database.
    pub async fn letters(
        &self,
        stretch: &Stretch,
        selection: &Selection,
        limit: usize,
    ) -> Result<Vec<(Position, Vec<u8>)>, StoreError> {
        let duty = stretch.duty;
        let rows: Vec<(i32, i64, Vec<u8>)> = sqlx::query_as(
            "select generation, event_offset, resolved from delivery.dead_letter
             where workspace_id = $1 and connection_id = $2 and partition = $3
               and (generation, event_offset) >= ($4, $5) and died_at <= $6
               and (cardinality($7::text[]) = 0 or code = any($7))
               and (cardinality($8::text[]) = 0 or message_id = any($8))
             order by generation, event_offset limit $9",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(stretch.next.generation.0.cast_signed())
        .bind(stretch.next.offset.0.cast_signed())
        .bind(jiff_sqlx::Timestamp::from(stretch.asked_at))
        .bind(&selection.codes)
        .bind(&selection.message_ids)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read dead letters"))?;
        let placed = |(generation, offset, bytes): (i32, i64, _)| {
            (Position::new(generation.cast_unsigned(), duty.partition.0, offset.cast_unsigned()), bytes)
        };
        Ok(rows.into_iter().map(placed).collect())
    }

    /// How many positions a replay walks in a lane, about: for people who wait.
    ///
    /// # Errors
    /// The database.
    pub async fn positions(&self, stretch: &Stretch, selection: &Selection) -> Result<u64, StoreError> {
        let duty = stretch.duty;
        let what = attempting("count what is to be replayed");
        if selection.origin == Origin::Journal {
            return self.kept_between(stretch, stretch.next, stretch.end).await;
        }
        let letters: i64 = sqlx::query_scalar(
            "select count(*) from delivery.dead_letter
             where workspace_id = $1 and connection_id = $2 and partition = $3 and died_at <= $4
               and (cardinality($5::text[]) = 0 or code = any($5))
               and (cardinality($6::text[]) = 0 or message_id = any($6))",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(jiff_sqlx::Timestamp::from(stretch.asked_at))
        .bind(&selection.codes)
        .bind(&selection.message_ids)
        .fetch_one(&self.pool)
        .await
        .map_err(what)?;
        Ok(letters.cast_unsigned())
    }

    /// Events of the lane's partition that are kept and were accepted before its connection began, if the replay leaves them out.
    ///
    /// # Errors
    /// The database.
    pub async fn kept_before_start(
        &self,
        stretch: &Stretch,
        selection: &Selection,
    ) -> Result<u64, StoreError> {
        if selection.origin == Origin::DeadLetters || selection.before_start {
            return Ok(0);
        }
        self.kept_between(stretch, Position::new(1, stretch.duty.partition.0, 0), stretch.start).await
    }

    async fn kept_between(
        &self,
        stretch: &Stretch,
        from: Position,
        until: Position,
    ) -> Result<u64, StoreError> {
        let kept: i64 = sqlx::query_scalar(
            "select coalesce(sum(case when generation = $5 then least(event_count, $6 - base_offset) else event_count end), 0)::bigint
             from delivery.resolved
             where workspace_id = $1 and partition = $2
               and (generation, base_offset) > ($3, $4 - $7) and (generation, base_offset + event_count) > ($3, $4)
               and (generation, base_offset) < ($5, $6)",
        )
        .bind(stretch.duty.workspace.0)
        .bind(stretch.duty.partition.0.cast_signed())
        .bind(from.generation.0.cast_signed())
        .bind(from.offset.0.cast_signed())
        .bind(until.generation.0.cast_signed())
        .bind(until.offset.0.cast_signed())
        .bind(MAX_BLOCK_EVENTS)
        .fetch_one(&self.pool)
        .await
        .map_err(attempting("count what is kept"))?;
        Ok(kept.cast_unsigned())
    }

    /// Writes a replay down, with what each lane has to walk and how many positions that is, about; none: so many replays of the
    /// connection are not over.
    ///
    /// # Errors
    /// The database.
    pub async fn start(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        selection: &Selection,
        asked_by: &str,
        stretches: &[(Stretch, u64)],
        most_open: u64,
    ) -> Result<Option<StoredReplay>, StoreError> {
        let what = attempting("write a replay down");
        let time = |at: Option<jiff::Timestamp>| at.map(jiff_sqlx::Timestamp::from);
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        // One at a time: two that count at once would both find room.
        sqlx::query("select pg_advisory_xact_lock(hashtextextended('delivery.replay', $1))")
            .bind(connection.0)
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        let open: i64 = sqlx::query_scalar(
            "select count(distinct l.replay_id)
             from delivery.replay_lane l
             join delivery.replay r on r.workspace_id = l.workspace_id and r.replay_id = l.replay_id
             where l.workspace_id = $1 and l.connection_id = $2 and l.done_at is null and r.cancelled_at is null",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .fetch_one(&mut *tx)
        .await
        .map_err(&what)?;
        if open.cast_unsigned() >= most_open {
            return Ok(None);
        }
        let id: i64 = sqlx::query_scalar(
            "insert into delivery.replay
                 (workspace_id, connection_id, origin, codes, event_names, message_ids, received_from, received_to,
                  delivered_too, past_dedup_window, before_start, asked_by)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) returning replay_id",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(selection.origin.as_str())
        .bind(&selection.codes)
        .bind(&selection.event_names)
        .bind(&selection.message_ids)
        .bind(time(selection.received_from))
        .bind(time(selection.received_to))
        .bind(selection.delivered_too)
        .bind(selection.past_dedup_window)
        .bind(selection.before_start)
        .bind(asked_by)
        .fetch_one(&mut *tx)
        .await
        .map_err(&what)?;
        let lanes = || stretches.iter().map(|(stretch, _)| stretch);
        sqlx::query(
            "insert into delivery.replay_lane
                 (workspace_id, replay_id, connection_id, partition, generation, next_offset, end_generation, end_offset,
                  positions)
             select $1, $2, $3, u.p, u.g, u.o, u.eg, u.eo, u.n
             from unnest($4::integer[], $5::integer[], $6::bigint[], $7::integer[], $8::bigint[], $9::bigint[])
                  as u (p, g, o, eg, eo, n)",
        )
        .bind(workspace.0)
        .bind(id)
        .bind(connection.0)
        .bind(lanes().map(|s| s.duty.partition.0.cast_signed()).collect::<Vec<_>>())
        .bind(lanes().map(|s| s.next.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(lanes().map(|s| s.next.offset.0.cast_signed()).collect::<Vec<_>>())
        .bind(lanes().map(|s| s.end.generation.0.cast_signed()).collect::<Vec<_>>())
        .bind(lanes().map(|s| s.end.offset.0.cast_signed()).collect::<Vec<_>>())
        .bind(stretches.iter().map(|(_, positions)| positions.cast_signed()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await
        .map_err(&what)?;
        tx.commit().await.map_err(&what)?;
        self.get(workspace, id).await?.map(Some).ok_or(StoreError::Corrupt { what: "a replay" })
    }

    /// Every lane that has a replay to do, ascending by replay.
    ///
    /// # Errors
    /// The database.
    pub async fn open(&self) -> Result<Vec<(Duty, i64)>, StoreError> {
        let rows: Vec<(i64, i64, i32, i64)> = sqlx::query_as(
            "select l.workspace_id, l.connection_id, l.partition, l.replay_id
             from delivery.replay_lane l
             join delivery.replay r on r.workspace_id = l.workspace_id and r.replay_id = l.replay_id
             where l.done_at is null and r.cancelled_at is null order by l.replay_id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("look what is to be replayed"))?;
        let lane = |(workspace, connection, partition, replay): (_, i64, i32, _)| {
            let partition = Partition(partition.cast_unsigned());
            (Duty { workspace: WorkspaceId(workspace), connection: connection.into(), partition }, replay)
        };
        Ok(rows.into_iter().map(lane).collect())
    }

    /// Says why the next page of a replay could not be read or judged; the page that is taken in the end forgets it.
    ///
    /// # Errors
    /// The database.
    pub async fn failed(&self, duty: Duty, replay: i64, why: &str) -> Result<(), StoreError> {
        sqlx::query(
            "update delivery.replay_lane set failure = $4
             where workspace_id = $1 and replay_id = $2 and partition = $3 and done_at is null",
        )
        .bind(duty.workspace.0)
        .bind(replay)
        .bind(duty.partition.0.cast_signed())
        .bind(why)
        .execute(&self.pool)
        .await
        .map_err(attempting("say why a replay rests"))?;
        Ok(())
    }

    /// Waits for takes of the lane that are under way though nobody hears of their end any more: afterwards they are there, or never.
    ///
    /// # Errors
    /// The database.
    pub async fn wait_for_takes(&self, duty: Duty) -> Result<(), StoreError> {
        // A take has the row before it commits; as it was before that, the lane was not done.
        sqlx::query(
            "select 1 from delivery.replay_lane
             where workspace_id = $1 and connection_id = $2 and partition = $3 and done_at is null for share",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("wait for what is being taken"))?;
        Ok(())
    }

    /// What a lane has to walk of a replay; none: nothing any more. `start` is where the connection began in the lane.
    ///
    /// # Errors
    /// The database.
    pub async fn stretch(
        &self,
        duty: Duty,
        replay: i64,
        start: Position,
    ) -> Result<Option<(Selection, Stretch)>, StoreError> {
        let Some(replay) = self.get(duty.workspace, replay).await?.filter(|r| r.cancelled.is_none()) else {
            return Ok(None);
        };
        let row: Option<(i32, i64, i32, i64)> = sqlx::query_as(
            "select generation, next_offset, end_generation, end_offset from delivery.replay_lane
             where workspace_id = $1 and replay_id = $2 and partition = $3 and done_at is null",
        )
        .bind(duty.workspace.0)
        .bind(replay.id)
        .bind(duty.partition.0.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("read how far a replay is"))?;
        let at = |generation: i32, offset: i64| Position {
            generation: Generation(generation.cast_unsigned()),
            partition: duty.partition,
            offset: Offset(offset.cast_unsigned()),
        };
        Ok(row.map(|(generation, next, end_generation, end)| {
            let stretch = Stretch {
                duty,
                start,
                next: at(generation, next),
                end: at(end_generation, end),
                asked_at: replay.asked_at,
                is_plan: false,
            };
            (replay.selection, stretch)
        }))
    }

    /// One replay.
    ///
    /// # Errors
    /// The database.
    pub async fn get(&self, workspace: WorkspaceId, id: i64) -> Result<Option<StoredReplay>, StoreError> {
        let statement = format!("{REPLAYS} where r.workspace_id = $1 and r.replay_id = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(workspace.0)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(attempting("read a replay"))?;
        row.as_ref().map(read).transpose()
    }

    /// Replays, newest first; of one connection or (0) all.
    ///
    /// # Errors
    /// The database.
    pub async fn list(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        limit: i64,
    ) -> Result<Vec<StoredReplay>, StoreError> {
        let statement = format!(
            "{REPLAYS} where r.workspace_id = $1 and ($2 = 0 or r.connection_id = $2)
             order by r.replay_id desc limit $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(workspace.0)
            .bind(connection.0)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(attempting("list replays"))?;
        rows.iter().map(read).collect()
    }

    /// Cancels a replay that is not over, and its lanes are done with it. When this has answered, nothing more is taken: whoever is
    /// about to waits for it, or is waited for.
    ///
    /// # Errors
    /// The database.
    pub async fn cancel(&self, workspace: WorkspaceId, id: i64, by: &str) -> Result<(), StoreError> {
        sqlx::query(
            "with cancelled as (
                 update delivery.replay r set cancelled_by = $3, cancelled_at = now()
                 where workspace_id = $1 and replay_id = $2 and cancelled_at is null
                   and exists (select from delivery.replay_lane l
                               where l.workspace_id = $1 and l.replay_id = $2 and l.done_at is null)
                 returning workspace_id, replay_id
             )
             update delivery.replay_lane l set done_at = now() from cancelled c
             where l.workspace_id = c.workspace_id and l.replay_id = c.replay_id and l.done_at is null",
        )
        .bind(workspace.0)
        .bind(id)
        .bind(by)
        .execute(&self.pool)
        .await
        .map_err(attempting("cancel a replay"))?;
        Ok(())
    }

    /// What a replay has found, and what became of it.
    ///
    /// # Errors
    /// The database.
    pub async fn findings(&self, workspace: WorkspaceId, id: i64) -> Result<Findings, StoreError> {
        let what = attempting("count what became of a replay");
        let counts: Vec<(String, String, i64)> = sqlx::query_as(
            "select what, reason, sum(events)::bigint from delivery.replay_count
             where workspace_id = $1 and replay_id = $2 group by what, reason",
        )
        .bind(workspace.0)
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        type Ended = (Option<i16>, Option<String>, i64, Option<jiff_sqlx::Timestamp>);
        let ended: Vec<Ended> = sqlx::query_as(
            "select ended_state, ended_reason, count(*), max(ended_at) from delivery.replay_event
             where workspace_id = $1 and replay_id = $2 group by ended_state, ended_reason",
        )
        .bind(workspace.0)
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let mut findings = Findings {
            counts: counts.into_iter().map(|(w, r, events)| ((w, r), events.cast_unsigned())).collect(),
            ..Findings::default()
        };
        for (state, reason, events, at) in ended {
            match state {
                None => findings.open += events.cast_unsigned(),
                Some(state) => {
                    findings.ended.insert((state, reason.unwrap_or_default()), events.cast_unsigned());
                }
            }
            findings.last_ended_at = findings.last_ended_at.max(at.map(jiff_sqlx::Timestamp::to_jiff));
        }
        Ok(findings)
    }
}

fn read(row: &PgRow) -> Result<StoredReplay, StoreError> {
    let what = attempting("read a replay");
    let time = |column: &str| -> Result<Option<jiff::Timestamp>, StoreError> {
        let at: Option<jiff_sqlx::Timestamp> = row.try_get(column).map_err(&what)?;
        Ok(at.map(jiff_sqlx::Timestamp::to_jiff))
    };
    let texts = |column: &str| row.try_get::<Vec<String>, _>(column).map_err(&what);
    let flag = |column: &str| row.try_get::<bool, _>(column).map_err(&what);
    let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned).map_err(&what);
    let origin: &str = row.try_get("origin").map_err(&what)?;
    let cancelled_by: Option<String> = row.try_get("cancelled_by").map_err(&what)?;
    let connection: i64 = row.try_get("connection_id").map_err(&what)?;
    Ok(StoredReplay {
        id: row.try_get("replay_id").map_err(&what)?,
        connection: connection.into(),
        selection: Selection {
            origin: Origin::parse(origin).ok_or(StoreError::Corrupt { what: "a replay" })?,
            codes: texts("codes")?,
            event_names: texts("event_names")?,
            message_ids: texts("message_ids")?,
            received_from: time("received_from")?,
            received_to: time("received_to")?,
            delivered_too: flag("delivered_too")?,
            past_dedup_window: flag("past_dedup_window")?,
            before_start: flag("before_start")?,
        },
        asked_by: row.try_get("asked_by").map_err(&what)?,
        asked_at: time("asked_at")?.unwrap_or_default(),
        cancelled: cancelled_by.zip(time("cancelled_at")?),
        walked: (number("walked")?, number("positions")?),
        open_lanes: number("open")?,
        lanes_done_at: time("done_at")?,
        failure: row.try_get("failure").map_err(&what)?,
    })
}
