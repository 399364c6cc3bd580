//! The index of sorted runs, over a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracklayer_delivery::lease::{Duty, FleetLevel, INDEX_LEVEL};
use tracklayer_delivery::runs::{Amount, FANOUT, MessageAt, Record as _, SEGMENT, SoldOrder};
use tracklayer_delivery::store::index::Index;
use tracklayer_ids::{ConnectionId, Generation, Offset, Partition, WorkspaceId};
use tracklayer_testkit::{TestDatabase, eventually};

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const MESSAGES: ConnectionId = ConnectionId(0);
const SHOP: ConnectionId = ConnectionId(7);

fn duty(connection: ConnectionId, partition: u32) -> Duty {
    Duty { workspace: WORKSPACE, connection, partition: Partition(partition) }
}

async fn database() -> TestDatabase {
    tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await
}

async fn add<R: tracklayer_delivery::runs::Record>(index: &Index, duty: Duty, records: Vec<R>) {
    let mut tx = index.pool().begin().await.unwrap();
    index.add(&mut tx, duty, records).await.unwrap();
    tx.commit().await.unwrap();
    index.grew(duty);
}

async fn offsets(index: &Index, hashes: &[i64]) -> BTreeMap<i64, Vec<(u32, u64)>> {
    let mut connection = index.pool().acquire().await.unwrap();
    let found =
        index.find::<MessageAt>(&mut connection, (WORKSPACE, MESSAGES), hashes, |_| true).await.unwrap();
    let mut by_hash: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    for found in found {
        by_hash.entry(found.record.hash).or_default().push((found.partition.0, found.record.offset.0));
    }
    by_hash.values_mut().for_each(|offsets| offsets.sort_unstable());
    by_hash
}

async fn runs(pool: &PgPool) -> Vec<(i32, i16, i64, i64)> {
    sqlx::query_as(
        "select partition, level, count(distinct run), sum(records)::bigint from delivery.index_run
         group by partition, level order by partition, level",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn message(hash: i64, offset: u64) -> MessageAt {
    MessageAt { hash, generation: Generation(1), offset: Offset(offset) }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_found_before_and_after_merges_of_all_levels() {
    let database = database().await;
    let index = Index::new(database.pool.clone());
    let mut rng = fastrand::Rng::with_seed(7);
    let mut model: BTreeMap<i64, Vec<(u32, u64)>> = BTreeMap::new();
    let mut offset = 0;
    // Enough for one run of the second level in partition 0, and for some of the lower ones beside it.
    for commit in 0..FANOUT * FANOUT + 2 * FANOUT {
        let partition = u32::from(commit % 40 == 39);
        let records: Vec<MessageAt> = (0..rng.u64(1..60))
            .map(|_| {
                offset += 1;
                // Some ids come again and again, so that equal hashes stand in many runs.
                let hash = if rng.u8(..) < 20 { rng.i64(0..5) } else { rng.i64(..) };
                model.entry(hash).or_default().push((partition, offset));
                message(hash, offset)
            })
            .collect();
        add(&index, duty(MESSAGES, partition), records).await;
        index.merge_all(duty(MESSAGES, 0)).await.unwrap();
    }
    model.values_mut().for_each(|offsets| offsets.sort_unstable());
    let shape = runs(&database.pool).await;
    assert!(shape.iter().any(|(partition, level, ..)| (*partition, *level) == (0, 2)), "{shape:?}");
    let all: Vec<i64> = model.keys().copied().collect();
    assert_eq!(offsets(&index, &all).await, model);
    let absent: Vec<i64> = (0..2_000).map(|_| rng.i64(..)).filter(|hash| !model.contains_key(hash)).collect();
    assert_eq!(offsets(&index, &absent).await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_that_are_not_spread_evenly_are_found_too() {
    let database = database().await;
    let index = Index::new(database.pool.clone());
    // One id many thousand times, as a sender's fault would have it, among few others far away from it.
    for run in 0..FANOUT as u64 {
        let mut records: Vec<MessageAt> = (0..700).map(|n| message(77, run * 1_000 + n)).collect();
        records.extend([message(i64::MIN + 1, run * 1_000 + 900), message(i64::MAX, run * 1_000 + 901)]);
        add(&index, duty(MESSAGES, 0), records).await;
    }
    let before = offsets(&index, &[77, i64::MIN + 1, i64::MAX, 78]).await;
    assert_eq!((before[&77].len(), before[&i64::MAX].len()), (700 * FANOUT, FANOUT));
    index.merge_all(duty(MESSAGES, 0)).await.unwrap();
    let segments = (702 * FANOUT).div_ceil(SEGMENT);
    assert_eq!(runs(&database.pool).await, [(0, 1, 1, (702 * FANOUT) as i64)], "in {segments} segments");
    assert_eq!(offsets(&index, &[77, i64::MIN + 1, i64::MAX, 78]).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_order_that_was_sold_again_the_newest_run_is_known() {
    let database = database().await;
    let index = Index::new(database.pool.clone());
    let order = |value: i64| SoldOrder {
        hash: 5,
        value: Amount::of(Decimal::from(value)),
        total: None,
        currency: Some(*b"EUR"),
        at: 0,
    };
    let newest = async || {
        let mut connection = index.pool().acquire().await.unwrap();
        let mut found =
            index.find::<SoldOrder>(&mut connection, (WORKSPACE, SHOP), &[5], |_| true).await.unwrap();
        found.sort_by_key(|found| found.run);
        (found.len(), found.last().unwrap().record)
    };
    for value in 0..FANOUT as i64 {
        add(&index, duty(SHOP, 0), vec![order(value)]).await;
    }
    assert_eq!(newest().await, (FANOUT, order(FANOUT as i64 - 1)));
    index.merge_all(duty(SHOP, 0)).await.unwrap();
    assert_eq!(newest().await, (1, order(FANOUT as i64 - 1)));
    add(&index, duty(SHOP, 0), vec![order(1)]).await;
    assert_eq!(newest().await, (2, order(1)), "a higher number is newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_or_seen_twice_while_runs_are_merged() {
    let database = database().await;
    let index = Index::new(database.pool.clone());
    let shutdown = CancellationToken::new();
    let merging = tokio::spawn(index.clone().keep_merged(shutdown.clone()));
    // Another process, which is about the same runs at the same time.
    let other = Index::new(database.pool.clone());
    let mut model: BTreeMap<i64, Vec<(u32, u64)>> = BTreeMap::new();
    for commit in 0..FANOUT as u64 * 8 {
        let records: Vec<MessageAt> =
            (0..40).map(|n| message((n * 131 % 97) as i64 * 1_000, commit * 40 + n)).collect();
        for record in &records {
            model.entry(record.hash()).or_default().push((0, record.offset.0));
        }
        add(&index, duty(MESSAGES, 0), records).await;
        let all: Vec<i64> = model.keys().copied().collect();
        let (found, merged) = tokio::join!(offsets(&index, &all), other.merge_all(duty(MESSAGES, 0)));
        merged.unwrap();
        let mut expected = model.clone();
        expected.values_mut().for_each(|offsets| offsets.sort_unstable());
        assert_eq!(found, expected, "after commit {commit}");
    }
    eventually("all runs are merged", async || {
        let runs = runs(&database.pool).await;
        runs.iter().all(|(_, level, runs, _)| *level > 0 && *runs < FANOUT as i64).then_some(())
    })
    .await;
    shutdown.cancel();
    merging.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_commit_of_a_process_has_merged_what_earlier_ones_left() {
    let database = database().await;
    for n in 0..FANOUT as u64 {
        // Each is a process of its own, and ends before it has enough.
        add(&Index::new(database.pool.clone()), duty(MESSAGES, 0), vec![message(n as i64, n)]).await;
    }
    let index = Index::new(database.pool.clone());
    let shutdown = CancellationToken::new();
    let merging = tokio::spawn(index.clone().keep_merged(shutdown.clone()));
    add(&index, duty(MESSAGES, 0), vec![message(99, 99)]).await;
    eventually("they are one run", async || {
        (runs(&database.pool).await == [(0, 1, 1, FANOUT as i64 + 1)]).then_some(())
    })
    .await;
    shutdown.cancel();
    merging.await.unwrap();
}

#[tokio::test]
async fn runs_are_written_once_every_process_reads_them() {
    let fleet = FleetLevel::default();
    let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://nowhere").unwrap();
    let index = Index::beside(pool, fleet.clone());
    for (level, expected) in
        [(0, false), (INDEX_LEVEL - 1, false), (INDEX_LEVEL, true), (INDEX_LEVEL + 1, true)]
    {
        fleet.set(level);
        assert_eq!(index.is_read_by_all(), expected, "{level}");
    }
}
