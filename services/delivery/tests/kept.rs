//! For whom the journal keeps what it keeps, and what may be given up of it: real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use tracklayer_delivery::inspection::{Inspection, InspectionError};
use tracklayer_delivery::kept::{GiveUpError, Keeper, Keeping};
use tracklayer_delivery::lease::Duty;
use tracklayer_delivery::store::give_ups::{GiveUpStore, Unread};
use tracklayer_delivery::store::retention::RetentionStore;
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::{BlockBuilder, Kind, PostgresJournal};
use tracklayer_proto::control::v1::{ConnectionConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_rpc::follow::Snapshot;
use tracklayer_testkit::TestDatabase;

const OURS: WorkspaceId = WorkspaceId(1);
const OTHERS: WorkspaceId = WorkspaceId(2);

struct Bench {
    database: TestDatabase,
    journal: PostgresJournal,
    keeping: Keeping,
}

fn snapshot() -> Snapshot {
    let workspace = |id: WorkspaceId, connections: &[i64]| WorkspaceConfig {
        workspace_id: id.0,
        partitions: 2,
        connections: connections
            .iter()
            .map(|id| ConnectionConfig { connection_id: *id, ..ConnectionConfig::default() })
            .collect(),
        ..WorkspaceConfig::default()
    };
    let workspaces = vec![workspace(OURS, &[7, 8]), workspace(OTHERS, &[20])];
    Snapshot::new(WatchConfigResponse { version: 1, workspaces })
}

fn keeping(database: &TestDatabase, kind: Kind) -> Keeping {
    Keeping {
        inspection: Inspection::new(database.pool.clone(), kind),
        days: RetentionStore::new(database.pool.clone()),
        give_ups: GiveUpStore::new(database.pool.clone()),
    }
}

impl Bench {
    /// Three days and today, with four events each in partition 0 of both workspaces, received that many days ago.
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let journal = PostgresJournal::new(database.pool.clone());
        journal.ensure_partitions(1).await.unwrap();
        let keeping = keeping(&database, Kind::Postgres);
        let bench = Self { database, journal, keeping };
        for ago in [3, 2, 1, 0] {
            for workspace in [OURS, OTHERS] {
                bench.append(workspace, 4).await;
            }
            if ago > 0 {
                bench
                    .run(format!(
                        "update journal.received set appended_on = appended_on - {ago}, appended_at = now() - interval '{ago} days'
                         where appended_on = (now() at time zone 'utc')::date"
                    ))
                    .await;
            }
        }
        bench
    }

    async fn append(&self, workspace: WorkspaceId, events: usize) {
        let mut builder = BlockBuilder::default();
        (0..events).for_each(|_| builder.push(SourceId(1), 1, b"event"));
        let block = builder.finish().unwrap();
        tracklayer_testkit::append(&self.journal, workspace, Partition(0), &block).await.unwrap();
    }

    async fn run(&self, sql: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.database.pool).await.unwrap();
    }

    /// Where resolve and the lanes of ours stand: of 7, of 8, and of 9, which was removed.
    async fn cursors(&self, resolve: u64, seven: u64, eight: u64, removed: u64) {
        self.run(format!(
            "delete from delivery.resolve_cursor where workspace_id = 1;
             delete from delivery.lane_cursor where workspace_id = 1;
             insert into delivery.resolve_cursor values (1, 0, 1, {resolve});
             insert into delivery.lane_cursor values
                 (1, 7, 0, 1, 0, 1, {seven}), (1, 8, 0, 1, 0, 1, {eight}), (1, 9, 0, 1, 0, 1, {removed});"
        ))
        .await;
    }

    async fn others_stand_at(&self, at: u64) {
        self.run(format!(
            "insert into delivery.resolve_cursor values (2, 0, 1, {at});
             insert into delivery.lane_cursor values (2, 20, 0, 1, 0, 1, {at});"
        ))
        .await;
    }

    /// For whom each day is kept, oldest first.
    async fn keepers(&self) -> Vec<String> {
        let kept = self.keeping.kept(OURS, &snapshot()).await.unwrap();
        kept.days
            .iter()
            .map(|day| {
                assert_eq!((day.day.events, day.day.blocks), (4, 1));
                match day.keeper {
                    Keeper::Cursor(lag) if lag.duty.is_resolve() => "resolve".to_owned(),
                    Keeper::Cursor(lag) => lag.duty.connection.to_string(),
                    Keeper::OtherWorkspace => "another".to_owned(),
                    Keeper::NotOver => "not over".to_owned(),
                    Keeper::Nobody => "nobody".to_owned(),
                }
            })
            .collect()
    }

    async fn give_up(&self, before: Date, named: &[i64], is_meant: bool) -> Result<Vec<Unread>, GiveUpError> {
        let named: Vec<ConnectionId> = named.iter().map(|id| ConnectionId(*id)).collect();
        self.keeping.give_up(OURS, &snapshot(), before, &named, is_meant).await
    }

    async fn asked(&self) -> Vec<(i64, Position)> {
        let mut asked = self.keeping.give_ups.asked().await.unwrap();
        asked.sort_by_key(|(duty, _)| *duty);
        asked.into_iter().map(|(duty, until)| (duty.connection.0, until)).collect()
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn lane(connection: i64, next: u64, until: u64, events: u64, unresolved: u64) -> Unread {
    Unread {
        duty: Duty { workspace: OURS, connection: ConnectionId(connection), partition: Partition(0) },
        next: Position::new(1, 0, next),
        until: Position::new(1, 0, until),
        events,
        unresolved,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_day_names_the_cursor_that_is_furthest_behind_of_those_that_have_not_read_it() {
    let bench = Bench::new().await;
    bench.others_stand_at(6).await;
    bench.cursors(16, 16, 16, 0).await;
    assert_eq!(bench.keepers().await, ["nobody", "another", "another", "not over"]);
    bench.cursors(16, 16, 6, 0).await;
    assert_eq!(bench.keepers().await, ["nobody", "8", "8", "8"]);
    bench.cursors(13, 9, 4, 0).await;
    assert_eq!(bench.keepers().await, ["nobody", "8", "8", "8"]);
    bench.cursors(13, 9, 13, 0).await;
    assert_eq!(bench.keepers().await, ["nobody", "another", "7", "7"]);
    bench.cursors(3, 3, 3, 0).await;
    assert_eq!(bench.keepers().await, ["resolve", "resolve", "resolve", "resolve"], "it has to go first");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_given_up_is_counted_and_only_asked_for_if_it_is_meant() {
    let bench = Bench::new().await;
    bench.cursors(9, 5, 2, 0).await;
    let yesterday = today().yesterday().unwrap();
    assert_eq!(
        bench.give_up(yesterday, &[], false).await.unwrap(),
        [lane(7, 5, 8, 3, 0), lane(8, 2, 8, 6, 0)]
    );
    assert_eq!(bench.give_up(today(), &[7], false).await.unwrap(), [lane(7, 5, 12, 7, 3)], "9 are resolved");
    assert_eq!(bench.give_up(date(2020, 1, 1), &[], false).await.unwrap(), [], "nothing is that old");
    assert_eq!(bench.asked().await, [], "nothing was meant");

    bench.give_up(today(), &[8], true).await.unwrap();
    bench.give_up(yesterday, &[], true).await.unwrap();
    let at = |offset| Position::new(1, 0, offset);
    assert_eq!(bench.asked().await, [(7, at(8)), (8, at(12))], "it never becomes less");
    bench.cursors(9, 8, 9, 0).await;
    assert_eq!(bench.asked().await, [(8, at(12))], "what is done is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_to_come_and_connections_of_others_are_not_for_giving_up() {
    let bench = Bench::new().await;
    bench.cursors(16, 0, 0, 0).await;
    let to_come = bench.give_up(today().tomorrow().unwrap(), &[], true).await;
    assert!(matches!(to_come, Err(GiveUpError::ToCome(_))), "{to_come:?}");
    for stranger in [20, 9] {
        let refused = bench.give_up(today(), &[7, stranger], true).await;
        assert!(
            matches!(refused, Err(GiveUpError::NoConnection(ConnectionId(id))) if id == stranger),
            "{refused:?}"
        );
    }
    let beside = keeping(&bench.database, Kind::Kafka);
    let refused = beside.kept(OURS, &snapshot()).await;
    let other = |error: &GiveUpError| matches!(error, GiveUpError::Inspection(InspectionError::OtherJournal));
    assert!(refused.as_ref().is_err_and(other), "{refused:?}");
    assert_eq!(bench.asked().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_kafka_what_was_resolved_before_a_day_is_given_up() {
    let bench = Bench::new().await;
    bench.cursors(12, 5, 2, 0).await;
    bench
        .run(
            "insert into delivery.resolved
                 (workspace_id, partition, generation, base_offset, event_count, resolved_at, header) values
                 (1, 0, 1, 0, 4, now() - interval '3 days', ''), (1, 0, 1, 4, 4, now() - interval '2 days', ''),
                 (1, 0, 1, 8, 4, now(), '')"
                .to_owned(),
        )
        .await;
    let beside = keeping(&bench.database, Kind::Kafka);
    let unread = beside.give_up(OURS, &snapshot(), today(), &[], false).await.unwrap();
    assert_eq!(unread, [lane(7, 5, 8, 3, 0), lane(8, 2, 8, 6, 0)], "what was resolved today is kept");
    assert_eq!(bench.asked().await, [], "nothing was meant");
    beside.give_up(OURS, &snapshot(), today(), &[ConnectionId(8)], true).await.unwrap();
    assert_eq!(bench.asked().await, [(8, Position::new(1, 0, 8))]);
    let none = beside.give_up(OURS, &snapshot(), date(2020, 1, 1), &[], true).await.unwrap();
    assert_eq!(none, [], "nothing is that old");
}
