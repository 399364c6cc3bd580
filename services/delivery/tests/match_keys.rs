//! What orders were matched by, over a real PostgreSQL: whose it is, what narrowings do to it, and that nothing of it is looked for
//! row by row.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use jiff::Timestamp;
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::filed::{Change, MOST_SUBJECTS};
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{LaneCommit, LedgerStore, Settled};
use tracklayer_delivery::store::match_keys::{MatchKeyStore, SealedKey};
use tracklayer_delivery::store::orders::order_hash;
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId, SubjectKey, WorkspaceId};
use tracklayer_testkit::TestDatabase;

const WORKSPACE: WorkspaceId = WorkspaceId(1);

fn lane(partition: u32) -> Duty {
    Duty { workspace: WORKSPACE, connection: ConnectionId(7), partition: Partition(partition) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn subject(number: u16) -> SubjectKey {
    let mut key = [0; 16];
    key[..2].copy_from_slice(&number.to_be_bytes());
    SubjectKey(key)
}

/// A key of a sale at a second, of these people, decided when the log had come to a number.
fn key(order: &str, second: i64, sealed: &str, of: &[u16], decided_at: i64) -> SealedKey {
    SealedKey {
        hash: order_hash(order),
        sold_at: at(second),
        sealed: sealed.to_owned(),
        subject_keys: of.iter().copied().map(subject).collect(),
        decided_at,
    }
}

struct World {
    database: TestDatabase,
    lease: Lease,
    ledger: LedgerStore,
    keys: MatchKeyStore,
    offset: u64,
}

impl World {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        CursorStore::new(database.pool.clone()).begin_lanes(&[lane(0)]).await.unwrap();
        let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(600));
        let lease = keeper.round(&[lane(0)].into()).await.unwrap().taken.remove(0);
        let ledger = LedgerStore::new(Index::new(database.pool.clone()));
        let keys = MatchKeyStore::new(database.pool.clone());
        Self { database, lease, ledger, keys, offset: 0 }
    }

    /// A lane's commit that brings keys.
    async fn commit(&mut self, match_keys: Vec<SealedKey>) {
        let first = Position::new(1, 0, self.offset);
        self.offset += 1;
        let settled = Settled {
            position: first,
            source: SourceId(1),
            minute: 1,
            verdict: Verdict::of(State::Delivered, ""),
        };
        let commit = LaneCommit { settled: vec![settled], match_keys, ..LaneCommit::default() };
        self.ledger.commit_range(&self.lease, first, &commit).await.unwrap();
    }

    async fn known(&self, duty: Duty) -> Vec<String> {
        let ids = ["o-1", "o-2", "o-3"].map(str::to_owned);
        let mut known: Vec<_> = self.keys.of_orders(duty, &ids).await.unwrap().into_iter().collect();
        known.sort();
        known.into_iter().map(|(order, key)| format!("{order} {key}")).collect()
    }

    async fn narrow(&self, seen: i64, now_seen: i64, changes: &[Change]) -> bool {
        self.keys.filed().narrow(WORKSPACE, seen, now_seen, changes).await.unwrap()
    }
}

fn erased(of: &[u16]) -> Change {
    Change::Erased(of.iter().copied().map(subject).collect())
}

fn merged(of: &[u16]) -> Change {
    Change::Merged(of.iter().copied().map(subject).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_kept_for_its_connection_and_forgotten_with_time() {
    let mut world = World::new().await;
    let keys =
        [key("o-1", 5, "first", &[1], 9), key("o-2", 5, "other", &[2], 9), key("o-1", 6, "second", &[1], 9)];
    world.commit(keys.into()).await;
    assert_eq!(world.known(lane(1)).await, ["o-1 second", "o-2 other"], "whichever partition asks");
    let another = Duty { connection: ConnectionId(8), ..lane(0) };
    assert!(world.known(another).await.is_empty(), "another connection");
    world.commit(vec![key("o-1", 4, "late", &[1], 9)]).await;
    assert_eq!(world.known(lane(0)).await, ["o-1 second", "o-2 other"], "the later sale counts");
    assert_eq!(world.keys.forget(at(6)).await.unwrap(), 1);
    assert_eq!(world.known(lane(0)).await, ["o-1 second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_with_whoever_it_is_of_also_by_the_name_of_whom_that_was_merged_with() {
    let mut world = World::new().await;
    world
        .commit(vec![
            key("o-1", 5, "anns", &[1, 2], 9),
            key("o-2", 5, "bobs", &[3], 9),
            key("o-3", 5, "cats", &[4], 9),
        ])
        .await;
    assert_eq!(world.keys.filed().seen(WORKSPACE).await.unwrap(), Some(9));
    assert_eq!(world.keys.filed().workspaces().await.unwrap(), [WORKSPACE]);
    assert!(world.narrow(9, 9, &[erased(&[2])]).await);
    assert_eq!(world.known(lane(0)).await, ["o-2 bobs", "o-3 cats"]);
    // From merge to merge, and once more over.
    for _ in 0..2 {
        assert!(world.narrow(9, 9, &[merged(&[3, 10]), merged(&[10, 11])]).await);
    }
    assert!(world.narrow(9, 12, &[erased(&[11])]).await);
    assert_eq!(world.known(lane(0)).await, ["o-3 cats"]);
    assert!(!world.narrow(9, 13, &[erased(&[4])]).await, "somebody else was faster");
    assert_eq!(world.known(lane(0)).await, ["o-3 cats"]);
    let many: Vec<u16> = (100..).take(MOST_SUBJECTS).chain([4]).collect();
    assert!(world.narrow(12, 13, &[merged(&many)]).await);
    assert!(world.known(lane(0)).await.is_empty(), "of more than identity ever tells of");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_lanes_the_one_that_decided_first_may_write_last() {
    let mut world = World::new().await;
    world.commit(vec![key("o-1", 5, "decided on more", &[1], 9)]).await;
    world.commit(vec![key("o-2", 5, "decided on less", &[2], 7)]).await;
    assert_eq!(world.known(lane(0)).await, ["o-1 decided on more", "o-2 decided on less"]);
    let seen = world.keys.filed().seen(WORKSPACE).await.unwrap();
    assert_eq!(seen, Some(7), "what came after is to be applied to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_for_good_is_applied_again_to_a_key_whose_decision_is_older() {
    let mut world = World::new().await;
    world.commit(vec![key("o-1", 5, "first", &[1], 9)]).await;
    assert!(world.narrow(9, 20, &[erased(&[2])]).await);
    world.commit(vec![key("o-2", 5, "early", &[2], 19), key("o-3", 5, "just in time", &[3], 20)]).await;
    assert_eq!(world.keys.filed().seen(WORKSPACE).await.unwrap(), Some(19));
    assert!(!world.narrow(20, 21, &[]).await, "who has applied up to 20 has to look again");
    assert!(world.narrow(19, 20, &[erased(&[2])]).await);
    assert_eq!(world.known(lane(0)).await, ["o-1 first", "o-3 just in time"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_waits_for_a_lane_that_brings_keys() {
    let mut world = World::new().await;
    world.commit(vec![key("o-1", 5, "first", &[1], 9)]).await;
    // A lane in the middle of its commit.
    let mut lane_commits = world.database.pool.begin().await.unwrap();
    sqlx::query("select seen_seq from delivery.match_key_narrowing for share")
        .execute(&mut *lane_commits)
        .await
        .unwrap();
    let keys = world.keys.filed();
    let applied = tokio::spawn(async move { keys.narrow(WORKSPACE, 9, 20, &[erased(&[2])]).await.unwrap() });
    tracklayer_testkit::eventually("what is applied to wait", async || {
        let (waiting,): (i64,) = sqlx::query_as(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
             and query like '%match_key_narrowing%'",
        )
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
        (waiting == 1).then_some(())
    })
    .await;
    sqlx::query(
        "insert into delivery.order_match_key values (1, 7, $1, to_timestamp(5), 'brought', array[$2::bytea])",
    )
    .bind(order_hash("o-2"))
    .bind(subject(2).0.as_slice())
    .execute(&mut *lane_commits)
    .await
    .unwrap();
    lane_commits.commit().await.unwrap();
    assert!(applied.await.unwrap());
    assert_eq!(world.known(lane(0)).await, ["o-1 first"], "it saw what the lane had brought");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_looked_for_row_by_row() {
    let world = World::new().await;
    sqlx::raw_sql(
        "insert into delivery.order_match_key
         select 1, 7, n, to_timestamp(n), 'sealed', array[decode(lpad(to_hex(n), 32, '0'), 'hex')]
         from generate_series(1, 50000) n;
         analyze delivery.order_match_key;",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    let plan = async |statement: &'static str| {
        let lines: Vec<String> = sqlx::query_scalar(statement).fetch_all(&world.database.pool).await.unwrap();
        lines.join("\n")
    };
    let forgotten = plan(
        "explain delete from delivery.order_match_key where ctid = any(array(
             select ctid from delivery.order_match_key where sold_at < to_timestamp(100)
             order by sold_at limit 10000 for update skip locked))",
    )
    .await;
    assert!(forgotten.contains("order_match_key_by_time"), "{forgotten}");
    assert!(!forgotten.contains("Seq Scan"), "{forgotten}");
    let named = plan(
        "explain select ctid::text, subject_keys from delivery.order_match_key
         where workspace_id = 1 and subject_keys && array[decode(lpad(to_hex(7), 32, '0'), 'hex')] for update",
    )
    .await;
    assert!(named.contains("order_match_key_by_subject"), "{named}");
    assert!(!named.contains("Seq Scan"), "{named}");
}
