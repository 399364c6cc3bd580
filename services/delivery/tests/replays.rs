//! Taking what is to be replayed, over a real PostgreSQL: fenced, once, and not after a cancellation.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::replay::walk::Stretch;
use tracklayer_delivery::replay::{Counts, Origin, Selection, What};
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{DeadRow, LaneCommit, LedgerStore, RetryRow, Settled};
use tracklayer_delivery::store::replay_events::{Adopted, Ended, Mark, Take, TakenEvent, Took};
use tracklayer_delivery::store::replays::{ReplayStore, StoredReplay};
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId, WorkspaceId};
use tracklayer_testkit::TestDatabase;
use uuid::Uuid;

const LANE: Duty = Duty { workspace: WorkspaceId(1), connection: ConnectionId(7), partition: Partition(0) };

fn at(offset: u64) -> Position {
    Position::new(1, 0, offset)
}

fn settled(offset: u64, state: State, reason: &str) -> Settled {
    Settled { position: at(offset), source: SourceId(1), minute: 1, verdict: Verdict::of(state, reason) }
}

/// A lane with two dead letters and an event that was delivered.
async fn lane() -> (TestDatabase, Lease, ReplayStore, LedgerStore) {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    CursorStore::new(database.pool.clone()).begin_lanes(&[LANE]).await.unwrap();
    let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(600));
    let lease = keeper.round(&[LANE].into()).await.unwrap().taken.pop().unwrap();
    let ledger = LedgerStore::new(Index::new(database.pool.clone()));
    let letter = |offset| DeadRow {
        position: at(offset),
        message_id: format!("m-{offset}"),
        code: "missing_value".to_owned(),
        field: String::new(),
        detail: String::new(),
        request: String::new(),
        answer: String::new(),
        resolved: vec![1],
        whose: None,
    };
    let commit = LaneCommit {
        settled: vec![
            settled(0, State::Dead, "missing_value"),
            settled(1, State::Delivered, ""),
            settled(2, State::Dead, "missing_value"),
        ],
        dead: vec![letter(0), letter(2)],
        ..LaneCommit::default()
    };
    ledger.commit_range(&lease, at(0), &commit).await.unwrap();
    let store = ReplayStore::new(database.pool.clone());
    (database, lease, store, ledger)
}

fn stretch() -> Stretch {
    let asked_at = jiff::Timestamp::now() + Duration::from_secs(60);
    Stretch { duty: LANE, start: at(0), next: at(0), end: at(3), asked_at, is_plan: false }
}

async fn start(store: &ReplayStore) -> StoredReplay {
    let selection = Selection::of(Origin::DeadLetters);
    let stretches = [(stretch(), 2)];
    let started = store.start(LANE.workspace, LANE.connection, &selection, "ann", &stretches, 2).await;
    started.unwrap().unwrap()
}

fn taken(offset: u64) -> TakenEvent {
    TakenEvent {
        before: Verdict::of(State::Dead, "missing_value"),
        settled: settled(offset, State::Held, "replay"),
        row: RetryRow {
            position: at(offset),
            order_key: offset,
            attempts: 0,
            tries: 0,
            transient_holds: 0,
            next_at: jiff::Timestamp::now(),
            first_sent_at: None,
            waited: None,
            reason: "replay".to_owned(),
            resolved: vec![1],
        },
    }
}

fn take(replay: i64, counts: &Counts) -> Take<'_> {
    let (from, next) = (at(0), at(1));
    Take { replay, from, next, done: false, walked: 1, counts, events: vec![taken(0)] }
}

/// Taken events without an end: all, those that do not wait for their order, and those of these that are due.
async fn ahead(store: &ReplayStore) -> (u64, u64, u64) {
    let ahead = store.ahead(LANE, jiff::Timestamp::now()).await.unwrap();
    (ahead.all, ahead.not_early, ahead.due)
}

async fn rows(database: &TestDatabase) -> (i64, i64, i64) {
    let query = "select (select count(*) from delivery.dead_letter), (select count(*) from delivery.retry),
                        (select coalesce(sum(events), 0)::bigint from delivery.rollup where state = 4)";
    sqlx::query_as(query).fetch_one(&database.pool).await.unwrap()
}

#[tokio::test]
async fn a_page_is_taken_once_and_its_event_ends_with_the_retrys_commit() {
    let (database, lease, store, ledger) = lane().await;
    let replay = start(&store).await;
    assert_eq!(store.open().await.unwrap(), [(LANE, replay.id)]);
    let counts = Counts::from([((What::Eligible, String::new()), 1)]);
    assert_eq!(store.take(&lease, &take(replay.id, &counts)).await.unwrap(), Took::All);
    assert_eq!(
        store.take(&lease, &take(replay.id, &counts)).await.unwrap(),
        Took::Moved,
        "its answer was lost"
    );
    assert_eq!(rows(&database).await, (1, 1, 1));
    assert_eq!(ahead(&store).await, (1, 1, 1));
    let marks = store.marks(LANE, &[at(0), at(1)]).await.unwrap();
    let before = Mark { state: State::Dead, reason: "missing_value".to_owned(), was_counted: false };
    assert_eq!(marks.into_iter().collect::<Vec<_>>(), [(at(0), before)]);
    let verdicts =
        ledger.verdicts(LANE.workspace, LANE.connection, &[at(0), at(1), at(2), at(9)]).await.unwrap();
    let state =
        |offset| verdicts.get(&at(offset)).and_then(Option::as_ref).map(|v| (v.state, v.reason.as_str()));
    assert_eq!(state(0), Some((State::Held, "replay")));
    assert_eq!(state(1), Some((State::Delivered, "")));
    assert_eq!((state(2), state(9)), (Some((State::Dead, "missing_value")), None));

    let commit = LaneCommit {
        id: Uuid::now_v7(),
        settled: vec![settled(0, State::Delivered, "")],
        replayed: vec![Ended {
            position: at(0),
            state: State::Delivered,
            reason: String::new(),
            was_delivered: false,
        }],
        ..LaneCommit::default()
    };
    ledger.commit_retries(&lease, &commit).await.unwrap();
    assert_eq!(rows(&database).await, (1, 0, 0));
    assert_eq!(ahead(&store).await, (0, 0, 0));
    let findings = store.findings(LANE.workspace, replay.id).await.unwrap();
    assert_eq!((findings.open, findings.counts[&("eligible".to_owned(), String::new())]), (0, 1));
    assert_eq!(findings.ended[&(State::Delivered.number(), String::new())], 1);
    let stored = store.get(LANE.workspace, replay.id).await.unwrap().unwrap();
    assert_eq!((stored.walked, stored.open_lanes), ((1, 2), 1));
}

#[tokio::test]
async fn a_page_with_what_a_verdict_has_killed_since_is_not_taken() {
    let (database, lease, store, _ledger) = lane().await;
    let replay = start(&store).await;
    let counts = Counts::from([((What::Eligible, String::new()), 1)]);
    let event = || TakenEvent { before: Verdict::of(State::Delivered, ""), ..taken(1) };
    let page = || Take { events: vec![event()], ..take(replay.id, &counts) };
    let late = "insert into delivery.ledger_late
                    (workspace_id, connection_id, partition, generation, event_offset, source_id, state,
                     reason, attempts, latency_ms)
                values (1, 7, 0, 1, 1, 1, 7, 'rejected_by_platform', 1, 1)";
    sqlx::query(late).execute(&database.pool).await.unwrap();
    let before = rows(&database).await;
    assert_eq!(store.take(&lease, &page()).await.unwrap(), Took::Moved, "it would be counted off twice");
    assert_eq!(rows(&database).await, before);
    let stretch = store.stretch(LANE, replay.id, at(0)).await.unwrap().unwrap().1;
    assert_eq!(stretch.next, at(0), "it is walked once more");
    sqlx::query("delete from delivery.ledger_late").execute(&database.pool).await.unwrap();
    assert_eq!(store.take(&lease, &page()).await.unwrap(), Took::All);
}

#[tokio::test]
async fn what_was_counted_stays_so_for_every_later_replay() {
    let (_database, lease, store, ledger) = lane().await;
    let counts = Counts::from([((What::Eligible, String::new()), 1)]);
    let (dead, shadowed) = ((State::Dead, "missing_value"), (State::Shadowed, ""));
    let mut known = Vec::new();
    for (before, after) in [(dead, shadowed), (shadowed, dead), (dead, dead)] {
        let replay = start(&store).await;
        let event = TakenEvent { before: Verdict::of(before.0, before.1), ..taken(0) };
        let page = Take { done: true, events: vec![event], ..take(replay.id, &counts) };
        assert_eq!(store.take(&lease, &page).await.unwrap(), Took::All);
        let marks = store.marks(LANE, &[at(0)]).await.unwrap();
        known.push((marks[&at(0)].state, marks[&at(0)].was_counted));
        let ended =
            Ended { position: at(0), state: after.0, reason: after.1.to_owned(), was_delivered: false };
        let commit = LaneCommit {
            id: Uuid::now_v7(),
            settled: vec![settled(0, after.0, after.1)],
            replayed: vec![ended],
            ..LaneCommit::default()
        };
        ledger.commit_retries(&lease, &commit).await.unwrap();
    }
    assert_eq!(known, [(State::Dead, false), (State::Shadowed, true), (State::Dead, true)]);
}

#[tokio::test]
async fn who_has_lost_the_lease_takes_nothing() {
    let (database, mut lease, store, _) = lane().await;
    let replay = start(&store).await;
    lease.epoch -= 1;
    let counts = Counts::new();
    let taken = store.take(&lease, &take(replay.id, &counts)).await;
    assert!(matches!(taken, Err(StoreError::Fenced)), "{taken:?}");
    let adopted = Adopted { first: at(0), events: 1, counts: Default::default() };
    let adopted = store.adopt(&lease, at(0), &adopted).await;
    assert!(matches!(adopted, Err(StoreError::Fenced)), "{adopted:?}");
    assert_eq!(rows(&database).await, (2, 0, 0));
}

#[tokio::test]
async fn nothing_is_taken_after_a_cancellation_and_one_that_is_over_is_not_cancelled() {
    let (database, lease, store, _) = lane().await;
    let (first, second) = (start(&store).await, start(&store).await);
    store.cancel(WorkspaceId(2), first.id, "eve").await.unwrap();
    assert_eq!(store.get(LANE.workspace, first.id).await.unwrap().unwrap().cancelled, None);
    store.cancel(LANE.workspace, first.id, "bob").await.unwrap();
    let counts = Counts::new();
    assert_eq!(store.take(&lease, &take(first.id, &counts)).await.unwrap(), Took::Cancelled);
    assert_eq!(store.stretch(LANE, first.id, at(0)).await.unwrap(), None);
    assert_eq!(store.open().await.unwrap(), [(LANE, second.id)]);
    assert_eq!(rows(&database).await, (2, 0, 0));
    let last = Take { done: true, ..take(second.id, &counts) };
    assert_eq!(store.take(&lease, &last).await.unwrap(), Took::All);
    store.cancel(LANE.workspace, second.id, "bob").await.unwrap();
    let listed = store.list(LANE.workspace, ConnectionId(0), 10).await.unwrap();
    let cancelled: Vec<_> = listed.iter().map(|replay| (replay.id, replay.cancelled.is_some())).collect();
    assert_eq!(cancelled, [(second.id, false), (first.id, true)]);
    assert!(store.list(WorkspaceId(2), ConnectionId(0), 10).await.unwrap().is_empty());
    let open: Vec<u64> = listed.iter().map(|replay| replay.open_lanes).collect();
    assert_eq!(open, [0, 0], "the lanes of what was cancelled are done with it");
    assert_eq!(store.get(WorkspaceId(2), first.id).await.unwrap(), None, "it is of another workspace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_that_nobody_hears_of_is_waited_for() {
    let (database, _, store, _) = lane().await;
    start(&store).await;
    let mut take = database.pool.begin().await.unwrap();
    sqlx::query("update delivery.replay_lane set done_at = now()").execute(&mut *take).await.unwrap();
    let waits = tokio::spawn(async move { store.wait_for_takes(LANE).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waits.is_finished(), "it is not known yet whether it comes through");
    take.commit().await.unwrap();
    waits.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_at_the_same_time_finds_room_for_so_many_and_no_more() {
    let (_database, _, store, _) = lane().await;
    let begun = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let selection = Selection::of(Origin::DeadLetters);
            let stretches = [(stretch(), 2)];
            store.start(LANE.workspace, LANE.connection, &selection, "ann", &stretches, 2).await
        })
    });
    let mut started = 0;
    for begun in begun.collect::<Vec<_>>() {
        started += usize::from(begun.await.unwrap().unwrap().is_some());
    }
    assert_eq!((started, store.open().await.unwrap().len()), (2, 2));
}

#[tokio::test]
async fn why_a_replay_rests_is_told_until_its_next_page() {
    let (_database, lease, store, _) = lane().await;
    let replay = start(&store).await;
    store.failed(LANE, replay.id, "consent is away").await.unwrap();
    let told = async || store.get(LANE.workspace, replay.id).await.unwrap().unwrap().failure;
    assert_eq!(told().await.as_deref(), Some("consent is away"));
    let counts = Counts::new();
    assert_eq!(store.take(&lease, &take(replay.id, &counts)).await.unwrap(), Took::All);
    assert_eq!(told().await, None);
}

#[tokio::test]
async fn letters_are_walked_in_order_and_those_that_came_later_are_not_of_it() {
    let (database, _, store, _) = lane().await;
    let all = Selection::of(Origin::DeadLetters);
    let offsets = async |stretch: Stretch, selection: &Selection| {
        let letters = store.letters(&stretch, selection, 10).await.unwrap();
        letters.into_iter().map(|(at, _)| at.offset.0).collect::<Vec<_>>()
    };
    assert_eq!(offsets(stretch(), &all).await, [0, 2]);
    assert_eq!(offsets(Stretch { next: at(1), ..stretch() }, &all).await, [2]);
    let by_id = Selection { message_ids: vec!["m-0".to_owned()], ..all.clone() };
    let by_code = Selection { codes: vec!["poisoned".to_owned()], ..all.clone() };
    assert_eq!((offsets(stretch(), &by_id).await, offsets(stretch(), &by_code).await), (vec![0], vec![]));
    assert_eq!(store.positions(&stretch(), &all).await.unwrap(), 2);
    sqlx::query(
        "update delivery.dead_letter set died_at = now() + interval '2 hours' where event_offset = 2",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    assert_eq!(offsets(stretch(), &all).await, [0]);
}
