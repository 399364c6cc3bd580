//! Retries and dead letters: rows of their own, with their own copy of the event.

use jiff::SignedDuration;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use tracklayer_ids::{Generation, Position, WorkspaceId};

use super::ledger::{DeadRow, RetryRow};
use super::{StoreError, attempting};
use crate::lease::{Duty, Lease};

/// Reads of retries and dead letters.
#[derive(Debug, Clone)]
pub struct RetryStore {
    pool: PgPool,
}

/// What waits for a retry, as far as a forecast needs it.
#[derive(Debug, Clone)]
pub struct HeldRetry {
    /// Where it stands.
    pub position: Position,
    /// When a request first carried it and its outcome stayed unknown.
    pub first_sent_at: Option<jiff::Timestamp>,
    /// The stored bytes.
    pub resolved: Vec<u8>,
}

/// A dead letter as listed.
#[derive(Debug, Clone)]
pub struct ListedLetter {
    /// The connection.
    pub connection: i64,
    /// The letter.
    pub letter: DeadRow,
    /// When it died.
    pub died_at: jiff::Timestamp,
}

pub(super) async fn write(tx: &mut PgConnection, lease: &Lease, rows: &[RetryRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let duty = lease.duty;
    let first_sent: Vec<Option<jiff_sqlx::Timestamp>> =
        rows.iter().map(|r| r.first_sent_at.map(Into::into)).collect();
    let next_at: Vec<jiff_sqlx::Timestamp> = rows.iter().map(|r| r.next_at.into()).collect();
    let milliseconds = |waited: SignedDuration| i64::try_from(waited.as_millis()).unwrap_or(i64::MAX);
    let waited: Vec<Option<i64>> = rows.iter().map(|r| r.waited.map(milliseconds)).collect();
    sqlx::query(
        "insert into delivery.retry
             (workspace_id, connection_id, partition, generation, event_offset, order_key, attempts, next_at,
              first_sent_at, reason, resolved, tries, transient_holds, waited_ms)
         select $1, $2, $3, u.g, u.o, u.k, u.a, u.n, u.f, u.r, u.e, u.t, u.h, u.w
         from unnest($4::integer[], $5::bigint[], $6::bigint[], $7::integer[], $8::timestamptz[],
                     $9::timestamptz[], $10::text[], $11::bytea[], $12::integer[], $13::integer[],
                     $14::bigint[])
              as u (g, o, k, a, n, f, r, e, t, h, w)",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(rows.iter().map(|r| r.position.generation.0.cast_signed()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.position.offset.0.cast_signed()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.order_key.cast_signed()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.attempts.cast_signed()).collect::<Vec<_>>())
    .bind(next_at)
    .bind(first_sent)
    .bind(rows.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.resolved.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.tries.cast_signed()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.transient_holds.cast_signed()).collect::<Vec<_>>())
    .bind(waited)
    .execute(tx)
    .await
    .map_err(attempting("write retries"))?;
    Ok(())
}

pub(super) async fn bury(tx: &mut PgConnection, duty: Duty, rows: &[DeadRow]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let whose = super::dead_letters::columns(tx, duty.workspace, rows).await?;
    sqlx::query(
        "insert into delivery.dead_letter
             (workspace_id, connection_id, partition, generation, event_offset, message_id, code, field, detail,
              request, answer, resolved, subject_keys)
         select $1, $2, $3, u.g, u.o, u.m, u.c, u.f, u.d, u.q, u.a, u.e,
                case when u.w then coalesce(subject.keys, '{}') end
         from unnest($4::integer[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                     $11::text[], $12::bytea[], $13::boolean[])
              with ordinality as u (g, o, m, c, f, d, q, a, e, w, place)
         left join (
             select s.place, array_agg(s.key) as keys from unnest($14::bigint[], $15::bytea[]) as s (place, key)
             group by s.place
         ) subject using (place)
         on conflict on constraint dead_letter_pkey do nothing",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .bind(rows.iter().map(|r| r.position.generation.0.cast_signed()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.position.offset.0.cast_signed()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.message_id.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.code.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.field.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.detail.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.request.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.answer.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.resolved.as_slice()).collect::<Vec<_>>())
    .bind(whose.filed)
    .bind(whose.places)
    .bind(whose.keys)
    .execute(tx)
    .await
    .map_err(attempting("write dead letters"))?;
    Ok(())
}

impl RetryStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The first of what waits for a retry in a lane, in order, each with when a request first carried it and its outcome stayed
    /// unknown; and how many there are in all.
    ///
    /// # Errors
    /// The database.
    pub async fn first_of(&self, duty: Duty, limit: i64) -> Result<(Vec<HeldRetry>, u64), StoreError> {
        let what = attempting("read what waits for a retry");
        let rows: Vec<(i32, i64, Option<jiff_sqlx::Timestamp>, Vec<u8>)> = sqlx::query_as(
            "select generation, event_offset, first_sent_at, resolved from delivery.retry
             where workspace_id = $1 and connection_id = $2 and partition = $3
             order by generation, event_offset limit $4",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        let all: i64 = sqlx::query_scalar(
            "select count(*) from delivery.retry where workspace_id = $1 and connection_id = $2 and partition = $3",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .fetch_one(&self.pool)
        .await
        .map_err(&what)?;
        let held =
            |(generation, offset, since, resolved): (i32, i64, Option<jiff_sqlx::Timestamp>, _)| HeldRetry {
                position: Position::new(generation.cast_unsigned(), duty.partition.0, offset.cast_unsigned()),
                first_sent_at: since.map(jiff_sqlx::Timestamp::to_jiff),
                resolved,
            };
        Ok((rows.into_iter().map(held).collect(), all.cast_unsigned()))
    }

    /// Retries that are due and have no earlier one of their key before them, in order. Of a visitor whose partition a layout has
    /// changed an earlier one may wait in another lane of the connection, from a generation before; in the first generation, `newest`
    /// being where the lane stands, there is none to look for.
    ///
    /// # Errors
    /// The database.
    pub async fn due(
        &self,
        duty: Duty,
        now: jiff::Timestamp,
        limit: i64,
        newest: Generation,
    ) -> Result<Vec<RetryRow>, StoreError> {
        let what = attempting("read due retries");
        // The keys first, from the index alone; only then the few copies that are taken.
        let rows = sqlx::query(
            "select r.generation, r.event_offset, r.order_key, r.attempts, r.tries, r.transient_holds, r.next_at,
                    r.first_sent_at, r.reason, r.resolved, r.waited_ms
             from (
                 select generation, event_offset from (
                     select distinct on (order_key) order_key, generation, event_offset, next_at from delivery.retry
                     where workspace_id = $1 and connection_id = $2 and partition = $3
                     order by order_key, generation, event_offset
                 ) earliest
                 left join (
                     select order_key, min(generation) as first from delivery.retry
                     where $6 > 1 and workspace_id = $1 and connection_id = $2 and partition <> $3
                     group by order_key
                 ) elsewhere using (order_key)
                 where next_at <= $4 and generation <= coalesce(elsewhere.first, generation)
                 order by generation, event_offset limit $5
             ) d
             join delivery.retry r
               on r.workspace_id = $1 and r.connection_id = $2 and r.partition = $3
              and r.generation = d.generation and r.event_offset = d.event_offset
             order by r.generation, r.event_offset",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(jiff_sqlx::Timestamp::from(now))
        .bind(limit)
        .bind(newest.0.cast_signed())
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        rows.iter().map(|row| read_row(row, duty)).collect::<Result<_, _>>().map_err(what)
    }

    /// Those of these retries that there still are, in order, whenever they are due.
    ///
    /// # Errors
    /// The database.
    pub async fn at(
        &self,
        duty: Duty,
        generation: Generation,
        offsets: &[u64],
    ) -> Result<Vec<RetryRow>, StoreError> {
        let what = attempting("read retries of a write");
        let rows = sqlx::query(
            "select generation, event_offset, order_key, attempts, tries, transient_holds, next_at, first_sent_at,
                    reason, resolved, waited_ms
             from delivery.retry
             where workspace_id = $1 and connection_id = $2 and partition = $3 and generation = $4
               and event_offset = any($5)
             order by event_offset",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(generation.0.cast_signed())
        .bind(offsets.iter().map(|o| o.cast_signed()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        rows.iter().map(|row| read_row(row, duty)).collect::<Result<_, _>>().map_err(what)
    }

    /// The order keys that have something waiting, when the earliest event of each is due (what stands behind it waits for it,
    /// whatever its own time), and how many there are.
    ///
    /// # Errors
    /// The database.
    pub async fn waiting_keys(&self, duty: Duty) -> Result<Vec<(u64, jiff::Timestamp, u64)>, StoreError> {
        let rows: Vec<(i64, jiff_sqlx::Timestamp, i64)> = sqlx::query_as(
            "select distinct on (order_key) order_key, next_at, count(*) over (partition by order_key)
             from delivery.retry
             where workspace_id = $1 and connection_id = $2 and partition = $3
             order by order_key, generation, event_offset",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read the keys that wait"))?;
        Ok(rows
            .into_iter()
            .map(|(key, at, rows)| (key.cast_unsigned(), at.to_jiff(), rows.cast_unsigned()))
            .collect())
    }

    /// The order keys that have something waiting in the connection's other lanes, from generations before that one.
    ///
    /// # Errors
    /// The database.
    pub async fn waiting_elsewhere(
        &self,
        duty: Duty,
        generation: Generation,
    ) -> Result<Vec<u64>, StoreError> {
        let keys: Vec<i64> = sqlx::query_scalar(
            "select distinct order_key from delivery.retry
             where workspace_id = $1 and connection_id = $2 and partition <> $3 and generation < $4",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(generation.0.cast_signed())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read the keys that wait in other lanes"))?;
        Ok(keys.into_iter().map(i64::cast_unsigned).collect())
    }

    /// Dead letters, newest first; of one connection or (0) all.
    ///
    /// # Errors
    /// The database.
    pub async fn dead_letters(
        &self,
        workspace: WorkspaceId,
        connection: i64,
        limit: i64,
    ) -> Result<Vec<ListedLetter>, StoreError> {
        let what = attempting("list dead letters");
        let rows = sqlx::query(
            "select connection_id, partition, generation, event_offset, message_id, code, field, detail, request,
                    answer, died_at
             from delivery.dead_letter
             where workspace_id = $1 and ($2 = 0 or connection_id = $2) order by died_at desc limit $3",
        )
        .bind(workspace.0)
        .bind(connection)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(&what)?;
        rows.iter()
            .map(|row| {
                let (partition, generation, offset): (i32, i32, i64) = (
                    row.try_get(1).map_err(&what)?,
                    row.try_get(2).map_err(&what)?,
                    row.try_get(3).map_err(&what)?,
                );
                let position = Position::new(
                    generation.cast_unsigned(),
                    partition.cast_unsigned(),
                    offset.cast_unsigned(),
                );
                let letter = DeadRow {
                    position,
                    message_id: row.try_get(4).map_err(&what)?,
                    code: row.try_get(5).map_err(&what)?,
                    field: row.try_get(6).map_err(&what)?,
                    detail: row.try_get(7).map_err(&what)?,
                    request: row.try_get(8).map_err(&what)?,
                    answer: row.try_get(9).map_err(&what)?,
                    resolved: Vec::new(),
                    whose: None,
                };
                let died_at: jiff_sqlx::Timestamp = row.try_get(10).map_err(&what)?;
                Ok(ListedLetter {
                    connection: row.try_get(0).map_err(&what)?,
                    letter,
                    died_at: died_at.to_jiff(),
                })
            })
            .collect()
    }
}

fn read_row(row: &PgRow, duty: Duty) -> Result<RetryRow, sqlx::Error> {
    let (generation, offset, key): (i32, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let count = |column: usize| row.try_get::<i32, _>(column).map(i32::cast_unsigned);
    let next_at: jiff_sqlx::Timestamp = row.try_get(6)?;
    let first_sent_at: Option<jiff_sqlx::Timestamp> = row.try_get(7)?;
    let waited: Option<i64> = row.try_get(10)?;
    Ok(RetryRow {
        position: Position::new(generation.cast_unsigned(), duty.partition.0, offset.cast_unsigned()),
        order_key: key.cast_unsigned(),
        attempts: count(3)?,
        tries: count(4)?,
        transient_holds: count(5)?,
        next_at: next_at.to_jiff(),
        first_sent_at: first_sent_at.map(jiff_sqlx::Timestamp::to_jiff),
        waited: waited.map(SignedDuration::from_millis),
        reason: row.try_get(8)?,
        resolved: row.try_get(9)?,
    })
}
