//! Commits of which nothing is special, over a real PostgreSQL: one statement has all of them, of a lane's range and of a resolved one,
//! and writes all of it or nothing.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use tracklayer_delivery::dedup::Reuse;
use tracklayer_delivery::lease::{Duty, FleetLevel, INDEX_LEVEL, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::reused_ids::ReusedIds;
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::lanes::LaneStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{LaneCommit, LedgerStore, Settled};
use tracklayer_delivery::store::match_quality::QualityRow;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_delivery::store::twins::{TwinCounts, TwinKey};
use tracklayer_destination::{Key, KeyCounts, KeySet};
use tracklayer_ids::{ConnectionId, Generation, Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::BlockBuilder;
use tracklayer_testkit::{TestDatabase, eventually};
use uuid::Uuid;

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const LANE: Duty = Duty { workspace: WORKSPACE, connection: ConnectionId(7), partition: Partition(0) };
const INTENT: Uuid = Uuid::from_u128(5);

/// As a taker does it: locked first.
const TAKE_OVER: [&str; 2] =
    ["select 1 from delivery.lease for update", "update delivery.lease set epoch = epoch + 1"];

/// The cursor, and then how much there is of everything that a commit of a lane writes, intents last.
const OF_THE_LANE: &str = "select concat_ws(' ',
    (select generation || '/' || next_offset from delivery.lane_cursor),
    (select count(*) from delivery.ledger_block),
    (select coalesce(sum(events), 0) from delivery.rollup),
    (select coalesce(sum(events), 0) from delivery.latency),
    (select coalesce(sum(requests), 0) from delivery.request_count),
    (select coalesce(sum(events), 0) from delivery.match_quality),
    (select coalesce(sum(s.n), 0) from delivery.match_quality q cross join unnest(q.sent) as s (n)),
    (select coalesce(sum(events), 0) from delivery.match_quality_left_out),
    (select count(*) from delivery.intent))";

/// The same of a commit of resolve: rows, runs, rows of the index, what was accepted, whose ids were used before, what was a twin.
const OF_RESOLVE: &str = "select concat_ws(' ',
    (select generation || '/' || next_offset from delivery.resolve_cursor),
    (select count(*) from delivery.resolved),
    (select count(*) from delivery.index_run),
    (select count(*) from delivery.message_index),
    (select coalesce(sum(events), 0) from delivery.rollup),
    (select coalesce(sum(events), 0) from delivery.reused_id),
    (select coalesce(least(sum(copies), sum(twins), sum(first_twins)), 0) from delivery.twin_count))";

struct World {
    database: TestDatabase,
    lane: Lease,
    resolve: Lease,
    fleet: FleetLevel,
}

impl World {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let cursors = CursorStore::new(database.pool.clone());
        cursors.begin_lanes(&[LANE]).await.unwrap();
        cursors.resolve(WORKSPACE, LANE.partition).await.unwrap();
        sqlx::query(
            "insert into delivery.dedup_generation (generation, run_id, evicted_keys, sentinel, rebuilt)
             values (1, '', 0, '', true)",
        )
        .execute(&database.pool)
        .await
        .unwrap();
        let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(600));
        let duties = [LANE, Duty::resolve(WORKSPACE, LANE.partition)];
        let taken = keeper.round(&duties.into()).await.unwrap().taken;
        let of = |duty: Duty| taken.iter().find(|lease| lease.duty == duty).unwrap().clone();
        let (lane, resolve) = (of(duties[0]), of(duties[1]));
        let fleet = FleetLevel::default();
        fleet.set(INDEX_LEVEL);
        Self { database, lane, resolve, fleet }
    }

    async fn run(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.database.pool).await.unwrap();
    }

    async fn told(&self, query: &'static str) -> String {
        sqlx::query_scalar(query).fetch_one(&self.database.pool).await.unwrap()
    }

    async fn intend(&self) -> Result<(), StoreError> {
        let lanes = LaneStore::new(self.database.pool.clone());
        lanes.intend(&self.lane, INTENT, Generation(1), &[0], "").await
    }

    /// Commits the event of the lane at an offset, which knows how the intent ended.
    fn settle(&self, offset: u64) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let ledger = LedgerStore::new(Index::new(self.database.pool.clone()));
        let lease = self.lane.clone();
        async move { ledger.commit_range(&lease, Position::new(1, 0, offset), &delivered(offset)).await }
    }

    /// Commits a resolved range of one event at an offset.
    fn resolve(&self, offset: u64) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let index = Index::beside(self.database.pool.clone(), self.fleet.clone());
        let (resolved, lease) = (ResolvedStore::new(index), self.resolve.clone());
        async move {
            let mut builder = BlockBuilder::default();
            builder.push(SourceId(1), 1, b"event");
            let block = builder.finish().unwrap();
            let reused = ReusedIds { hour: 1, source: SourceId(1), reuse: Reuse::OtherOrder, events: 1 };
            let twin = TwinKey { minute: 1, first: SourceId(2), second: SourceId(1), by_order: false };
            let commit = ResolvedCommit {
                first: Position::new(1, 0, offset),
                block: &block,
                message_hashes: vec![1],
                dedup_generation: 1,
                reused: vec![reused],
                twins: [(twin, TwinCounts { copies: 1, twins: 1, first_twins: 1 })].into(),
            };
            resolved.commit(&lease, &commit).await
        }
    }

    /// Waits until so many commits wait for a lock.
    async fn wait_for(&self, waiting: i64) {
        const WAITING: &str = "select count(*) from pg_stat_activity
             where wait_event_type = 'Lock' and datname = current_database()";
        eventually("commits to wait for a lock", async || {
            let now: i64 = sqlx::query_scalar(WAITING).fetch_one(&self.database.pool).await.unwrap();
            (now == waiting).then_some(())
        })
        .await;
    }
}

fn delivered(offset: u64) -> LaneCommit {
    let quality = QualityRow {
        minute: 1,
        event_name: "Purchase".to_owned(),
        counts: KeyCounts::of_one(KeySet::of(&[Key::Email])),
        left_out: BTreeMap::from([((Key::Phone, "no_digits"), 1)]),
    };
    LaneCommit {
        settled: vec![Settled {
            position: Position::new(1, 0, offset),
            source: SourceId(1),
            minute: 1,
            verdict: Verdict::of(State::Delivered, ""),
        }],
        intents: vec![INTENT],
        requests: 1,
        quality: vec![quality],
        ..LaneCommit::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_written_with_all_that_is_counted_of_it_and_only_once() {
    let world = World::new().await;
    world.intend().await.unwrap();
    assert_eq!(world.told(OF_THE_LANE).await, "1/0 0 0 0 0 0 0 0 1");
    world.settle(0).await.unwrap();
    assert_eq!(world.told(OF_THE_LANE).await, "1/1 1 1 1 1 1 1 1 0");
    for elsewhere in [0, 2] {
        let again = world.settle(elsewhere).await;
        assert!(matches!(again, Err(StoreError::CursorMoved)), "{again:?}");
    }
    assert_eq!(world.told(OF_THE_LANE).await, "1/1 1 1 1 1 1 1 1 0");
    world.settle(1).await.unwrap();
    assert_eq!(world.told(OF_THE_LANE).await, "1/2 2 2 2 2 2 2 2 0", "added to what was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolved_range_is_written_with_all_that_belongs_to_it_and_only_once() {
    let world = World::new().await;
    world.resolve(0).await.unwrap();
    assert_eq!(world.told(OF_RESOLVE).await, "1/1 1 1 0 1 1 1");
    let again = world.resolve(0).await;
    assert!(matches!(again, Err(StoreError::CursorMoved)), "{again:?}");
    // Beside a process that does not read runs.
    world.fleet.set(INDEX_LEVEL - 1);
    world.resolve(1).await.unwrap();
    assert_eq!(world.told(OF_RESOLVE).await, "1/2 2 1 1 2 2 2");
    world.run("update delivery.dedup_generation set rebuilt = false").await;
    let bumped = world.resolve(2).await;
    assert!(matches!(bumped, Err(StoreError::DedupGenerationBumped)), "{bumped:?}");
    assert_eq!(world.told(OF_RESOLVE).await, "1/2 2 1 1 2 2 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_lease_that_was_lost_nothing_is_written() {
    let world = World::new().await;
    world.intend().await.unwrap();
    world.run(TAKE_OVER[1]).await;
    world.run("delete from delivery.intent").await;
    // Whatever else is wrong by then.
    world.run("update delivery.dedup_generation set generation = 2").await;
    let of_the_lane = [world.intend().await, world.settle(0).await, world.settle(9).await];
    for refused in of_the_lane.into_iter().chain([world.resolve(0).await]) {
        assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    }
    assert_eq!(world.told(OF_THE_LANE).await, "1/0 0 0 0 0 0 0 0 0");
    assert_eq!(world.told(OF_RESOLVE).await, "1/0 0 0 0 0 0 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_another_history_of_the_database_nothing_is_written() {
    let world = World::new().await;
    // After a promotion: before anybody has begun the next history, and then.
    for other in ["update journal.history set timeline = 'of the one before'", "select journal.renew(false)"]
    {
        world.run(other).await;
        for refused in [world.intend().await, world.settle(0).await, world.resolve(0).await] {
            assert!(matches!(refused, Err(StoreError::Fenced)), "{other}: {refused:?}");
        }
    }
    assert_eq!(world.told(OF_THE_LANE).await, "1/0 0 0 0 0 0 0 0 0");
    assert_eq!(world.told(OF_RESOLVE).await, "1/0 0 0 0 0 0 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_taken_over_after_a_commit_has_begun_and_before_its_lock_is_there_is_lost() {
    let world = World::new().await;
    let mut taker = world.database.pool.begin().await.unwrap();
    for statement in TAKE_OVER {
        sqlx::query(statement).execute(&mut *taker).await.unwrap();
    }
    let lanes = LaneStore::new(world.database.pool.clone());
    let lease = world.lane.clone();
    let intend = async move { lanes.intend(&lease, INTENT, Generation(1), &[0], "").await };
    let commits = [tokio::spawn(world.settle(0)), tokio::spawn(world.resolve(0)), tokio::spawn(intend)];
    world.wait_for(3).await;
    taker.commit().await.unwrap();
    for commit in commits {
        let refused = commit.await.unwrap();
        assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    }
    assert_eq!(world.told(OF_THE_LANE).await, "1/0 0 0 0 0 0 0 0 0");
    assert_eq!(world.told(OF_RESOLVE).await, "1/0 0 0 0 0 0 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_bumped_while_a_commit_waits_for_it_is_another() {
    let world = World::new().await;
    let mut bump = world.database.pool.begin().await.unwrap();
    sqlx::query("update delivery.dedup_generation set generation = 2").execute(&mut *bump).await.unwrap();
    let commit = tokio::spawn(world.resolve(0));
    world.wait_for(1).await;
    bump.commit().await.unwrap();
    let refused = commit.await.unwrap();
    assert!(matches!(refused, Err(StoreError::DedupGenerationBumped)), "{refused:?}");
    assert_eq!(world.told(OF_RESOLVE).await, "1/0 0 0 0 0 0 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tries_of_a_commit_at_the_same_time_one_is_written() {
    let world = World::new().await;
    // Each kind of commit waits for its row of these with its cursor locked.
    let mut first = world.database.pool.begin().await.unwrap();
    sqlx::query("insert into delivery.rollup values (1, 7, 0, 1, 1, 6, '', 0), (1, 0, 0, 1, 1, 0, '', 0)")
        .execute(&mut *first)
        .await
        .unwrap();
    let mut tries = vec![tokio::spawn(world.settle(0)), tokio::spawn(world.resolve(0))];
    world.wait_for(2).await;
    tries.extend([tokio::spawn(world.settle(0)), tokio::spawn(world.resolve(0))]);
    world.wait_for(4).await;
    first.rollback().await.unwrap();
    let mut refused = 0;
    for commit in tries {
        match commit.await.unwrap() {
            Ok(()) => {}
            Err(StoreError::CursorMoved) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(refused, 2);
    assert_eq!(world.told(OF_THE_LANE).await, "1/1 1 2 1 1 1 1 1 0", "the rollup of resolve counts as well");
    assert_eq!(world.told(OF_RESOLVE).await, "1/1 1 1 0 2 1 1");
}
