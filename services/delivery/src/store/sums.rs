//! What a commit adds to the sums of its lane: tables `delivery.rollup`, `latency`, `request_count`, `match_quality` and
//! `match_quality_left_out`; with them go the intents whose outcome the commit knows.
//!
//! All of it is one statement, or a part of one, however many events a commit has. Each of these rows is of one lane, in one partition:
//! lanes never wait for each other here, so that it does not matter in which order a statement comes to them.

use std::collections::{BTreeMap, HashSet};

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use tracklayer_destination::Key;
use tracklayer_ids::Position;
use uuid::Uuid;

use super::ledger::{LaneCommit, Settled};
use super::match_quality::QualityRow;
use super::{StoreError, attempting};
use crate::lease::Duty;
use crate::ledger::{State, latency_bucket};

/// Minute, source, state, reason.
pub(super) type RollupKey = (i64, i64, i16, String);

pub(super) fn rollup_key(settled: &Settled) -> RollupKey {
    (settled.minute, settled.source.0, settled.verdict.state.number(), settled.verdict.reason.clone())
}

/// A statement that adds sums, once for each row of its part `moved`, which `$head` has to define: where that is empty nothing is
/// added. $1 to $3 are the lane, $4 to $21 the sums; what else `$head` and `$tail` ask for begins at $22.
macro_rules! with_sums {
    ([$($head:expr),+ $(,)?], $tail:literal) => {
        concat!(
            $($head,)+
            ", rollups as (
                 insert into delivery.rollup as r
                     (workspace_id, connection_id, partition, minute, source_id, state, reason, events)
                 select $1, $2, $3, u.m, u.src, u.st, u.r, u.n
                 from moved, unnest($4::bigint[], $5::bigint[], $6::smallint[], $7::text[], $8::bigint[])
                     as u (m, src, st, r, n)
                 on conflict on constraint rollup_pkey do update set events = r.events + excluded.events
             ), latencies as (
                 insert into delivery.latency as l (workspace_id, connection_id, partition, bucket, events)
                 select $1, $2, $3, u.b, u.n from moved, unnest($9::integer[], $10::bigint[]) as u (b, n)
                 on conflict on constraint latency_pkey do update set events = l.events + excluded.events
             ), request_counts as (
                 insert into delivery.request_count as c (workspace_id, connection_id, partition, requests)
                 select $1, $2, $3, $11 from moved where $11 > 0
                 on conflict on constraint request_count_pkey do update
                 set requests = c.requests + excluded.requests
             ), intents as (
                 delete from delivery.intent i using moved
                 where i.workspace_id = $1 and i.connection_id = $2 and i.partition = $3
                   and i.intent_id = any($12)
             ), quality as (
                 insert into delivery.match_quality as q
                     (workspace_id, connection_id, partition, minute, event_name, events, sent)
                 select $1, $2, $3, u.m, u.n, u.e, u.s::bigint[]
                 from moved, unnest($13::bigint[], $14::text[], $15::bigint[], $16::text[]) as u (m, n, e, s)
                 on conflict on constraint match_quality_pkey do update
                 set events = q.events + excluded.events,
                     sent = array(
                         select coalesce(s.stands, 0) + coalesce(s.comes, 0)
                         from unnest(q.sent, excluded.sent) with ordinality as s (stands, comes, place)
                         order by s.place)
             ), left_out as (
                 insert into delivery.match_quality_left_out as l
                     (workspace_id, connection_id, partition, minute, event_name, key, reason, events)
                 select $1, $2, $3, u.m, u.n, u.k, u.r, u.e
                 from moved, unnest($17::bigint[], $18::text[], $19::smallint[], $20::text[], $21::bigint[])
                     as u (m, n, k, r, e)
                 on conflict on constraint match_quality_left_out_pkey do update
                 set events = l.events + excluded.events
             ) ",
            $tail
        )
    };
}
pub(super) use with_sums;

/// Sums that a commit adds to, and intents that it settles.
#[derive(Debug, Default)]
pub(super) struct Sums<'c> {
    /// What changes at a key: events come, or are counted elsewhere from now on.
    rollups: BTreeMap<RollupKey, i64>,
    /// Deliveries by bucket of time.
    latencies: BTreeMap<i32, i64>,
    requests: u64,
    intents: &'c [Uuid],
    quality: &'c [QualityRow],
}

impl<'c> Sums<'c> {
    /// Of a commit, with what it changes of the rollups.
    pub(super) fn of(commit: &'c LaneCommit, rollups: BTreeMap<RollupKey, i64>) -> Self {
        Self {
            latencies: latencies_of(commit),
            requests: commit.requests,
            intents: &commit.intents,
            quality: &commit.quality,
            ..Self::of_rollups(rollups)
        }
    }

    /// Of the rollups alone.
    pub(super) fn of_rollups(mut rollups: BTreeMap<RollupKey, i64>) -> Self {
        rollups.retain(|_, delta| *delta != 0);
        Self { rollups, ..Self::default() }
    }

    /// Adds them, in the transaction of a commit.
    ///
    /// # Errors
    /// The database.
    pub(super) async fn add(&self, tx: &mut PgConnection, duty: Duty) -> Result<(), StoreError> {
        let Self { rollups, latencies, requests, intents, quality } = self;
        let sums_are_empty = rollups.is_empty() && latencies.is_empty() && *requests == 0;
        if sums_are_empty && intents.is_empty() && quality.is_empty() {
            return Ok(());
        }
        let statement = sqlx::query(with_sums!(["with moved as (select 1)"], "select 1"));
        self.bind(statement, duty).execute(tx).await.map_err(attempting("add to a lane's sums"))?;
        Ok(())
    }

    /// Binds $1 to $21 of [`with_sums`].
    pub(super) fn bind<'q>(
        &self,
        statement: Query<'q, Postgres, PgArguments>,
        duty: Duty,
    ) -> Query<'q, Postgres, PgArguments> {
        let events = |row: &QualityRow| row.counts.events.cast_signed();
        // An array of arrays would be flattened on its way.
        let sent = |row: &QualityRow| {
            let counts: Vec<String> = row.counts.sent.iter().map(u64::to_string).collect();
            format!("{{{}}}", counts.join(","))
        };
        let left_out: Vec<(&QualityRow, Key, &str, i64)> = self
            .quality
            .iter()
            .flat_map(|row| {
                let of_row = row.left_out.iter();
                of_row.map(move |((key, reason), events)| (row, *key, *reason, events.cast_signed()))
            })
            .collect();
        statement
            .bind(duty.workspace.0)
            .bind(duty.connection.0)
            .bind(duty.partition.0.cast_signed())
            .bind(self.rollups.keys().map(|(minute, ..)| *minute).collect::<Vec<_>>())
            .bind(self.rollups.keys().map(|(_, source, ..)| *source).collect::<Vec<_>>())
            .bind(self.rollups.keys().map(|(_, _, state, _)| *state).collect::<Vec<_>>())
            .bind(self.rollups.keys().map(|(.., reason)| reason.as_str()).collect::<Vec<_>>())
            .bind(self.rollups.values().copied().collect::<Vec<_>>())
            .bind(self.latencies.keys().copied().collect::<Vec<_>>())
            .bind(self.latencies.values().copied().collect::<Vec<_>>())
            .bind(self.requests.cast_signed())
            .bind(self.intents)
            .bind(self.quality.iter().map(|row| row.minute).collect::<Vec<_>>())
            .bind(self.quality.iter().map(|row| row.event_name.as_str()).collect::<Vec<_>>())
            .bind(self.quality.iter().map(events).collect::<Vec<_>>())
            .bind(self.quality.iter().map(sent).collect::<Vec<_>>())
            .bind(left_out.iter().map(|(row, ..)| row.minute).collect::<Vec<_>>())
            .bind(left_out.iter().map(|(row, ..)| row.event_name.as_str()).collect::<Vec<_>>())
            .bind(left_out.iter().map(|(_, key, ..)| stored(*key)).collect::<Vec<_>>())
            .bind(left_out.iter().map(|(_, _, reason, _)| *reason).collect::<Vec<_>>())
            .bind(left_out.iter().map(|(.., events)| *events).collect::<Vec<_>>())
    }
}

/// Deliveries by how long they took.
fn latencies_of(commit: &LaneCommit) -> BTreeMap<i32, i64> {
    // A repetition is no second delivery, and took as long as somebody waited to ask for it.
    let again = commit.replayed.iter().filter(|ended| ended.was_delivered);
    let again: HashSet<Position> = again.map(|ended| ended.position).collect();
    let delivered = commit.settled.iter().filter(|s| s.verdict.state == State::Delivered);
    let mut buckets = BTreeMap::new();
    for settled in delivered.filter(|s| !again.contains(&s.position)) {
        *buckets.entry(latency_bucket(settled.verdict.latency_ms)).or_default() += 1;
    }
    buckets
}

fn stored(key: Key) -> i16 {
    i16::try_from(key.number()).unwrap_or(i16::MAX)
}
