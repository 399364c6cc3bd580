//! Fair shares of leases, how long a holder may be sure, and when a lease is free for the next.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tracklayer_delivery::entry::{EntryBlock, EntryReader};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper, OUR_LEVEL};
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_delivery::store::twins::TwinRows;
use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::BlockBuilder;
use tracklayer_proto::event::v1::ResolvedEvent;
use tracklayer_testkit::{TestDatabase, eventually};

const TTL: Duration = Duration::from_secs(20);

fn duties(count: u32) -> BTreeSet<Duty> {
    (0..count).map(|p| Duty::resolve(WorkspaceId(1), Partition(p))).collect()
}

fn of(leases: &[Lease]) -> Vec<Duty> {
    leases.iter().map(|lease| lease.duty).collect()
}

async fn database() -> TestDatabase {
    tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_and_a_lease_is_not_free_before_its_task_has_ended() {
    let database = database().await;
    let store = LeaseStore::new(database.pool.clone());
    let wanted = duties(6);
    let mut first = LeaseKeeper::new(store.clone(), TTL);
    let alone = first.round(&wanted).await.unwrap().taken;
    assert_eq!(alone.len(), 6, "alone it holds everything");

    let mut second = LeaseKeeper::new(store.clone(), TTL);
    assert!(second.round(&wanted).await.unwrap().taken.is_empty(), "nothing is free yet");
    first.round(&wanted).await.unwrap();
    let (leaving, kept): (Vec<Lease>, Vec<Lease>) =
        alone.into_iter().partition(|lease| lease.lost().is_cancelled());
    assert_eq!((leaving.len(), kept.len()), (3, 3), "half of the tasks are told to end");
    assert!(second.round(&wanted).await.unwrap().taken.is_empty(), "their requests may still be on the wire");

    first.ended(&of(&leaving)).await.unwrap();
    let shared = second.round(&wanted).await.unwrap().taken;
    assert_eq!(of(&shared), of(&leaving));
    assert!(shared.iter().all(|lease| lease.epoch == 2), "each new holder raises the epoch");

    second.ended(&of(&shared)).await.unwrap();
    second.leave().await;
    assert_eq!(first.round(&wanted).await.unwrap().taken.len(), 3, "given back, not waited out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_task_winds_down_is_renewed_until_it_has_ended() {
    let database = database().await;
    let store = LeaseStore::new(database.pool.clone());
    let mut keeper = LeaseKeeper::new(store.clone(), TTL);
    let lease = keeper.round(&duties(1)).await.unwrap().taken.remove(0);
    keeper.part_with(&[lease.duty]);

    let about_to_end = "update delivery.lease set expires_at = now() + interval '1 second'";
    sqlx::query(about_to_end).execute(&database.pool).await.unwrap();
    assert!(keeper.round(&duties(1)).await.unwrap().taken.is_empty(), "not taken again before it has ended");
    let (renewed,): (bool,) =
        sqlx::query_as("select expires_at > now() + interval '10 seconds' from delivery.lease")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert!(renewed, "a successor waits for the request that is under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_took_is_not_taken_back_while_its_task_still_runs() {
    let database = database().await;
    let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), TTL);
    let lease = keeper.round(&duties(1)).await.unwrap().taken.remove(0);
    sqlx::query("update delivery.lease set epoch = epoch + 1, expires_at = now() - interval '1 second'")
        .execute(&database.pool)
        .await
        .unwrap();
    assert!(keeper.round(&duties(1)).await.unwrap().taken.is_empty());
    assert!(lease.lost().is_cancelled());
    keeper.ended(&[lease.duty]).await.unwrap();
    assert_eq!(keeper.round(&duties(1)).await.unwrap().taken[0].epoch, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_cannot_read_goes_to_another() {
    let database = database().await;
    let store = LeaseStore::new(database.pool.clone());
    let mut blind = LeaseKeeper::new(store.clone(), TTL);
    let lease = blind.round(&duties(1)).await.unwrap().taken.remove(0);
    lease.give_up_to_others();
    blind.ended(&[lease.duty]).await.unwrap();
    assert!(blind.round(&duties(1)).await.unwrap().taken.is_empty(), "it would only fail again");
    blind.leave().await;
    let other = LeaseKeeper::new(store, TTL).round(&duties(1)).await.unwrap().taken;
    assert_eq!(of(&other), vec![lease.duty]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_only_sure_for_what_is_left_of_its_lease() {
    let database = database().await;
    let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(10));
    let lease = keeper.round(&duties(1)).await.unwrap().taken.remove(0);
    assert!(lease.surely_held_for(Duration::from_secs(5)));
    assert!(!lease.surely_held_for(Duration::from_secs(10)), "counted from before the request that took it");

    sqlx::query("update delivery.lease set epoch = epoch + 1").execute(&database.pool).await.unwrap();
    keeper.round(&BTreeSet::new()).await.unwrap();
    assert!(!lease.surely_held_for(Duration::ZERO), "taken by another: not held at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_does_not_wait_for_a_commit_that_holds_a_fence_and_a_successor_does() {
    let database = database().await;
    let store = LeaseStore::new(database.pool.clone());
    let mut keeper = LeaseKeeper::new(store.clone(), TTL);
    let lease = keeper.round(&duties(1)).await.unwrap().taken.remove(0);
    CursorStore::new(database.pool.clone()).resolve(WorkspaceId(1), Partition(0)).await.unwrap();
    sqlx::query(
        "insert into delivery.dedup_generation (generation, run_id, evicted_keys, sentinel, rebuilt) values (1, '', 0, '', true)",
    )
    .execute(&database.pool)
    .await
    .unwrap();

    // The commit takes its fence, and waits for this row with what it counts at the end.
    let mut lock = database.pool.begin().await.unwrap();
    sqlx::query("insert into delivery.rollup values (1, 0, 0, 1, 1, 0, '', 1)")
        .execute(&mut *lock)
        .await
        .unwrap();
    let (resolved, committing) = (ResolvedStore::new(Index::new(database.pool.clone())), lease.clone());
    let commit = tokio::spawn(async move {
        let mut builder = BlockBuilder::default();
        builder.push(SourceId(1), 1, b"event");
        let block = builder.finish().unwrap();
        let first = Position::new(1, 0, 0);
        let commit = ResolvedCommit {
            first,
            block: &block,
            message_hashes: vec![1],
            dedup_generation: 1,
            reused: Vec::new(),
            twins: TwinRows::new(),
        };
        resolved.commit(&committing, &commit).await
    });
    eventually("the commit to wait under its fence", async || {
        let waiting: (i64,) =
            sqlx::query_as("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%with held as%' and datname = current_database()")
                .fetch_one(&database.pool)
                .await
                .unwrap();
        (waiting.0 == 1).then_some(())
    })
    .await;

    let renewed = tokio::time::timeout(Duration::from_secs(5), keeper.round(&duties(1))).await;
    assert!(renewed.expect("the renewal waits for the commit").is_ok());
    sqlx::query("update delivery.lease set expires_at = now() - interval '1 second'")
        .execute(&database.pool)
        .await
        .unwrap();
    let mut successor = LeaseKeeper::new(store, TTL);
    assert!(
        successor.round(&duties(1)).await.unwrap().taken.is_empty(),
        "a commit under way is not overtaken"
    );
    lock.rollback().await.unwrap();
    commit.await.unwrap().unwrap();
    assert_eq!(successor.round(&duties(1)).await.unwrap().taken.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lease_of_the_history_before_commits_anything_and_its_holder_begins_anew() {
    let database = database().await;
    let store = LeaseStore::new(database.pool.clone());
    let mut keeper = LeaseKeeper::new(store.clone(), TTL);
    let lease = keeper.round(&duties(1)).await.unwrap().taken.remove(0);
    CursorStore::new(database.pool.clone()).resolve(WorkspaceId(1), Partition(0)).await.unwrap();
    sqlx::query(
        "insert into delivery.dedup_generation (generation, run_id, evicted_keys, sentinel, rebuilt) values (1, '', 0, '', true)",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let resolved = ResolvedStore::new(Index::new(database.pool.clone()));
    let commit = async |lease: &Lease| {
        let mut builder = BlockBuilder::default();
        builder.push(SourceId(1), 1, b"event");
        let block = builder.finish().unwrap();
        let first = Position::new(1, 0, 0);
        let commit = ResolvedCommit {
            first,
            block: &block,
            message_hashes: vec![1],
            dedup_generation: 1,
            reused: Vec::new(),
            twins: TwinRows::new(),
        };
        resolved.commit(lease, &commit).await
    };
    let entries = EntryReader::new(resolved.clone(), 1 << 20);
    let first = Position::new(1, 0, 0);
    let lost = ResolvedEvent { message_id: "lost".to_owned(), ..ResolvedEvent::default() };
    entries.remember(&lease, EntryBlock::of(first, [(lost, None, Bytes::new())]));
    assert_eq!(entries.from(&lease, first, 1, None).await.unwrap()[0].message_id, "lost");

    // A promoted standby: what is written down is of the timeline before.
    sqlx::query("update journal.history set timeline = 'of the one before'")
        .execute(&database.pool)
        .await
        .unwrap();
    assert!(matches!(commit(&lease).await, Err(StoreError::Fenced)), "before anybody has begun it");
    store.history().await.unwrap();
    assert!(matches!(commit(&lease).await, Err(StoreError::Fenced)), "another process has begun it");

    let changes = keeper.round(&duties(1)).await.unwrap();
    assert!(changes.anew && changes.taken.is_empty());
    assert!(lease.lost().is_cancelled());
    let changes = keeper.round(&duties(1)).await.unwrap();
    assert!(!changes.anew && changes.taken.is_empty(), "its task has not ended");
    keeper.ended(&[lease.duty]).await.unwrap();
    let next = keeper.round(&duties(1)).await.unwrap().taken.remove(0);
    let stale = entries.from(&next, first, 1, None).await.unwrap();
    assert!(stale.is_empty(), "nothing is resolved there: {stale:?}");
    commit(&next).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_written_is_what_the_oldest_that_may_still_read_can() {
    let database = database().await;
    let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), TTL);
    let fleet = keeper.fleet();
    assert_eq!(fleet.get(), 0, "nobody was seen yet");
    keeper.round(&duties(1)).await.unwrap();
    assert_eq!(fleet.get(), OUR_LEVEL);

    // As a process announces itself that knows of no levels.
    let run = async |sql: &'static str| sqlx::query(sql).execute(&database.pool).await.unwrap();
    run("insert into delivery.member (process, seen_at) values (gen_random_uuid(), now())").await;
    keeper.round(&duties(1)).await.unwrap();
    assert_eq!((fleet.get(), keeper.members()), (1, 2));
    run("update delivery.member set seen_at = now() - interval '40 seconds' where feature_level = 1").await;
    keeper.round(&duties(1)).await.unwrap();
    assert_eq!((fleet.get(), keeper.members()), (1, 1), "it may be paused, and have a lane's range in hand");
    run("update delivery.member set seen_at = now() - interval '61 seconds' where feature_level = 1").await;
    keeper.round(&duties(1)).await.unwrap();
    assert_eq!(fleet.get(), OUR_LEVEL);
}
