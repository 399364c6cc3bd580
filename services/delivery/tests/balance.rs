//! The books over a real PostgreSQL: the fold over streamed rows against a count of each single event.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;

use prost::Message as _;
use tracklayer_delivery::balance::{Balance, Balances};
use tracklayer_delivery::ledger::{LedgerEntries, State, Verdict};
use tracklayer_delivery::store::stats::StatsStore;
use tracklayer_ids::{SourceId, WorkspaceId};
use tracklayer_journal::BlockBuilder;
use tracklayer_testkit::TestDatabase;

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const CONNECTIONS: [i64; 2] = [7, 8];
const STATES: [State; 4] = [State::Delivered, State::Duplicate, State::Blocked, State::Held];

/// Generation, offset.
type At = (i32, i64);

/// Books that were made up, and what became of each single event.
struct Sample {
    database: TestDatabase,
    random: fastrand::Rng,
    states: BTreeMap<i64, BTreeMap<(State, String), u64>>,
    accepted: BTreeMap<i64, u64>,
    received: u64,
}

impl Sample {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let random = fastrand::Rng::with_seed(42);
        let mut sample =
            Self { database, random, states: BTreeMap::new(), accepted: BTreeMap::new(), received: 0 };
        for partition in 0..2 {
            let events = sample.receive(partition).await;
            for connection in CONNECTIONS {
                sample.settle(connection, partition, &events).await;
            }
        }
        sample
    }

    /// Two generations of a partition, in blocks of any size; all events in order.
    async fn receive(&mut self, partition: i32) -> Vec<At> {
        let mut events = Vec::new();
        for generation in 1..=2 {
            let mut base: i64 = 0;
            for _ in 0..6 {
                let count = self.random.i64(1..9);
                let mut builder = BlockBuilder::default();
                (0..count).for_each(|n| builder.push(SourceId(1 + n % 2), 1, b"event"));
                let block = builder.finish().unwrap();
                sqlx::query(
                    "insert into journal.received
                         (workspace_id, partition, generation, base_offset, event_count, header, payload)
                     values ($1, $2, $3, $4, $5, $6, $7)",
                )
                .bind(WORKSPACE.0)
                .bind(partition)
                .bind(generation)
                .bind(base)
                .bind(i32::try_from(count).unwrap())
                .bind(&block.header_bytes)
                .bind(&block.payload)
                .execute(&self.database.pool)
                .await
                .unwrap();
                events.extend((base..base + count).map(|offset| (generation, offset)));
                base += count;
            }
        }
        self.received += events.len() as u64;
        events
    }

    /// A lane that began at the first event and stands somewhere in the second generation.
    async fn settle(&mut self, connection: i64, partition: i32, events: &[At]) {
        let first_of_second = events.iter().position(|at| at.0 == 2).unwrap();
        let done = self.random.usize(first_of_second + 1..events.len());
        let mut from = 0;
        while from < done {
            let most = if from < first_of_second { first_of_second } else { done };
            let to = (from + self.random.usize(1..6)).min(most);
            self.settle_range(connection, partition, &events[from..to]).await;
            from = to;
        }
        let (generation, next) = events[done - 1];
        sqlx::query("insert into delivery.lane_cursor values ($1, $2, $3, 1, 0, $4, $5)")
            .bind(WORKSPACE.0)
            .bind(connection)
            .bind(partition)
            .bind(generation)
            .bind(next + 1)
            .execute(&self.database.pool)
            .await
            .unwrap();
        *self.accepted.entry(connection).or_default() += events.len() as u64;
        let waiting = (events.len() - done) as u64;
        *self.states.entry(connection).or_default().entry((State::Waiting, String::new())).or_default() +=
            waiting;
    }

    async fn settle_range(&mut self, connection: i64, partition: i32, range: &[At]) {
        let verdicts: Vec<Verdict> =
            range.iter().map(|_| Verdict::of(STATES[self.random.usize(0..STATES.len())], "first")).collect();
        let entries = LedgerEntries::pack(verdicts.iter());
        sqlx::query("insert into delivery.ledger_block (workspace_id, connection_id, partition, generation, base_offset, event_count, epoch, entries) values ($1, $2, $3, $4, $5, $6, 1, $7)")
            .bind(WORKSPACE.0)
            .bind(connection)
            .bind(partition)
            .bind(range[0].0)
            .bind(range[0].1)
            .bind(i32::try_from(range.len()).unwrap())
            .bind(entries.encode_to_vec())
            .execute(&self.database.pool)
            .await
            .unwrap();
        for (at, verdict) in range.iter().zip(verdicts) {
            let mut became = (verdict.state, verdict.reason);
            if self.random.u8(0..3) == 0 {
                became = (State::Dead, "late".to_owned());
                self.late(connection, partition, *at, &became).await;
            }
            *self.states.entry(connection).or_default().entry(became).or_default() += 1;
        }
    }

    async fn late(&self, connection: i64, partition: i32, at: At, became: &(State, String)) {
        sqlx::query("insert into delivery.ledger_late (workspace_id, connection_id, partition, generation, event_offset, source_id, state, reason, attempts, latency_ms) values ($1, $2, $3, $4, $5, 1, $6, $7, 1, 1)")
            .bind(WORKSPACE.0)
            .bind(connection)
            .bind(partition)
            .bind(at.0)
            .bind(at.1)
            .bind(became.0.number())
            .bind(&became.1)
            .execute(&self.database.pool)
            .await
            .unwrap();
    }

    async fn balances(&self) -> (u64, BTreeMap<i64, Balance>) {
        let mut balances = Balances::default();
        StatsStore::new(self.database.pool.clone()).read_books(WORKSPACE, &mut balances).await.unwrap();
        (balances.received, balances.finish())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_books_say_the_same_as_a_count_of_each_event() {
    let sample = Sample::new().await;
    let (received, balances) = sample.balances().await;
    assert_eq!(received, sample.received);
    for connection in CONNECTIONS {
        let balance = &balances[&connection];
        assert_eq!(balance.accepted, sample.accepted[&connection]);
        assert_eq!(balance.states, sample.states[&connection]);
        assert!(balance.is_clean(), "{balance:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted_from_near_the_cursor_only_and_is_the_same() {
    let sample = Sample::new().await;
    let waiting = StatsStore::new(sample.database.pool.clone()).waiting(WORKSPACE).await.unwrap();
    for connection in CONNECTIONS {
        let expected = sample.states[&connection][&(State::Waiting, String::new())];
        assert_eq!(waiting[&connection], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_row_without_a_block_is_a_fault() {
    let sample = Sample::new().await;
    sample.late(7, 1, (2, 4_000), &(State::Dead, String::new())).await;
    let (_, balances) = sample.balances().await;
    assert_eq!(balances[&7].faults, ["the late row at 2/1/4000 belongs to no ledger block"]);
    assert!(balances[&8].is_clean());
}
