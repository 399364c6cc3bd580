//! The database has another history: a standby was promoted, or a backup restored. The contract's tests promote a real one
//! (`libs/journal-kafka/tests/contract/promoted.rs`); here the row that tells is changed.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Generation, Partition, PartitionKey, Position, SourceId, WorkspaceId};
use tracklayer_journal::{
    Appended, Appender, AppenderSettings, Block, BlockBuilder, Draft, Journal as _, NewBlock,
    PostgresJournal, Spread,
};
use tracklayer_testkit::{TestDatabase, append};

const WORKSPACE: WorkspaceId = WorkspaceId(7);
const FOUR: Spread = Spread { partitions: 4, revision: 1 };

async fn journal() -> (TestDatabase, PostgresJournal) {
    let database = tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await;
    let journal = PostgresJournal::new(database.pool.clone());
    journal.ensure_partitions(2).await.unwrap();
    (database, journal)
}

/// What is written down is of another timeline than the one that is written to.
async fn fail_over(database: &TestDatabase) {
    sqlx::query("update journal.history set timeline = 'of the one before'")
        .execute(&database.pool)
        .await
        .unwrap();
}

fn block(events: usize) -> Block {
    let mut builder = BlockBuilder::default();
    (0..events).for_each(|_| builder.push(SourceId(1), 1, b"event"));
    builder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_position_is_given_twice_and_what_is_beyond_the_end_is_not_held() {
    let (database, journal) = journal().await;
    let before = journal.layout(WORKSPACE, FOUR).await.unwrap();
    append(&journal, WORKSPACE, Partition(0), &block(2)).await.unwrap();
    fail_over(&database).await;

    let late = NewBlock {
        workspace: WORKSPACE,
        partition: Partition(0),
        generation: before.generation,
        block: block(3),
    };
    assert_eq!(journal.append(&[late]).await.unwrap(), [Appended::Stale], "before anybody has begun it");
    let rows: i64 =
        sqlx::query_scalar("select count(*) from journal.received").fetch_one(&database.pool).await.unwrap();
    assert_eq!(rows, 1);

    let after = journal.layout(WORKSPACE, FOUR).await.unwrap();
    // The next but one: the next may have been opened in what was lost.
    assert_eq!((after.generation, after.partitions), (Generation(3), 4));
    assert_eq!(journal.layout(WORKSPACE, FOUR).await.unwrap(), after, "once");
    let since = append(&journal, WORKSPACE, Partition(0), &block(3)).await.unwrap();
    assert_eq!(since, Appended::At(Position::new(3, 0, 0)));

    let asked = [(1, 0, 1), (1, 0, 2), (1, 1, 0), (2, 0, 0), (3, 0, 2), (3, 0, 3), (4, 0, 0), (3, 9, 0)];
    let positions = asked.map(|(generation, partition, offset)| Position::new(generation, partition, offset));
    let held = journal.holds(WORKSPACE, &positions).await.unwrap();
    assert_eq!(held, [true, false, false, false, true, false, false, false]);
    assert_eq!(journal.holds(WorkspaceId(8), &positions).await.unwrap(), [false; 8]);

    // Of this one nothing is left, and it may have been there.
    assert_eq!(journal.layout(WorkspaceId(8), FOUR).await.unwrap().generation, Generation(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_configuration_is_obeyed_behind_it_and_an_older_one_is_not() {
    let (database, journal) = journal().await;
    journal.layout(WORKSPACE, Spread { partitions: 2, revision: 5 }).await.unwrap();
    fail_over(&database).await;
    let layout = journal.layout(WORKSPACE, Spread { partitions: 4, revision: 4 }).await.unwrap();
    assert_eq!((layout.generation, layout.partitions), (Generation(3), 2));
    let layout = journal.layout(WORKSPACE, Spread { partitions: 4, revision: 6 }).await.unwrap();
    assert_eq!((layout.generation, layout.partitions), (Generation(4), 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_find_it_one_begins_it() {
    let (database, journal) = journal().await;
    append(&journal, WORKSPACE, Partition(0), &block(1)).await.unwrap();
    fail_over(&database).await;
    let renew = || async {
        let asked = sqlx::query_scalar::<_, uuid::Uuid>("select journal.renew(true)");
        asked.fetch_one(&database.pool).await.unwrap()
    };
    let ids = futures::future::join_all((0..12).map(|_| renew())).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(journal.layouts().await.unwrap().len(), 2);
    assert_eq!(renew().await, ids[0], "nothing more happens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_records_gives_positions_by_itself_and_its_heads_stay() {
    let (database, journal) = journal().await;
    append(&journal, WORKSPACE, Partition(0), &block(1)).await.unwrap();
    fail_over(&database).await;
    let asked = sqlx::query_scalar::<_, uuid::Uuid>("select journal.renew(false)");
    asked.fetch_one(&database.pool).await.unwrap();
    assert_eq!(journal.layouts().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appender_goes_on_over_it_and_nothing_is_lost_or_stored_twice() {
    let (database, journal) = journal().await;
    let appender = Appender::start(journal.clone(), AppenderSettings::default(), &CancellationToken::new());
    let mut told = Vec::new();
    for n in 0..30_u64 {
        if n % 10 == 5 {
            fail_over(&database).await;
        }
        let bytes = Bytes::from(n.to_string());
        let draft = Draft { key: PartitionKey(1), source: SourceId(1), minute: 1, bytes };
        told.extend(appender.append(WORKSPACE, FOUR, vec![draft]).await.unwrap());
    }
    let places: Vec<(u32, u64)> =
        told.into_iter().flatten().map(|at| (at.generation.0, at.offset.0)).collect();
    let of = |generation, events: u64| (0..events).map(move |offset| (generation, offset));
    assert_eq!(places, of(1, 5).chain(of(3, 10)).chain(of(5, 10)).chain(of(7, 5)).collect::<Vec<_>>());
    let stored: i64 = sqlx::query_scalar("select sum(event_count)::bigint from journal.received")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(stored, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_tell_its_timeline_is_used_and_said_to_be_weak() {
    let (database, journal) = journal().await;
    sqlx::raw_sql(
        "alter function journal.timeline() rename to told;
         create function journal.timeline() returns text language sql as $$ select 'untold/1'::text $$;",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    append(&journal, WORKSPACE, Partition(0), &block(1)).await.unwrap();
    let weaknesses = journal.weaknesses().await.unwrap().join("\n");
    assert!(weaknesses.contains("does not tell its timeline"), "{weaknesses}");
}
