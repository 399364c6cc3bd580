//! How much of the journal over a real PostgreSQL is still to be read.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::{Block, BlockBuilder, Journal as _, PostgresJournal, Spread};
use tracklayer_testkit::{TestDatabase, append};

const WORKSPACE: WorkspaceId = WorkspaceId(7);

struct World {
    database: TestDatabase,
    journal: PostgresJournal,
}

/// Events of so many bytes that cannot be compressed.
fn block(events: usize, bytes: usize) -> Block {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let mut builder = BlockBuilder::default();
    for _ in 0..events {
        let event: Vec<u8> = (0..bytes).map(|_| noise()).collect();
        builder.push(SourceId(1), 1, &event);
    }
    builder.finish().unwrap()
}

impl World {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await;
        let journal = PostgresJournal::new(database.pool.clone());
        journal.ensure_partitions(2).await.unwrap();
        Self { database, journal }
    }

    async fn append(&self, partition: u32, events: usize, bytes: usize) {
        append(&self.journal, WORKSPACE, Partition(partition), &block(events, bytes)).await.unwrap();
    }

    /// What was read of partition 0.
    async fn tell(&self, generation: u32, offset: u64) {
        self.journal.tell_read(&[(WORKSPACE, Position::new(generation, 0, offset).into())]).await.unwrap();
    }

    /// What is unread, in thousandths of what these blocks take.
    async fn unread_in(&self, blocks: &'static str) -> u64 {
        let unread = self.journal.unread_bytes().await.unwrap().unwrap();
        let expected: i64 = sqlx::query_scalar(blocks).fetch_one(&self.database.pool).await.unwrap();
        unread * 1_000 / expected.cast_unsigned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_what_is_unread_are_told_from_a_few_of_its_blocks() {
    let world = World::new().await;
    for _ in 0..30 {
        for (events, bytes) in [(300, 100), (150, 200), (200, 150)] {
            world.append(0, events, bytes).await;
        }
    }
    world.append(1, 1_000, 100).await;
    let all = "select sum(octet_length(header) + octet_length(payload) + 200)::bigint from journal.received";
    let told = world.unread_in(all).await;
    assert!((850..1_150).contains(&told), "{told}");
    // Partition 0 has 19,500 events. Of the other nobody has said anything.
    world.tell(1, 13_000).await;
    let rest = "select sum(octet_length(header) + octet_length(payload) + 200)::bigint from journal.received
                where partition = 1 or base_offset >= 13000";
    let told = world.unread_in(rest).await;
    assert!((850..1_150).contains(&told), "{told}");
    world.tell(1, 19_500).await;
    let other = "select sum(octet_length(header) + octet_length(payload) + 200)::bigint from journal.received
                 where partition = 1";
    let told = world.unread_in(other).await;
    assert!((999..=1_001).contains(&told), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unread_goes_over_a_change_of_the_layout() {
    let world = World::new().await;
    world.append(0, 10, 1_000).await;
    let wanted = Spread { partitions: 8, revision: 9 };
    assert_eq!(world.journal.layout(WORKSPACE, wanted).await.unwrap().generation.0, 2);
    world.append(0, 5, 1_000).await;
    let both = "select sum(octet_length(header) + octet_length(payload) + 200)::bigint from journal.received";
    let later = "select sum(octet_length(header) + octet_length(payload) + 200)::bigint from journal.received
                 where generation = 2";
    for ((generation, offset), blocks) in [((1, 0), both), ((1, 10), later), ((2, 0), later)] {
        world.tell(generation, offset).await;
        let told = world.unread_in(blocks).await;
        assert!((999..=1_001).contains(&told), "{generation}/{offset}: {told}");
    }
    world.tell(2, 5).await;
    assert_eq!(world.journal.unread_bytes().await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_release_reads_without_telling_is_not_known() {
    let world = World::new().await;
    world.append(0, 10, 1_000).await;
    let unread = world.journal.unread_bytes().await.unwrap();
    assert!(unread.is_some_and(|bytes| bytes > 10_000), "nobody has read: {unread:?}");
    sqlx::query("update journal.read_told set began_empty = false")
        .execute(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(world.journal.unread_bytes().await.unwrap(), None, "something was there before this release");
    world.tell(1, 10).await;
    assert_eq!(world.journal.unread_bytes().await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_since_a_place_was_told_takes_nothing() {
    let world = World::new().await;
    world.append(0, 10, 1_000).await;
    world.append(0, 10, 1_000).await;
    world.tell(1, 0).await;
    sqlx::query("delete from journal.received").execute(&world.database.pool).await.unwrap();
    assert_eq!(world.journal.unread_bytes().await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_would_tell_one_does_every_few_seconds() {
    let world = World::new().await;
    let wants = async || world.journal.wants_to_be_told().await.unwrap();
    assert_eq!([wants().await, wants().await], [true, false]);
    for away in ["- interval '5 seconds'", "+ interval '1 hour'"] {
        let moved = format!("update journal.read_told set told_at = told_at {away}");
        sqlx::query(sqlx::AssertSqlSafe(moved)).execute(&world.database.pool).await.unwrap();
        assert_eq!([wants().await, wants().await], [true, false], "{away}");
    }
}
