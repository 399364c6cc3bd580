//! What operators are told of the journal, over a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use prost::Message as _;
use tracklayer_delivery::inspection::{Inspection, InspectionError};
use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::{BlockBuilder, Journal as _, JournalError, Kind, PostgresJournal, Spread};
use tracklayer_proto::event::v1::Event;
use tracklayer_testkit::TestDatabase;

const WORKSPACE: WorkspaceId = WorkspaceId(1);

struct Bench {
    database: TestDatabase,
    journal: PostgresJournal,
    inspection: Inspection,
}

impl Bench {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let journal = PostgresJournal::new(database.pool.clone());
        journal.ensure_partitions(1).await.unwrap();
        let inspection = Inspection::new(database.pool.clone(), Kind::Postgres);
        Self { database, journal, inspection }
    }

    /// Blocks of three events each, which are numbered through.
    async fn append(&self, partition: u32, blocks: usize) {
        for block in 0..blocks {
            let mut builder = BlockBuilder::default();
            for event in 0..3 {
                let message_id = format!("m-{}", block * 3 + event);
                let event = Event { message_id, ..Event::default() };
                builder.push(SourceId(1), 1, &event.encode_to_vec());
            }
            let block = builder.finish().unwrap();
            tracklayer_testkit::append(&self.journal, WORKSPACE, Partition(partition), &block).await.unwrap();
        }
    }

    /// What is appended from now on stands in the next generation.
    async fn open_next_generation(&self) {
        self.journal.layout(WORKSPACE, Spread { partitions: 2, revision: 1 }).await.unwrap();
    }

    async fn run(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.database.pool).await.unwrap();
    }

    /// Every page of a partition: blocks, events, and where what is wrong.
    async fn check(&self, partition: u32) -> (u64, u64, Vec<(u64, String)>) {
        let (mut blocks, mut events, mut faults) = (0, 0, Vec::new());
        let mut next = Some(Position::new(1, partition, 0));
        while let Some(from) = next {
            let page = self.inspection.check(WORKSPACE, from).await.unwrap();
            blocks += page.blocks;
            events += page.events;
            faults.extend(page.faults.into_iter().map(|(at, why)| (at.offset.0, why)));
            next = page.next;
        }
        (blocks, events, faults)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_many_pages_and_generations_without_its_oldest_day_has_no_fault() {
    let bench = Bench::new().await;
    bench.append(0, 130).await;
    bench.run("update journal.received set appended_on = '2020-01-01' where base_offset < 6").await;
    bench.journal.drop_read_days(&[(WORKSPACE, Position::new(1, 0, 6).into())]).await.unwrap();
    bench.open_next_generation().await;
    bench.append(0, 1).await;
    assert_eq!(bench.check(0).await, (129, 387, vec![]));
    assert_eq!(bench.check(1).await, (0, 0, vec![]), "nothing was ever received there");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_block_that_is_not_as_it_was_written_is_named() {
    let bench = Bench::new().await;
    bench.append(0, 6).await;
    bench
        .run(
            "update journal.received set payload = set_byte(payload, 5, get_byte(payload, 5) # 1) where base_offset = 3;
             delete from journal.received where base_offset = 6;
             update journal.received set header = '\\xff' where base_offset = 9;
             update journal.received set event_count = 2 where base_offset = 12;
             update journal.head set next_offset = 20",
        )
        .await;
    let (blocks, _, faults) = bench.check(0).await;
    assert_eq!(blocks, 5);
    let expected = [
        (3, "checksum"),
        (9, "expected 1/0/6"),
        (9, "header cannot be decoded"),
        (12, "its row says 2 events, its header 3"),
        (15, "expected 1/0/14"),
        (18, "its head says 1/0/20"),
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:?}");
    for ((at, why), (expected_at, words)) in faults.iter().zip(expected) {
        assert!(*at == expected_at && why.contains(words), "{at}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_behind_is_told_with_how_many_events_and_since_when() {
    let bench = Bench::new().await;
    bench.append(0, 4).await;
    bench
        .run(
            "update journal.received set appended_at = now() - interval '1 hour' where base_offset = 3;
             insert into delivery.resolve_cursor values (1, 0, 1, 12);
             insert into delivery.lane_cursor values (1, 7, 0, 1, 0, 1, 4), (1, 8, 0, 1, 0, 1, 9)",
        )
        .await;
    let lags = bench.inspection.lags(WORKSPACE).await.unwrap();
    let who: Vec<(i64, u64)> = lags.iter().map(|lag| (lag.duty.connection.0, lag.behind.events)).collect();
    assert_eq!(who, [(0, 0), (7, 8), (8, 3)]);
    let seconds: Vec<u64> = lags.iter().map(|lag| lag.behind.seconds / 3_600).collect();
    assert_eq!(seconds, [0, 1, 0], "the oldest event of connection 7 stands in the middle of its block");
    bench.open_next_generation().await;
    bench.append(0, 2).await;
    let lags = bench.inspection.lags(WORKSPACE).await.unwrap();
    let events: Vec<u64> = lags.iter().map(|lag| lag.behind.events).collect();
    assert_eq!(events, [6, 14, 9], "over generations");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_from_any_offset_and_what_is_not_kept_is_said() {
    let bench = Bench::new().await;
    bench.append(0, 3).await;
    let read = async |offset, limit| {
        let from = Position::new(1, 0, offset);
        let events = bench.inspection.events(WORKSPACE, from, limit).await?;
        let told: Vec<(u64, String)> =
            events.into_iter().map(|(at, event)| (at.offset.0, event.unwrap().message_id)).collect();
        Ok::<_, InspectionError>(told)
    };
    let expected = |range: std::ops::Range<u64>| range.map(|n| (n, format!("m-{n}"))).collect::<Vec<_>>();
    assert_eq!(read(1, 5).await.unwrap(), expected(1..6));
    assert_eq!(read(7, 100).await.unwrap(), expected(7..9));
    assert_eq!(read(9, 1).await.unwrap(), []);
    bench.run("update journal.received set appended_on = '2020-01-01' where base_offset < 6").await;
    bench.journal.drop_read_days(&[(WORKSPACE, Position::new(1, 0, 6).into())]).await.unwrap();
    let gone = read(1, 5).await;
    assert!(matches!(gone, Err(InspectionError::Journal(JournalError::Trimmed { .. }))), "{gone:?}");
    let held = bench.inspection.holdings(WORKSPACE).await.unwrap();
    assert_eq!((held.dropped_events, held.days.len(), held.days[0].events), (6, 1, 3));
    let heads = [9, 0, 0, 0].into_iter().zip(0..);
    let expected: Vec<_> =
        heads.map(|(next, n)| (Position::new(1, n, next), Position::new(1, n, 0))).collect();
    assert_eq!(held.partitions, expected);
}
