//! The step to the next generation while appenders are at work.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use tracklayer_ids::{Generation, Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::{Appended, BlockBuilder, Journal as _, PostgresJournal, Spread};

const WORKSPACE: WorkspaceId = WorkspaceId(7);
const PARTITION: Partition = Partition(0);
const STEPS: u32 = 12;
const APPENDERS: usize = 4;
const APPENDS: usize = 60;

async fn append(journal: &PostgresJournal, text: &str) -> Position {
    let mut builder = BlockBuilder::default();
    builder.push(SourceId(1), 1, text.as_bytes());
    builder.push(SourceId(1), 1, b"its neighbour");
    let block = builder.finish().unwrap();
    match tracklayer_testkit::append(journal, WORKSPACE, PARTITION, &block).await.unwrap() {
        Appended::At(position) => position,
        other => panic!("{other:?}"),
    }
}

/// Changes the number of partitions. Answers where the generation before ended, as a reader sees it afterwards.
async fn step(journal: &PostgresJournal, number: u32) -> (Generation, u64) {
    let wanted = Spread { partitions: 1 + number % 3, revision: u64::from(number) + 1 };
    let opened = journal.layout(WORKSPACE, wanted).await.unwrap();
    let before = Generation(opened.generation.0 - 1);
    (before, events_of(journal, before).await.len() as u64)
}

async fn events_of(journal: &PostgresJournal, generation: Generation) -> Vec<Bytes> {
    let mut at = Position::new(generation.0, PARTITION.0, 0);
    let mut events = Vec::new();
    loop {
        let blocks = journal.read(WORKSPACE, at, 100).await.unwrap();
        let Some(last) = blocks.last() else { return events };
        for block in &blocks {
            assert_eq!(block.first.offset.0, events.len() as u64, "no hole, no overlap");
            events.extend(block.events().unwrap());
        }
        at.offset = last.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_append_stands_where_it_was_told_and_a_generation_that_was_left_grows_no_more() {
    let database = tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await;
    let journal = PostgresJournal::new(database.pool.clone());
    journal.ensure_partitions(1).await.unwrap();
    append(&journal, "first").await;
    let mut appenders = tokio::task::JoinSet::new();
    for appender in 0..APPENDERS {
        let journal = journal.clone();
        appenders.spawn(async move {
            let mut told = Vec::new();
            for n in 0..APPENDS {
                let text = format!("{appender}-{n}");
                told.push((append(&journal, &text).await, text));
            }
            told
        });
    }
    let mut ends = Vec::new();
    for number in 0..STEPS {
        ends.push(step(&journal, number).await);
    }
    let told: Vec<_> = appenders.join_all().await.concat();
    let mut stored = BTreeMap::new();
    for generation in (1..=STEPS + 1).map(Generation) {
        stored.insert(generation, events_of(&journal, generation).await);
    }
    for (generation, end) in ends {
        assert_eq!(
            stored[&generation].len() as u64,
            end,
            "generation {} grew after it was left",
            generation.0
        );
    }
    for (position, text) in &told {
        assert_eq!(stored[&position.generation][position.offset.0 as usize], text.as_bytes());
    }
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), 2 * (1 + APPENDERS * APPENDS));
    let ended: Vec<(i32, i64)> = sqlx::query_as(
        "select generation, next_offset from journal.layout_end where partition = 0 order by generation",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    for (generation, next) in ended {
        let generation = Generation(generation.cast_unsigned());
        assert_eq!(
            stored[&generation].len() as i64,
            next,
            "the end of {} that is written down",
            generation.0
        );
    }
}
