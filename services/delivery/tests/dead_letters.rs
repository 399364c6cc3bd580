//! Dead letters over a real PostgreSQL: whose they are, what narrowings do to them, and that nothing of it is looked for row by row.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::time::Duration;

use jiff::Timestamp;
use prost::Message as _;
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dead_letters::{DeadLetterStore, Selected, Whose};
use tracklayer_delivery::store::filed::Change;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{DeadRow, LaneCommit, LedgerStore, Settled};
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId, SubjectKey, WorkspaceId};
use tracklayer_proto::event::v1::ResolvedEvent;
use tracklayer_testkit::TestDatabase;

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const LANE: Duty = Duty { workspace: WORKSPACE, connection: ConnectionId(7), partition: Partition(0) };

fn subject(number: u8) -> SubjectKey {
    SubjectKey([number; 16])
}

/// Whose a letter is, decided when the log had come to a number.
fn of(keys: &[u8], decided_at: i64) -> Whose {
    Whose { subject_keys: keys.iter().copied().map(subject).collect(), decided_at }
}

/// The copy of an event of these people.
fn copy(keys: &[u8], narrowing_seq: i64) -> Vec<u8> {
    let subject_keys = keys.iter().map(|number| subject(*number).0.to_vec().into()).collect();
    ResolvedEvent { subject_keys, narrowing_seq, ..ResolvedEvent::default() }.encode_to_vec()
}

fn erased(number: u8) -> Change {
    Change::Erased([subject(number)].into())
}

fn merged(of: &[u8]) -> Change {
    Change::Merged(of.iter().copied().map(subject).collect())
}

struct World {
    database: TestDatabase,
    lease: Lease,
    ledger: LedgerStore,
    letters: DeadLetterStore,
    offset: u64,
}

impl World {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        CursorStore::new(database.pool.clone()).begin_lanes(&[LANE]).await.unwrap();
        let mut keeper = LeaseKeeper::new(LeaseStore::new(database.pool.clone()), Duration::from_secs(600));
        let lease = keeper.round(&[LANE].into()).await.unwrap().taken.remove(0);
        let ledger = LedgerStore::new(Index::new(database.pool.clone()));
        let letters = DeadLetterStore::new(database.pool.clone());
        Self { database, lease, ledger, letters, offset: 0 }
    }

    /// A lane's commit that brings dead letters, m-0 and so on: whose each is, and its copy.
    async fn commit(&mut self, letters: Vec<(Option<Whose>, Vec<u8>)>) {
        let first = Position::new(1, 0, self.offset);
        let mut commit = LaneCommit { id: uuid::Uuid::now_v7(), ..LaneCommit::default() };
        for (whose, resolved) in letters {
            let position = Position::new(1, 0, self.offset);
            commit.settled.push(Settled {
                position,
                source: SourceId(1),
                minute: 1,
                verdict: Verdict::of(State::Dead, "missing_value"),
            });
            commit.dead.push(DeadRow {
                position,
                message_id: format!("m-{}", self.offset),
                code: "missing_value".to_owned(),
                field: String::new(),
                detail: String::new(),
                request: String::new(),
                answer: String::new(),
                resolved,
                whose,
            });
            self.offset += 1;
        }
        self.ledger.commit_range(&self.lease, first, &commit).await.unwrap();
    }

    async fn left(&self) -> Vec<String> {
        sqlx::query_scalar("select message_id from delivery.dead_letter order by event_offset")
            .fetch_all(&self.database.pool)
            .await
            .unwrap()
    }

    async fn unfiled(&self) -> i64 {
        sqlx::query_scalar("select count(*) from delivery.dead_letter where subject_keys is null")
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }

    async fn seen(&self) -> Option<i64> {
        self.letters.filed().seen(WORKSPACE).await.unwrap()
    }

    async fn narrow(&self, seen: i64, now_seen: i64, changes: &[Change]) -> bool {
        self.letters.filed().narrow(WORKSPACE, seen, now_seen, changes).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_with_whoever_it_is_of_and_stays_dead() {
    let mut world = World::new().await;
    let letters =
        [(of(&[1, 2], 9), vec![1]), (of(&[3], 9), vec![1]), (of(&[4], 9), vec![1]), (of(&[], 0), vec![1])];
    world.commit(letters.map(|(whose, copy)| (Some(whose), copy)).into()).await;
    assert_eq!(world.seen().await, Some(9), "of nobody nothing has to be applied again");
    assert!(world.narrow(9, 9, &[erased(2)]).await);
    assert_eq!(world.left().await, ["m-1", "m-2", "m-3"]);
    assert!(world.narrow(9, 9, &[merged(&[3, 10]), merged(&[10, 11])]).await);
    assert!(world.narrow(9, 12, &[erased(11)]).await);
    assert_eq!(world.left().await, ["m-2", "m-3"]);
    for offset in 0..4 {
        let at = Position::new(1, 0, offset);
        let (verdict, _) = world.ledger.verdict(WORKSPACE, 7, at).await.unwrap().unwrap();
        assert_eq!((verdict.state, verdict.reason.as_str()), (State::Dead, "missing_value"), "{offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_for_good_is_applied_again_to_a_letter_whose_decision_is_older() {
    let mut world = World::new().await;
    world.commit(vec![(Some(of(&[1], 9)), vec![1])]).await;
    assert!(world.narrow(9, 20, &[erased(2)]).await);
    world.commit(vec![(Some(of(&[2], 19)), vec![1]), (Some(of(&[3], 20)), vec![1])]).await;
    assert_eq!(world.seen().await, Some(19));
    assert!(!world.narrow(20, 21, &[]).await, "who has applied up to 20 has to look again");
    assert!(world.narrow(19, 20, &[erased(2)]).await);
    assert_eq!(world.left().await, ["m-0", "m-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_which_nobody_says_whose_it_is_is_filed_by_its_copy() {
    let mut world = World::new().await;
    let copies = vec![copy(&[1], 5), copy(&[2], 7), b"\xff\xff\xff".to_vec(), Vec::new()];
    world.commit(copies.into_iter().map(|copy| (None, copy)).collect()).await;
    assert_eq!((world.unfiled().await, world.seen().await), (4, None));
    assert!(!world.letters.file_some().await.unwrap(), "there are no more");
    assert_eq!((world.unfiled().await, world.seen().await), (0, Some(5)), "from the oldest decision on");
    assert!(world.narrow(5, 8, &[erased(1)]).await);
    assert_eq!(world.left().await, ["m-1", "m-2", "m-3"], "what cannot be read is nobody's");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_go_by_age() {
    let mut world = World::new().await;
    world.commit(vec![(Some(of(&[1], 9)), vec![1]), (Some(of(&[2], 9)), vec![1])]).await;
    sqlx::query("update delivery.dead_letter set died_at = to_timestamp(event_offset)")
        .execute(&world.database.pool)
        .await
        .unwrap();
    assert!(!world.letters.forget(Timestamp::from_second(1).unwrap()).await.unwrap());
    assert_eq!(world.left().await, ["m-1"]);
}

fn selected(codes: &[&str], message_ids: &[&str]) -> Selected {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Selected { connection: LANE.connection, codes: words(codes), message_ids: words(message_ids) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_closed_is_counted_before_and_written_down() {
    let mut world = World::new().await;
    world.commit((0..4).map(|_| (Some(of(&[1], 9)), vec![1])).collect()).await;
    sqlx::query("update delivery.dead_letter set code = 'missing_currency' where event_offset = 3")
        .execute(&world.database.pool)
        .await
        .unwrap();
    let (count, by_then) = world.letters.count(WORKSPACE, &selected(&[], &[]), None).await.unwrap();
    assert_eq!(count, 4);
    // It dies after that.
    world.commit(vec![(Some(of(&[1], 9)), vec![1])]).await;
    let another = Selected { connection: ConnectionId(8), ..selected(&[], &[]) };
    assert_eq!(world.letters.close(WORKSPACE, &another, by_then, "ann").await.unwrap(), 0);
    let of_id = selected(&["missing_value"], &["m-0", "m-3"]);
    assert_eq!(world.letters.close(WORKSPACE, &of_id, by_then, "ann").await.unwrap(), 1);
    assert_eq!(world.left().await, ["m-1", "m-2", "m-3", "m-4"]);
    let of_code = selected(&["missing_value"], &[]);
    assert_eq!(world.letters.count(WORKSPACE, &of_code, Some(by_then)).await.unwrap(), (2, by_then));
    assert_eq!(world.letters.close(WORKSPACE, &of_code, by_then, "bob").await.unwrap(), 2);
    assert_eq!(world.left().await, ["m-3", "m-4"]);
    let written: Vec<(String, i64)> =
        sqlx::query_as("select asked_by, letters from delivery.dead_letter_close order by asked_at")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    assert_eq!(written, [("ann".to_owned(), 0), ("ann".to_owned(), 1), ("bob".to_owned(), 2)]);
    let (verdict, _) = world.ledger.verdict(WORKSPACE, 7, Position::new(1, 0, 0)).await.unwrap().unwrap();
    assert_eq!(verdict.state, State::Dead);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_letter_is_looked_for_row_by_row() {
    let world = World::new().await;
    sqlx::raw_sql(
        "insert into delivery.dead_letter
             (workspace_id, connection_id, partition, generation, event_offset, message_id, code, died_at, resolved, subject_keys)
         select 1, 7, 0, 1, n, 'm', 'c', to_timestamp(n), '', array[decode(lpad(to_hex(n), 32, '0'), 'hex')]
         from generate_series(1, 50000) n;
         analyze delivery.dead_letter;",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    let plan = async |statement: &'static str| {
        let lines: Vec<String> = sqlx::query_scalar(statement).fetch_all(&world.database.pool).await.unwrap();
        lines.join("\n")
    };
    for (statement, index) in [
        (
            "explain delete from delivery.dead_letter where ctid = any(array(
                 select ctid from delivery.dead_letter where died_at < to_timestamp(100)
                 order by died_at limit 10000 for update skip locked))",
            "dead_letter_by_time",
        ),
        (
            "explain select ctid::text, subject_keys from delivery.dead_letter
             where workspace_id = 1 and subject_keys && array[decode(lpad(to_hex(7), 32, '0'), 'hex')] for update",
            "dead_letter_by_subject",
        ),
        (
            "explain select workspace_id, connection_id, partition, generation, event_offset, resolved
             from delivery.dead_letter where subject_keys is null order by workspace_id limit 200",
            "dead_letter_unfiled",
        ),
    ] {
        let told = plan(statement).await;
        assert!(told.contains(index) && !told.contains("Seq Scan"), "{told}");
    }
}
