//! Requests that a platform took first, and refused later as a whole: the verdict and what it does to the
//! request's events are written in one transaction, or neither is.
//!
//! Whoever asks for verdicts holds no lease. The transaction locks the lease's row instead, as one that takes
//! the lease does: while it lasts no commit of the lane is under way and no page of a replay, whoever the
//! holder is. What the ledger says of an event under that lock decides: only what is delivered still, by this
//! very request, is dead from then on. It goes the way of any late row, so that the books agree, and its dead
//! letter has a copy of its own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::PgConnection;
use tracklayer_destination::data_manager::{refused_later, request_id};
use tracklayer_ids::{Position, SourceId};

use super::ingest_requests::{Claimed, IngestRequestStore, RequestedAt, ToldStatus, write_told};
use super::ledger::{DeadRow, Settled, verdicts_at, write_late};
use super::sums::{Sums, rollup_key};
use super::{StoreError, attempting};
use crate::ingest_requests::told_in_words;
use crate::lane::plan::{REJECTED, UNKNOWN};
use crate::lane::storable;
use crate::lease::Duty;
use crate::ledger::{State, Verdict};

/// Most characters of a detail or an answer.
const MAX_CHARS: usize = 500;
/// What is refused is the repetition; of what came before it nobody knows.
const MAY_BE_THERE: &str =
    "a request before it had no answer and may have brought it: look it up at the platform";

/// An event of a request, as its dead letter needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedEvent {
    /// Which.
    pub at: RequestedAt,
    /// Its source.
    pub source: SourceId,
    /// Receipt, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// Its id.
    pub message_id: String,
    /// Its copy.
    pub resolved: Vec<u8>,
}

/// What a verdict about a whole request did to its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Dead from now on.
    pub dead: u64,
    /// Not delivered by that request any more: a replay has taken them since.
    pub elsewhere: u64,
}

impl IngestRequestStore {
    /// Where the events of a request stand of which its verdict decides.
    ///
    /// # Errors
    /// The database.
    pub async fn positions(&self, claimed: &Claimed) -> Result<Vec<RequestedAt>, StoreError> {
        let rows: Vec<(i32, i64, bool)> = sqlx::query_as(
            "select u.g, u.o, u.b from delivery.ingest_request r
             cross join lateral unnest(r.generations, r.event_offsets, r.sent_before) as u (g, o, b)
             where r.workspace_id = $1 and r.connection_id = $2 and r.request_id = $3
             order by u.g, u.o",
        )
        .bind(claimed.workspace.0)
        .bind(claimed.connection.0)
        .bind(&claimed.request_id)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read which events a request had"))?;
        let requested = |(generation, offset, sent_before): (i32, i64, bool)| {
            let (generation, offset) = (generation.cast_unsigned(), offset.cast_unsigned());
            RequestedAt { position: Position::new(generation, claimed.partition.0, offset), sent_before }
        };
        Ok(rows.into_iter().map(requested).collect())
    }

    /// Writes down that a request failed as a whole, most of it for `code`, and what that does to these of
    /// its events. `None`: this claim counted no more, and nothing is written.
    ///
    /// # Errors
    /// The database; then nothing is written.
    pub async fn refuse(
        &self,
        claimed: &Claimed,
        told: &ToldStatus,
        code: &str,
        events: Vec<RequestedEvent>,
        now: Timestamp,
    ) -> Result<Option<Moved>, StoreError> {
        let what = attempting("move what a platform has refused later");
        let duty = Duty {
            workspace: claimed.workspace,
            connection: claimed.connection,
            partition: claimed.partition,
        };
        let mut tx = tracklayer_postgres::begin(&self.pool).await.map_err(&what)?;
        lock_lease(&mut tx, duty).await?;
        if !write_told(&mut tx, claimed, told, now).await? {
            return Ok(None);
        }
        let positions: Vec<Position> = events.iter().map(|event| event.at.position).collect();
        let mut verdicts = verdicts_at(&mut tx, duty, &positions).await?;
        let mut moved = Moved { dead: 0, elsewhere: 0 };
        let (mut settled, mut dead, mut deltas) = (Vec::new(), Vec::new(), BTreeMap::new());
        let refused = refused_later(&claimed.request_id, code);
        let answer = storable(&told_in_words(told), MAX_CHARS);
        for event in events {
            let position = event.at.position;
            let before = verdicts.remove(&position).flatten();
            let is_its = |before: &Verdict| {
                before.state == State::Delivered
                    && request_id(&before.detail) == Some(claimed.request_id.as_str())
            };
            let Some(before) = before.filter(is_its) else {
                moved.elsewhere += 1;
                continue;
            };
            let latency = now.as_millisecond().saturating_sub(event.received_ms).max(0);
            let minute = event.received_ms.div_euclid(60_000);
            let was = (minute, event.source.0, before.state.number(), before.reason);
            let (reason, detail) = match event.at.sent_before {
                false => (REJECTED, storable(&refused, MAX_CHARS)),
                true => (UNKNOWN, storable(&format!("{refused}; {MAY_BE_THERE}"), MAX_CHARS)),
            };
            let verdict = Verdict {
                state: State::Dead,
                reason: reason.to_owned(),
                detail: detail.clone(),
                attempts: before.attempts,
                latency_ms: u32::try_from(latency).unwrap_or(u32::MAX),
                consent: before.consent,
            };
            let is = Settled { position, source: event.source, minute, verdict };
            *deltas.entry(was).or_insert(0) -= 1;
            *deltas.entry(rollup_key(&is)).or_insert(0) += 1;
            settled.push(is);
            dead.push(DeadRow {
                position,
                message_id: storable(&event.message_id, usize::MAX),
                code: reason.to_owned(),
                field: String::new(),
                detail,
                request: String::new(),
                answer: answer.clone(),
                resolved: event.resolved,
                // Its copy says so, and whatever came after its decision is applied to it.
                whose: None,
            });
            moved.dead += 1;
        }
        write_late(&mut tx, duty, &settled.iter().collect::<Vec<_>>()).await?;
        super::retries::bury(&mut tx, duty, &dead).await?;
        Sums::of_rollups(deltas).add(&mut tx, duty).await?;
        tx.commit().await.map_err(&what)?;
        Ok(Some(moved))
    }
}

/// Keeps everybody from writing under the lane's lease until the transaction ends, and from renewing it: so
/// it must not last. One that hangs is ended by the server, and the verdict is asked for again.
async fn lock_lease(tx: &mut PgConnection, duty: Duty) -> Result<(), StoreError> {
    let what = attempting("lock the lane of a request");
    sqlx::query(
        "select set_config('lock_timeout', '2s', true), set_config('statement_timeout', '2s', true),
                set_config('idle_in_transaction_session_timeout', '1s', true)",
    )
    .execute(&mut *tx)
    .await
    .map_err(&what)?;
    // Where there is none, nobody has ever held it, and nobody commits.
    sqlx::query(
        "select 1 from delivery.lease
         where workspace_id = $1 and connection_id = $2 and partition = $3 for update",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(duty.partition.0.cast_signed())
    .execute(&mut *tx)
    .await
    .map_err(&what)?;
    Ok(())
}
