//! The number of partitions changes while appenders of several processes are at work.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Generation, Partition, PartitionKey, Position, SourceId, WorkspaceId};
use tracklayer_journal::{
    Appender, AppenderSettings, Draft, Journal as _, LayoutStore, PostgresJournal, Spread,
};
use tracklayer_testkit::TestDatabase;

const WORKSPACE: WorkspaceId = WorkspaceId(7);
/// What the configuration says, one after the other.
const WIDTHS: [u32; 6] = [4, 7, 1, 3, 8, 2];
const PROCESSES: u64 = 3;
const VISITORS: u64 = 5;
const CALLS: usize = 8;
const UNDER_WAY: usize = 5;
const EVENTS: u64 = 3;

async fn journal() -> (TestDatabase, PostgresJournal) {
    let database = tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await;
    let journal = PostgresJournal::new(database.pool.clone());
    journal.ensure_partitions(2).await.unwrap();
    (database, journal)
}

fn spread(revision: usize) -> Spread {
    Spread { partitions: WIDTHS[revision], revision: revision as u64 + 1 }
}

/// One visitor's events, a few calls of them under way at any time, each as a newer configuration has it.
async fn visit(appender: Appender, visitor: u64) {
    let calls = (0..CALLS * WIDTHS.len()).map(|call| {
        let draft = |event| Draft {
            key: PartitionKey(visitor),
            source: SourceId(1),
            minute: 1,
            bytes: Bytes::from(format!("{visitor} {}", call as u64 * EVENTS + event)),
        };
        appender.append(WORKSPACE, spread(call / CALLS), (0..EVENTS).map(draft).collect())
    });
    let appended: Vec<_> = futures::stream::iter(calls).buffered(UNDER_WAY).collect().await;
    appended.into_iter().for_each(|positions| assert_eq!(positions.unwrap().len() as u64, EVENTS));
}

/// All events of a partition in one generation: visitor and number.
async fn events_of(journal: &PostgresJournal, generation: Generation, partition: u32) -> Vec<(u64, u64)> {
    let mut at = Position::new(generation.0, partition, 0);
    let mut events = Vec::new();
    loop {
        let blocks = journal.read(WORKSPACE, at, 100).await.unwrap();
        let Some(last) = blocks.last() else { return events };
        at.offset = last.end();
        for bytes in blocks.iter().flat_map(|block| block.events().unwrap()) {
            let text = std::str::from_utf8(&bytes).unwrap();
            let (visitor, number) = text.split_once(' ').unwrap();
            events.push((visitor.parse().unwrap(), number.parse().unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_visitors_events_keep_their_order_over_all_changes_and_none_is_lost_or_doubled() {
    let (_database, journal) = journal().await;
    let mut visits = tokio::task::JoinSet::new();
    for process in 0..PROCESSES {
        // Few events in each append, so that others wait behind it when a change is found.
        let settings = AppenderSettings { max_append_bytes: 50, shards: 2, ..AppenderSettings::default() };
        let appender = Appender::start(journal.clone(), settings, &CancellationToken::new());
        for visitor in 0..VISITORS {
            visits.spawn(visit(appender.clone(), process * VISITORS + visitor));
        }
    }
    visits.join_all().await;

    let layouts = journal.layouts().await.unwrap();
    let widths: Vec<u32> = layouts.iter().map(|(_, layout)| layout.partitions).collect();
    assert_eq!(widths.last(), WIDTHS.last(), "the newest configuration wins: {widths:?}");
    assert!(widths.len() > 2, "{widths:?}");
    let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (_, layout) in &layouts {
        for partition in 0..8 {
            for (visitor, number) in events_of(&journal, layout.generation, partition).await {
                let its = PartitionKey(visitor).partition(layout.partitions);
                assert_eq!(Partition(partition), its, "visitor {visitor} in {layout:?}");
                seen.entry(visitor).or_default().push(number);
            }
        }
    }
    let all: Vec<u64> = (0..(WIDTHS.len() * CALLS) as u64 * EVENTS).collect();
    assert_eq!(seen.len() as u64, PROCESSES * VISITORS);
    for (visitor, numbers) in seen {
        assert_eq!(numbers, all, "of visitor {visitor}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_changes_for_a_newer_configuration_only() {
    let (database, journal) = journal().await;
    let open = async |partitions, revision| {
        let layout = journal.layout(WORKSPACE, Spread { partitions, revision }).await.unwrap();
        (layout.generation.0, layout.partitions)
    };
    assert_eq!(open(4, 5).await, (1, 4));
    assert_eq!(open(4, 9).await, (1, 4), "the same is no change");
    assert_eq!(open(8, 4).await, (1, 4), "older than the one that opened it");
    assert_eq!(open(2, 10).await, (2, 2));
    assert_eq!(open(4, 9).await, (2, 2), "a process that has not heard of it yet");
    let heads: Vec<(i32, i32)> =
        sqlx::query_as("select partition, generation from journal.head order by partition")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(heads, [(0, 2), (1, 2), (2, 2), (3, 2)], "nobody appends to the old generation any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_before_layouts_were_written_down_is_a_generation_of_its_own() {
    let (database, journal) = journal().await;
    old_release_appends(&database).await.unwrap();
    // Whatever it was spread over: here over more than is asked for now.
    let layout = journal.layout(WORKSPACE, Spread { partitions: 2, revision: 1 }).await.unwrap();
    assert_eq!((layout.generation, layout.partitions), (Generation(2), 2));
    let ended: (i32, i32, i64) =
        sqlx::query_as("select generation, partition, next_offset from journal.layout_end")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(ended, (1, 3, 1));
    // Both releases are there while one takes the place of the other.
    old_release_appends(&database).await.unwrap();
    let head: (i32, i64) =
        sqlx::query_as("select generation, next_offset from journal.head where partition = 3")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(head, (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_keeps_its_layout_keeps_the_last_one_of_the_journal_before() {
    let (database, journal) = journal().await;
    let layouts = LayoutStore::new(database.pool.clone());
    let kept = async |revision| {
        let layout = layouts.keep(WORKSPACE, spread(revision)).await.unwrap();
        (layout.generation.0, layout.partitions)
    };
    assert_eq!(kept(0).await, (1, 4));
    assert_eq!(kept(1).await, (1, 4), "the first one for ever");
    journal.layout(WORKSPACE, spread(2)).await.unwrap();
    assert_eq!(kept(3).await, (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_the_release_before_stores_nothing_after_a_change() {
    let (database, journal) = journal().await;
    journal.layout(WORKSPACE, spread(0)).await.unwrap();
    old_release_appends(&database).await.unwrap();
    journal.layout(WORKSPACE, spread(1)).await.unwrap();
    let refused = old_release_appends(&database).await.unwrap_err().to_string();
    assert!(refused.contains("has to be replaced"), "{refused}");
    assert_eq!(journal.heads().await.unwrap().iter().map(|head| head.next.0).sum::<u64>(), 0);
}

/// One event to partition 3.
async fn old_release_appends(database: &TestDatabase) -> Result<(), sqlx::Error> {
    sqlx::query("select * from journal.append(array[7::bigint], array[3], array[1], array[''::bytea], array[''::bytea])")
        .execute(&database.pool)
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_told_to_who_waits_for_the_layout_and_the_next_one_asks_again() {
    let (database, journal) = journal().await;
    let appender = Appender::start(journal, AppenderSettings::default(), &CancellationToken::new());
    let draft = || {
        let bytes = Bytes::from_static(b"1 0");
        vec![Draft { key: PartitionKey(1), source: SourceId(1), minute: 1, bytes }]
    };
    sqlx::query("alter function journal.open_layout rename to gone").execute(&database.pool).await.unwrap();
    let refused = appender.append(WORKSPACE, spread(0), draft()).await.unwrap_err();
    assert!(refused.to_string().contains("open_layout"), "{refused}");
    assert_eq!(appender.waiting_bytes(), 0);
    sqlx::query("alter function journal.gone rename to open_layout").execute(&database.pool).await.unwrap();
    appender.append(WORKSPACE, spread(0), draft()).await.unwrap();
    assert_eq!(appender.waiting_bytes(), 0);
}
