//! What a verdict about a whole request does to its events, over a real PostgreSQL: beside the lane's
//! commits, and once.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::ingest_requests::{
    Claimed, IngestRequestStore, RequestedAt, TakenRequest, ToldStatus,
};
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{LaneCommit, LedgerStore, Settled};
use tracklayer_delivery::store::refused_requests::{Moved, RequestedEvent};
use tracklayer_destination::data_manager::is_refused_later;
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId, WorkspaceId};
use tracklayer_testkit::TestDatabase;

const LANE: Duty = Duty { workspace: WorkspaceId(1), connection: ConnectionId(7), partition: Partition(0) };

fn at(offset: u64) -> Position {
    Position::new(1, 0, offset)
}

fn requested(offset: u64, sent_before: bool) -> RequestedAt {
    RequestedAt { position: at(offset), sent_before }
}

struct World {
    database: TestDatabase,
    lease: Lease,
    ledger: LedgerStore,
    store: IngestRequestStore,
    began: Timestamp,
}

impl World {
    async fn start() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        CursorStore::new(database.pool.clone()).begin_lanes(&[LANE]).await.unwrap();
        let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(600));
        let lease = keeper.round(&[LANE].into()).await.unwrap().taken.pop().unwrap();
        let ledger = LedgerStore::new(Index::new(database.pool.clone()));
        let store = IngestRequestStore::new(database.pool.clone());
        Self { database, lease, ledger, store, began: Timestamp::now() }
    }

    /// Two events from that offset on, which one request has brought; `first` is what a request before it may
    /// have brought as well.
    async fn delivers(&self, from: u64, first: bool) {
        let settled = |offset| {
            let mut verdict = Verdict::of(State::Delivered, "");
            verdict.detail = "unconfirmed: request r-1".to_owned();
            Settled { position: at(offset), source: SourceId(1), minute: 1, verdict }
        };
        let taken = TakenRequest {
            id: "r-1".to_owned(),
            events: 2,
            positions: vec![requested(from, first), requested(from + 1, false)],
            sent_at: self.began,
            first_look_at: self.began,
        };
        let commit = LaneCommit {
            settled: vec![settled(from), settled(from + 1)],
            taken: vec![taken],
            ..LaneCommit::default()
        };
        self.ledger.commit_range(&self.lease, at(from), &commit).await.unwrap();
    }

    /// Those that are due so many minutes after the beginning.
    async fn due_after(&self, minutes: i64) -> Vec<Claimed> {
        let now = self.began + SignedDuration::from_mins(minutes);
        self.store.claim(now, now + SignedDuration::from_mins(10), 10, 10, &[]).await.unwrap()
    }

    async fn refused(&self, claimed: &Claimed) -> Option<Moved> {
        refused(&self.store, claimed).await
    }

    /// Delivered and dead events by the rollups, and dead letters.
    async fn counts(&self) -> (i64, i64, i64) {
        let query = "with r as (select * from delivery.rollup where connection_id = 7)
                     select (select coalesce(sum(events), 0)::bigint from r where state = 6 and reason = ''),
                            (select coalesce(sum(events), 0)::bigint from r
                             where state = 7 and reason = 'rejected_by_platform'),
                            (select count(*) from delivery.dead_letter)";
        sqlx::query_as(query).fetch_one(&self.database.pool).await.unwrap()
    }
}

/// Says that all of a request's events have failed.
async fn refused(store: &IngestRequestStore, claimed: &Claimed) -> Option<Moved> {
    let told = ToldStatus { status: "FAILED".to_owned(), failed: claimed.events, ..ToldStatus::default() };
    let event = |at| RequestedEvent {
        at,
        source: SourceId(1),
        received_ms: 60_000,
        message_id: "m-1".to_owned(),
        resolved: vec![1],
    };
    let positions = store.positions(claimed).await.unwrap();
    let events = positions.into_iter().map(event).collect();
    store.refuse(claimed, &told, "NO_CONSENT", events, Timestamp::now()).await.unwrap()
}

#[tokio::test]
async fn a_request_whose_events_come_in_two_commits_is_asked_about_again_and_moves_each_once() {
    let world = World::start().await;
    world.delivers(0, false).await;
    let first = world.due_after(1).await.remove(0);
    assert_eq!((first.partition, first.events), (LANE.partition, 2));
    assert_eq!(world.refused(&first).await, Some(Moved { dead: 2, elsewhere: 0 }));
    assert_eq!(world.counts().await, (0, 2, 2));
    assert_eq!(world.due_after(60).await, [], "it is told");

    world.delivers(2, false).await;
    assert_eq!(world.counts().await, (2, 2, 2));
    let second = world.due_after(61).await.remove(0);
    let all = [0, 1, 2, 3].map(|offset| requested(offset, false));
    assert_eq!(world.store.positions(&second).await.unwrap(), all);
    assert_eq!(world.refused(&second).await, Some(Moved { dead: 2, elsewhere: 2 }));
    assert_eq!(world.counts().await, (0, 4, 4));
    assert_eq!(world.due_after(120).await, []);
}

#[tokio::test]
async fn a_verdict_is_about_the_events_that_were_known_when_it_was_asked_for() {
    let world = World::start().await;
    world.delivers(0, false).await;
    let early = world.due_after(1).await.remove(0);
    world.delivers(2, false).await;
    assert_eq!(world.refused(&early).await, None, "of half of them it may not be whole");
    let success = ToldStatus { status: "SUCCESS".to_owned(), ..ToldStatus::default() };
    assert!(!world.store.tell(&early, &success, Timestamp::now()).await.unwrap());
    assert_eq!(world.counts().await, (4, 0, 0));
    let whole = world.due_after(12).await.remove(0);
    assert_eq!((whole.events, whole.looks), (4, 1));
    assert_eq!(world.refused(&whole).await, Some(Moved { dead: 4, elsewhere: 0 }));
    assert_eq!(world.counts().await, (0, 4, 4));
}

#[tokio::test]
async fn of_what_a_request_before_may_have_brought_nobody_knows() {
    let world = World::start().await;
    world.delivers(0, true).await;
    let claimed = world.due_after(1).await.remove(0);
    assert_eq!(claimed.events, 2);
    assert_eq!(world.refused(&claimed).await, Some(Moved { dead: 2, elsewhere: 0 }));
    assert_eq!(world.counts().await, (0, 1, 2));
    let verdicts = world.ledger.verdicts(LANE.workspace, LANE.connection, &[at(0), at(1)]).await.unwrap();
    let verdict = |offset| verdicts[&at(offset)].as_ref().unwrap();
    let told = [verdict(0), verdict(1)].map(|verdict| (verdict.state, verdict.reason.as_str()));
    assert_eq!(told, [(State::Dead, "outcome_unknown"), (State::Dead, "rejected_by_platform")]);
    assert!(is_refused_later(&verdict(0).detail) && is_refused_later(&verdict(1).detail));
}

#[tokio::test]
async fn what_went_well_is_not_asked_about_again_and_its_positions_are_forgotten() {
    let world = World::start().await;
    world.delivers(0, false).await;
    let claimed = world.due_after(1).await.remove(0);
    let success = ToldStatus { status: "SUCCESS".to_owned(), ..ToldStatus::default() };
    assert!(world.store.tell(&claimed, &success, Timestamp::now()).await.unwrap());
    assert_eq!(world.store.positions(&claimed).await.unwrap(), []);
    world.delivers(2, false).await;
    assert_eq!(world.due_after(60).await, []);
}

#[tokio::test]
async fn it_waits_for_the_lanes_commit_and_goes_by_what_that_has_written() {
    let world = World::start().await;
    world.delivers(0, false).await;
    let claimed = world.due_after(1).await.remove(0);
    let mut commit = world.database.pool.begin().await.unwrap();
    let fence = "select 1 from delivery.lease where connection_id = 7 for key share";
    sqlx::query(fence).execute(&mut *commit).await.unwrap();
    let taken = "insert into delivery.ledger_late
                     (workspace_id, connection_id, partition, generation, event_offset, source_id, state,
                      reason, attempts, latency_ms)
                 values (1, 7, 0, 1, 0, 1, 4, 'replay', 1, 1)";
    sqlx::query(taken).execute(&mut *commit).await.unwrap();
    let store = world.store.clone();
    let mut moving = tokio::spawn(async move { refused(&store, &claimed).await });
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut moving).await;
    assert!(waited.is_err(), "the lane commits");
    commit.commit().await.unwrap();
    assert_eq!(moving.await.unwrap(), Some(Moved { dead: 1, elsewhere: 1 }));
    let verdicts = world.ledger.verdicts(LANE.workspace, LANE.connection, &[at(0)]).await.unwrap();
    assert_eq!(verdicts[&at(0)].as_ref().unwrap().state, State::Held);
}
