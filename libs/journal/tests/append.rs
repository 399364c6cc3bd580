//! The journal over a real PostgreSQL: order, no holes, group commit, overload.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Generation, Partition, PartitionKey, Position, SourceId, WorkspaceId};
use tracklayer_journal::{
    AppendError, Appender, AppenderSettings, BlockBuilder, Draft, PostgresJournal, Spread,
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

fn draft(partition: u32, text: String) -> Draft {
    Draft {
        key: PartitionKey(u64::from(partition)),
        source: SourceId(1),
        minute: 1,
        bytes: Bytes::from(text),
    }
}

async fn all_events(journal: &PostgresJournal, partition: u32) -> Vec<String> {
    all_events_of(journal, WORKSPACE, partition).await
}

async fn all_events_of(journal: &PostgresJournal, workspace: WorkspaceId, partition: u32) -> Vec<String> {
    let mut texts = Vec::new();
    let mut at = Position::new(1, partition, 0);
    loop {
        let blocks = journal.read(workspace, at, 10).await.unwrap();
        let Some(last) = blocks.last() else { return texts };
        at.offset = last.end();
        for block in &blocks {
            texts.extend(block.events().unwrap().iter().map(|b| String::from_utf8(b.to_vec()).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_get_positions_without_holes_and_find_their_events_there() {
    let (_database, journal) = journal().await;
    let stop = CancellationToken::new();
    let appender = Appender::start(journal.clone(), AppenderSettings::default(), &stop);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..40 {
        let appender = appender.clone();
        callers.spawn(async move {
            let mut got = Vec::new();
            for round in 0..10 {
                let drafts = (0..3).map(|i| draft(i % 2, format!("{caller}-{round}-{i}"))).collect();
                for (i, position) in
                    appender.append(WORKSPACE, FOUR, drafts).await.unwrap().into_iter().enumerate()
                {
                    got.push((position.unwrap(), format!("{caller}-{round}-{i}")));
                }
            }
            got
        });
    }
    let mut seen = HashSet::new();
    let mut expected = Vec::new();
    while let Some(got) = callers.join_next().await {
        for (position, text) in got.unwrap() {
            assert!(seen.insert(position), "{position} was given twice");
            expected.push((position, text));
        }
    }
    for partition in 0..2 {
        let stored = all_events(&journal, partition).await;
        let mine: Vec<_> = expected.iter().filter(|(p, _)| p.partition.0 == partition).collect();
        assert_eq!(stored.len(), mine.len());
        for (position, text) in mine {
            assert_eq!(&stored[position.offset.0 as usize], text);
        }
    }
    let blocks: (i64,) =
        sqlx::query_as("select count(*) from journal.received").fetch_one(&_database.pool).await.unwrap();
    assert!(blocks.0 < 600, "1,200 events of 400 small requests must share blocks, there are {}", blocks.0);
    stop.cancel();
    appender.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_caller_hands_over_first_gets_the_lower_offset_without_waiting_for_acks() {
    let (_database, journal) = journal().await;
    let appender = Appender::start(journal.clone(), AppenderSettings::default(), &CancellationToken::new());
    let calls: Vec<_> =
        (0..200).map(|i| appender.append(WORKSPACE, FOUR, vec![draft(0, format!("{i:03}"))])).collect();
    futures::future::try_join_all(calls).await.unwrap();
    let stored = all_events(&journal, 0).await;
    let mut sorted = stored.clone();
    sorted.sort();
    assert_eq!(stored, sorted);
}

/// Events of one caller.
const LARGE: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn many_busy_workspaces_share_the_shards_and_all_of_it_is_stored_in_order_before_the_end() {
    let (_database, journal) = journal().await;
    let stop = CancellationToken::new();
    // Room in an append for little more than one call, so that most workspaces do not fit when it is their turn.
    let settings = AppenderSettings { shards: 1, max_append_bytes: 100_000, ..AppenderSettings::default() };
    let appender = Appender::start(journal.clone(), settings, &stop);
    for workspace in 1..=8 {
        // Its layout is known from now on: what comes goes to the shard at once.
        appender.append(WorkspaceId(workspace), FOUR, vec![draft(1, "first".to_owned())]).await.unwrap();
    }
    let mut calls = tokio::task::JoinSet::new();
    for round in 0..6 {
        for workspace in 1..=8 {
            // Some hand over much, some little.
            let events = if workspace % 2 == 0 { LARGE } else { 2 };
            let text = |i: usize| format!("{:06} {}", round * LARGE + i, "x".repeat(290));
            let drafts = (0..events).map(|i| draft(0, text(i))).collect();
            let appender = appender.clone();
            let mut call =
                Box::pin(async move { appender.append(WorkspaceId(workspace), FOUR, drafts).await });
            // Handed over now, in this order.
            assert!(futures::poll!(&mut call).is_pending());
            calls.spawn(call);
        }
    }
    stop.cancel();
    appender.stopped().await;
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    for workspace in 1..=8 {
        let events = if workspace % 2 == 0 { LARGE } else { 2 };
        let stored = all_events_of(&journal, WorkspaceId(workspace), 0).await;
        let numbers: Vec<usize> = stored.iter().map(|text| text[..6].parse().unwrap()).collect();
        let expected: Vec<usize> =
            (0..6).flat_map(|round| (0..events).map(move |i| round * LARGE + i)).collect();
        assert_eq!(numbers, expected, "of workspace {workspace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn above_its_limit_the_appender_tells_callers_to_come_back_and_stores_nothing() {
    let (_database, journal) = journal().await;
    let settings = AppenderSettings { max_waiting_bytes: 1_000, ..AppenderSettings::default() };
    let appender = Appender::start(journal.clone(), settings, &CancellationToken::new());
    let refused = appender.append(WORKSPACE, FOUR, vec![draft(0, "x".repeat(2_000))]).await;
    assert!(
        matches!(refused, Err(AppendError::Overloaded { retry_after, .. }) if retry_after == Duration::from_secs(1))
    );
    assert_eq!(appender.waiting_bytes(), 0);
    assert!(all_events(&journal, 0).await.is_empty());
    appender.append(WORKSPACE, FOUR, vec![draft(0, "y".repeat(500))]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_start_inside_a_block_and_heads_say_where_it_ends() {
    let (_database, journal) = journal().await;
    let appender = Appender::start(journal.clone(), AppenderSettings::default(), &CancellationToken::new());
    let drafts = (0..5).map(|i| draft(3, format!("{i}"))).collect();
    appender.append(WORKSPACE, FOUR, drafts).await.unwrap();
    let blocks = journal.read(WORKSPACE, Position::new(1, 3, 4), 10).await.unwrap();
    assert_eq!((blocks.len(), blocks[0].first.offset.0), (1, 0));
    assert!(journal.read(WORKSPACE, Position::new(1, 3, 5), 10).await.unwrap().is_empty());
    let heads = journal.heads().await.unwrap();
    let ends: Vec<_> = heads.iter().map(|head| (head.generation, head.next.0)).collect();
    assert_eq!(ends, [0, 0, 0, 5].map(|next| (Generation(1), next)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_block_with_a_flipped_bit_is_an_error_with_its_position() {
    let (database, journal) = journal().await;
    let appender = Appender::start(journal.clone(), AppenderSettings::default(), &CancellationToken::new());
    appender.append(WORKSPACE, FOUR, vec![draft(0, "event".into())]).await.unwrap();
    sqlx::query("update journal.received set payload = set_byte(payload, 5, get_byte(payload, 5) # 1)")
        .execute(&database.pool)
        .await
        .unwrap();
    let error = journal.read(WORKSPACE, Position::new(1, 0, 0), 1).await.unwrap()[0].events().unwrap_err();
    assert_eq!(error.to_string(), "block at 1/0/0 cannot be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_gets_its_own_partition_once() {
    let (database, journal) = journal().await;
    journal.ensure_partitions(2).await.unwrap();
    let (days,): (i64,) =
        sqlx::query_as("select count(*) from pg_inherits where inhparent = 'journal.received'::regclass")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(days, 4, "today, two days ahead, and the default");
    let appender = Appender::start(journal, AppenderSettings::default(), &CancellationToken::new());
    appender.append(WORKSPACE, FOUR, vec![draft(0, "event".into())]).await.unwrap();
    let (in_default,): (i64,) = sqlx::query_as("select count(*) from only journal.received_default")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(in_default, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_partitions_are_made_while_a_writer_has_not_committed() {
    let (database, journal) = journal().await;
    let mut writer = database.pool.begin().await.unwrap();
    sqlx::query("insert into journal.received values (7, 0, 1, 0, 1, default, default, '', '')")
        .execute(&mut *writer)
        .await
        .unwrap();
    let made = tokio::time::timeout(Duration::from_secs(10), journal.ensure_partitions(5)).await;
    made.expect("the partitions wait for the writer").unwrap();
    writer.commit().await.unwrap();
    let (days,): (i64,) =
        sqlx::query_as("select count(*) from pg_inherits where inhparent = 'journal.received'::regclass")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(days, 7, "today, five more and the default");
    let (stored,): (String,) = sqlx::query_as(
        "select attstorage::text from pg_attribute a, pg_inherits i
         where inhparent = 'journal.received'::regclass and a.attrelid = i.inhrelid and a.attname = 'payload'
         order by i.inhrelid desc limit 1",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(stored, "e", "payloads are not compressed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_makes_nobody_wait_for_a_time_partition() {
    let (database, journal) = journal().await;
    let mut reader = database.pool.begin().await.unwrap();
    sqlx::query("select count(*) from journal.received").execute(&mut *reader).await.unwrap();
    let gave_way = tokio::time::timeout(Duration::from_secs(20), journal.ensure_partitions(9)).await;
    assert!(gave_way.expect("it waits for the reader").is_err());
    reader.rollback().await.unwrap();
    journal.ensure_partitions(9).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_up_to_a_number_of_events_takes_whole_blocks_and_at_least_one() {
    let (_database, journal) = journal().await;
    for events in [5, 3, 4] {
        let mut builder = BlockBuilder::default();
        (0..events).for_each(|_| builder.push(SourceId(1), 1, b"event"));
        append(&journal, WORKSPACE, Partition(0), &builder.finish().unwrap()).await.unwrap();
    }
    let mut read = Vec::new();
    for (offset, max_events) in [(0, 1), (0, 8), (0, 11), (0, 12), (6, 7), (12, 5)] {
        let blocks = journal.read_up_to(WORKSPACE, Position::new(1, 0, offset), max_events).await.unwrap();
        read.push(blocks.iter().map(|block| block.header.event_count).collect::<Vec<_>>());
    }
    assert_eq!(read, [vec![5], vec![5, 3], vec![5, 3], vec![5, 3, 4], vec![3, 4], vec![]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_meets_the_making_of_its_days_partition_is_stored_all_the_same() {
    for _ in 0..5 {
        let database = tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await;
        let journal = PostgresJournal::new(database.pool.clone());
        let appender =
            Appender::start(journal.clone(), AppenderSettings::default(), &CancellationToken::new());
        let appends = (0..8).map(|i| appender.append(WORKSPACE, FOUR, vec![draft(i % 4, format!("{i}"))]));
        let (appended, made) =
            tokio::join!(futures::future::try_join_all(appends), journal.ensure_partitions(2));
        appended.unwrap();
        // Where rows of today stand in the default partition already, today gets none of its own.
        made.unwrap();
    }
}
