//! What is told of a backlog, over a real PostgreSQL: by the holder of a lease, and by nobody else.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use tracklayer_delivery::backlog::Backlog;
use tracklayer_delivery::inspection::Inspection;
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::{BlockBuilder, Kind, PostgresJournal};
use tracklayer_testkit::TestDatabase;

struct Bench {
    database: TestDatabase,
    inspection: Inspection,
    workspace: WorkspaceId,
}

impl Bench {
    /// Metrics are the process's: each test has a workspace of its own. Ten events were received in partition 0, in blocks of
    /// five, the first of them an hour ago; resolve has passed eight of them, connection 7 three, connection 8 all.
    async fn new(workspace: i64) -> Self {
        tracklayer_telemetry::install_recorder();
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let journal = PostgresJournal::new(database.pool.clone());
        journal.ensure_partitions(1).await.unwrap();
        let inspection = Inspection::new(database.pool.clone(), Kind::Postgres);
        let bench = Self { database, inspection, workspace: WorkspaceId(workspace) };
        for _ in 0..2 {
            let mut builder = BlockBuilder::default();
            (0..5).for_each(|_| builder.push(SourceId(1), 1, b"event"));
            let block = builder.finish().unwrap();
            tracklayer_testkit::append(&journal, bench.workspace, Partition(0), &block).await.unwrap();
        }
        bench
            .run(format!(
                "update journal.received set appended_at = now() - interval '1 hour' where base_offset = 0;
                 insert into delivery.resolve_cursor values ({workspace}, 0, 1, 8);
                 insert into delivery.lane_cursor values
                     ({workspace}, 7, 0, 1, 0, 1, 3), ({workspace}, 8, 0, 1, 0, 1, 10);"
            ))
            .await;
        bench
    }

    async fn run(&self, sql: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.database.pool).await.unwrap();
    }

    fn duty(&self, connection: i64) -> Duty {
        Duty { workspace: self.workspace, connection: ConnectionId(connection), partition: Partition(0) }
    }

    async fn take(&self, connections: &[i64], ttl: Duration) -> Vec<Lease> {
        let duties: BTreeSet<Duty> = connections.iter().map(|connection| self.duty(*connection)).collect();
        let mut keeper = LeaseKeeper::new(LeaseStore::new(self.database.pool.clone()), ttl);
        keeper.round(&duties).await.unwrap().taken
    }

    /// Events and seconds that are told of a lane; none: no such series.
    fn told(&self, connection: &str) -> Option<(u64, u64)> {
        let metrics = tracklayer_telemetry::render_metrics();
        let told = |name: &str| {
            let series = format!(
                "tracklayer_delivery_backlog_{name}{{workspace=\"{}\",connection=\"{connection}\",partition=\"0\"}} ",
                self.workspace.0
            );
            metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
        };
        told("events").zip(told("seconds"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_lease_tells_how_far_it_is_behind_until_it_leaves() {
    let bench = Bench::new(41).await;
    let backlog = Backlog::default();
    let leases = bench.take(&[0, 7, 8], Duration::from_secs(600)).await;
    let (resolve, lanes): (Vec<Lease>, Vec<Lease>) = leases.into_iter().partition(|l| l.duty.is_resolve());
    let resolve = backlog.tell_of(&resolve[0]);
    let lanes: Vec<_> = lanes.iter().map(|lease| backlog.tell_of(lease)).collect();
    backlog.look(&bench.inspection).await.unwrap();
    assert_eq!(bench.told("resolve").unwrap().0, 2);
    let (events, seconds) = bench.told("7").unwrap();
    assert_eq!(events, 7);
    assert!((3_600..3_660).contains(&seconds), "{seconds}: the next event stands in the first block");
    assert_eq!(bench.told("8"), Some((0, 0)), "it is not told how old what has passed is");

    drop(lanes);
    assert_eq!(bench.told("7"), Some((0, 0)), "its next holder tells of it");
    backlog.look(&bench.inspection).await.unwrap();
    assert_eq!(bench.told("7"), Some((0, 0)));
    assert_eq!(bench.told("resolve").unwrap().0, 2, "it is still held");
    drop(resolve);
    assert_eq!(bench.told("resolve"), Some((0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_a_lease_that_nobody_took_or_that_has_run_out() {
    let bench = Bench::new(42).await;
    let backlog = Backlog::default();
    backlog.look(&bench.inspection).await.unwrap();
    assert_eq!(bench.told("7"), None);
    let leases = bench.take(&[7], Duration::ZERO).await;
    let _told = backlog.tell_of(&leases[0]);
    backlog.look(&bench.inspection).await.unwrap();
    assert_eq!(bench.told("7"), Some((0, 0)), "another process may hold it by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_between_a_lane_and_resolve_is_counted_over_generations() {
    let bench = Bench::new(43).await;
    bench
        .run(
            "update delivery.resolve_cursor
             set generation = 3, next_offset = 4, record_offset = 9, record_step = 1, record_mark = 5;
             insert into delivery.resolved
                 (workspace_id, partition, generation, base_offset, event_count, resolved_at, header) values
                 (43, 0, 1, 0, 5, now() - interval '2 hours', ''), (43, 0, 1, 5, 5, now() - interval '1 hour', ''),
                 (43, 0, 2, 0, 6, now(), ''), (43, 0, 3, 0, 4, now(), '')"
                .to_owned(),
        )
        .await;
    let lane = bench.duty(7);
    let at = |generation, offset| (lane, Position::new(generation, 0, offset));
    let cursors = [at(1, 3), at(1, 5), at(1, 10), at(2, 2), at(3, 1), at(3, 4)];
    let store = CursorStore::beside(bench.database.pool.clone(), Kind::Kafka);
    let ahead = store.ahead(&cursors).await.unwrap();
    assert_eq!(ahead.iter().map(|ahead| ahead.events).collect::<Vec<_>>(), [17, 15, 10, 8, 3, 0]);
    let hours: Vec<_> = ahead.iter().map(|ahead| ahead.resolved_ago.map(|ago| ago / 3_600)).collect();
    assert_eq!(hours, [Some(2), Some(1), None, Some(0), Some(0), None], "the ends are in no block");
    let record = ahead[0].resolve.record.unwrap();
    assert_eq!((ahead[0].resolve.at, record.offset, record.step), (Position::new(3, 0, 4), 9, 1));
}
