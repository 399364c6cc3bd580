//! Claims of events that a log has lost, over a real Redis and PostgreSQL.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use redis::aio::ConnectionManager;
use tracklayer_delivery::dedup::{Claimed, Dedup, DedupError, Memory, Wanted};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::resolve::message_hash;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dedup_generation::DedupGenerationStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_delivery::store::twins::TwinRows;
use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::claim::Claim;
use tracklayer_journal::{Block, BlockBuilder, Kind, LayoutStore, PostgresJournal, Record};
use tracklayer_proto::event::v1::{Event, EventType};
use tracklayer_testkit::{TestDatabase, TestRedis};

const WORKSPACE: WorkspaceId = WorkspaceId(1);

struct Rig {
    database: TestDatabase,
    _redis: TestRedis,
    dedup: Dedup,
    cursors: CursorStore,
    lease: Lease,
}

fn event(message_id: &str) -> Event {
    Event {
        message_id: message_id.to_owned(),
        r#type: EventType::Track.into(),
        source_id: 1,
        ..Event::default()
    }
}

impl Rig {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let redis = tracklayer_testkit::redis().await;
        let client = redis::Client::open(redis.url.as_str()).unwrap();
        let connection = ConnectionManager::new(client).await.unwrap();
        let pool = database.pool.clone();
        let generations = DedupGenerationStore::new(pool.clone());
        let dedup = Dedup::new(connection, generations, ResolvedStore::new(Index::new(pool.clone())));
        let cursors = CursorStore::beside(pool.clone(), Kind::Kafka);
        for partition in [0, 1] {
            cursors.resolve(WORKSPACE, Partition(partition)).await.unwrap();
        }
        let mut keeper = LeaseKeeper::new(LeaseStore::new(pool), std::time::Duration::from_secs(600));
        let lease =
            keeper.round(&[Duty::resolve(WORKSPACE, Partition(0))].into()).await.unwrap().taken.remove(0);
        let dedup = dedup.beside_a_log_that_may_change();
        Self { database, _redis: redis, dedup, cursors, lease }
    }

    async fn claim(&self, claims: &[(&str, Position)]) -> Vec<Claimed> {
        let events: Vec<Event> = claims.iter().map(|(id, _)| event(id)).collect();
        let wanted: Vec<Wanted<'_>> = events
            .iter()
            .zip(claims)
            .map(|(event, (_, at))| Wanted {
                message_id: &event.message_id,
                claim: Claim::of(event, *at),
                ttl: Memory::DEFAULT,
            })
            .collect();
        loop {
            match self.dedup.claim(WORKSPACE, &wanted, &Memory::default()).await {
                Ok(answers) => return answers.claimed,
                Err(DedupError::HistoryChanged) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// Commits one event as the winner at offset 0 of partition 0.
    async fn commit(&self, message_id: &str) {
        let mut builder = BlockBuilder::default();
        builder.push(SourceId(1), 1, b"resolved");
        let block = builder.finish().unwrap();
        let commit = ResolvedCommit {
            first: Position::new(1, 0, 0),
            block: &block,
            message_hashes: vec![message_hash(message_id)],
            dedup_generation: 1,
            reused: Vec::new(),
            twins: TwinRows::new(),
        };
        ResolvedStore::new(Index::new(self.database.pool.clone()))
            .commit(&self.lease, &commit)
            .await
            .unwrap();
    }
}

fn block(events: usize) -> Block {
    let mut builder = BlockBuilder::default();
    (0..events).for_each(|_| builder.push(SourceId(1), 1, b"received"));
    builder.finish().unwrap()
}

fn at(generation: u32, partition: u32, offset: u64) -> Position {
    Position::new(generation, partition, offset)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_beyond_the_end_of_a_lost_history_is_taken_over_by_one_event_only() {
    let rig = Rig::new().await;
    // Two events are claimed, the first is committed, and then the log loses what is behind it.
    assert_eq!(
        rig.claim(&[("kept", at(1, 0, 0)), ("lost", at(1, 0, 1))]).await,
        [Claimed::Winner, Claimed::Winner]
    );
    rig.commit("kept").await;
    let before = rig.claim(&[("lost", at(1, 1, 7))]).await;
    assert_eq!(before, [Claimed::DuplicateOf(at(1, 0, 1))], "its log may still hold it");
    let begins = Record { offset: 0, step: 0, mark: None };
    rig.cursors.open_generation(&rig.lease, at(1, 0, 1), begins).await.unwrap();

    // What was committed stays the first; what was not is nobody's.
    let again = rig.claim(&[("kept", at(2, 0, 0)), ("lost", at(2, 0, 1)), ("lost", at(2, 0, 2))]).await;
    assert_eq!(
        again,
        [Claimed::DuplicateOf(at(1, 0, 0)), Claimed::Winner, Claimed::DuplicateOf(at(2, 0, 1))]
    );
    assert_eq!(rig.claim(&[("lost", at(1, 1, 8))]).await, [Claimed::DuplicateOf(at(2, 0, 1))]);
    assert_eq!(rig.claim(&[("lost", at(2, 0, 1))]).await, [Claimed::Winner], "it finds its own");

    // Ingest, which knows no cursor, is told.
    let told = LayoutStore::new(rig.database.pool.clone());
    let told = told.not_lost(WORKSPACE, &[at(1, 0, 0), at(2, 0, 0), at(1, 1, 7)]).await.unwrap();
    assert_eq!(told, [false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_postgres_a_claim_beyond_the_end_that_a_failover_has_left_is_taken_over() {
    let mut rig = Rig::new().await;
    let journal = PostgresJournal::new(rig.database.pool.clone());
    rig.dedup = rig.dedup.clone().beside(journal.clone().into());
    let append = async |partition| {
        let appended = tracklayer_testkit::append(&journal, WORKSPACE, Partition(partition), &block(2)).await;
        appended.unwrap()
    };
    append(0).await;
    // The third of partition 0 was claimed and is lost; what is left of it is not, whether it was resolved or not.
    let (kept, lost) = (at(1, 0, 1), at(1, 0, 2));
    assert_eq!(rig.claim(&[("kept", kept), ("lost", lost)]).await, [Claimed::Winner, Claimed::Winner]);
    sqlx::query("update journal.history set timeline = 'of the one before'")
        .execute(&rig.database.pool)
        .await
        .unwrap();
    append(0).await;
    append(1).await;
    let again = rig.claim(&[("kept", at(3, 0, 0)), ("lost", at(3, 0, 1)), ("lost", at(3, 1, 0))]).await;
    assert_eq!(again, [Claimed::DuplicateOf(kept), Claimed::Winner, Claimed::DuplicateOf(at(3, 0, 1))]);
    assert_eq!(rig.claim(&[("lost", at(3, 1, 1))]).await, [Claimed::DuplicateOf(at(3, 0, 1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_find_one_void_claim_one_wins() {
    let rig = Rig::new().await;
    assert_eq!(rig.claim(&[("lost", at(1, 0, 5))]).await, [Claimed::Winner]);
    let begins = Record { offset: 0, step: 0, mark: None };
    rig.cursors.open_generation(&rig.lease, at(1, 0, 0), begins).await.unwrap();
    let claims: Vec<[(&str, Position); 1]> = (0..16).map(|n| [("lost", at(1, 1, n))]).collect();
    let answers = futures::future::join_all(claims.iter().map(|claim| rig.claim(claim))).await;
    let winners = answers.iter().filter(|answer| **answer == [Claimed::Winner]).count();
    assert_eq!(winners, 1, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_wrote_down_how_a_generation_ended_the_index_knows_what_was_resolved_of_it() {
    // By a release that has an index and rows, each.
    for in_runs in [true, false] {
        let rig = Rig::new().await;
        let (kept, lost) = (at(1, 0, 0), at(1, 0, 1));
        assert_eq!(rig.claim(&[("kept", kept), ("lost", lost)]).await, [Claimed::Winner, Claimed::Winner]);
        rig.commit("kept").await;
        let begins = Record { offset: 0, step: 0, mark: None };
        rig.cursors.open_generation(&rig.lease, lost, begins).await.unwrap();
        let mut statements = vec!["delete from delivery.ended_generation".to_owned()];
        if !in_runs {
            statements.push("delete from delivery.index_run".to_owned());
            let hash = message_hash("kept");
            statements.push(format!("insert into delivery.message_index values (1, {hash}, 0, 1, 0)"));
        }
        for statement in statements {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&rig.database.pool).await.unwrap();
        }
        let again = rig.claim(&[("kept", at(2, 0, 0)), ("lost", at(2, 0, 1))]).await;
        assert_eq!(again, [Claimed::DuplicateOf(kept), Claimed::Winner], "in runs: {in_runs}");
    }
}
