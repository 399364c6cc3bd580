//! What an examination finds of a real PostgreSQL and a real Redis, with the other services away.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::sync::Arc;

use jiff::Timestamp;
use redis::aio::ConnectionManager;
use tracklayer_delivery::examine::redis::look;
use tracklayer_delivery::examine::{Examiner, Finding, Level};
use tracklayer_delivery::holds::Holds;
use tracklayer_delivery::inspection::Inspection;
use tracklayer_delivery::store::examine::ExamineStore;
use tracklayer_delivery::store::retention::RetentionStore;
use tracklayer_ids::{Partition, Secret, SourceId, WorkspaceId};
use tracklayer_journal::claim::claim_key;
use tracklayer_journal::{BlockBuilder, Kind, PostgresJournal};
use tracklayer_proto::control::v1::{ConnectionConfig, SourceConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_testkit::{TestDatabase, TestRedis};

const WORKSPACE: WorkspaceId = WorkspaceId(1);

struct Bench {
    database: TestDatabase,
    _redis: TestRedis,
    connection: ConnectionManager,
    examiner: Examiner,
}

fn configuration() -> ConfigWatch {
    let source = |source_id, name: &str| SourceConfig {
        source_id,
        name: name.to_owned(),
        enabled: true,
        ..SourceConfig::default()
    };
    let connection = |connection_id, name: &str| ConnectionConfig {
        connection_id,
        name: name.to_owned(),
        ..ConnectionConfig::default()
    };
    let workspace = WorkspaceConfig {
        workspace_id: WORKSPACE.0,
        partitions: 1,
        sources: vec![source(1, "shop"), source(2, "app")],
        connections: vec![connection(7, "meta")],
        ..WorkspaceConfig::default()
    };
    ConfigWatch::fixed(WatchConfigResponse { version: 5, workspaces: vec![workspace] })
}

impl Bench {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let redis = tracklayer_testkit::redis().await;
        let connection =
            ConnectionManager::new(redis::Client::open(redis.url.as_str()).unwrap()).await.unwrap();
        let nobody = tracklayer_rpc::connect_lazy("http://127.0.0.1:1", Secret::new("s".to_owned())).unwrap();
        let pool = database.pool.clone();
        let examiner = Examiner {
            journal: Arc::new(PostgresJournal::new(pool.clone())),
            store: ExamineStore::new(pool.clone()),
            inspection: Inspection::new(pool.clone(), Kind::Postgres),
            days: RetentionStore::new(pool),
            redis: connection.clone(),
            control: nobody.clone(),
            identity: nobody.clone(),
            consent: nobody,
            config: configuration(),
            holds: Holds::new(configuration()),
        };
        Self { database, _redis: redis, connection, examiner }
    }

    async fn run(&self, sql: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.database.pool).await.unwrap();
    }

    async fn found(&self, check: &str) -> Finding {
        let findings = self.examiner.examine(WORKSPACE).await;
        findings.into_iter().find(|finding| finding.check == check).unwrap()
    }

    async fn claim(&self, claims: u32) {
        let mut pipe = redis::pipe();
        for n in 0..claims {
            let key = claim_key(WORKSPACE, &format!("m-{n}"));
            pipe.cmd("SET").arg(key).arg(vec![0u8; 42]).arg("EX").arg(600);
        }
        let _: () = pipe.query_async(&mut self.connection.clone()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_is_a_problem_and_hides_nothing_else() {
    let bench = Bench::new().await;
    let findings = bench.examiner.examine(WORKSPACE).await;
    let of =
        |check: &str| findings.iter().find(|finding| finding.check == check).map(|finding| finding.level);
    assert_eq!(of("identity"), Some(Level::Problem));
    assert_eq!(of("consent"), Some(Level::Problem));
    assert_eq!(of("configuration"), Some(Level::Warning), "it goes on with the last one");
    assert_eq!(of("delivery"), Some(Level::Problem), "no process takes part");
    assert_eq!(of("leases"), Some(Level::Problem));
    assert_eq!(of("durability"), Some(Level::Warning), "a private server has no standby");
    for check in ["clock", "redis-eviction", "redis-memory", "retention", "backlog", "lanes"] {
        assert!(of(check).is_some_and(|level| level != Level::Problem), "{check}: {findings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_holds_backlogs_and_silent_sources_are_told_of_the_workspace() {
    let bench = Bench::new().await;
    let minute = Timestamp::now().as_second() / 60;
    bench
        .run(format!(
            "insert into delivery.member values (gen_random_uuid(), now(), 2);
             insert into delivery.lease values
                 (1, 0, 0, gen_random_uuid(), 1, now() + interval '1 hour'), (1, 7, 0, gen_random_uuid(), 1, now() - interval '1 s');
             insert into delivery.lane_hold (workspace_id, connection_id, partition, kind, detail, attempts, since, next_at)
             values (1, 7, 0, 'auth', 'the token is expired', 9, now() - interval '2 hours', now());
             insert into delivery.resolve_cursor values (1, 0, 1, 10);
             insert into delivery.rollup values (1, 0, 0, {}, 1, 0, '', 3600), (1, 0, 0, {}, 2, 0, '', 10);",
            minute - 30,
            minute - 2 * 24 * 60,
        ))
        .await;
    assert_eq!(bench.found("delivery").await.level, Level::Ok);
    let leases = bench.found("leases").await;
    assert_eq!((leases.level, leases.workspace), (Level::Problem, Some(WORKSPACE)));
    assert_eq!(leases.found, "1 of 2 are held by nobody: meta of partition 0", "it has run out");
    let lanes = bench.found("lanes").await;
    assert_eq!(lanes.level, Level::Problem);
    assert!(lanes.found.starts_with("meta: 1 lanes hold, for 72"), "{lanes:?}");
    assert_eq!(bench.found("sources").await.found, "no event within a day: app");

    bench.claim(300).await;
    let memory = bench.found("dedup-memory").await;
    assert!(memory.found.contains("a TTL of 7 days at 1.0 events/s"), "{memory:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_message_ids_were_used_before_is_told_for_a_day() {
    let bench = Bench::new().await;
    assert_eq!(bench.found("message-ids").await.level, Level::Ok);
    let hour = Timestamp::now().as_second() / 3_600;
    // Of each partition its own row; what is older than a day or another workspace's is not told.
    bench
        .run(format!(
            "insert into delivery.reused_id values
                 (1, {}, 0, 1, 2, 2), (1, {}, 1, 1, 2, 1), (1, {}, 0, 1, 1, 4), (1, {}, 0, 2, 2, 7), (2, {}, 0, 2, 2, 9);",
            hour - 2,
            hour - 2,
            hour - 20,
            hour - 26,
            hour,
        ))
        .await;
    let mut findings = bench.examiner.examine(WORKSPACE).await;
    findings.retain(|finding| finding.check == "message-ids");
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((finding.level, finding.workspace), (Level::Problem, Some(WORKSPACE)));
    assert!(finding.found.starts_with("shop: 7 events within a day"), "{finding:?}");
    assert!(finding.found.contains(" 4 of them ") && finding.found.contains(" 3 for another order"));
    assert!(!finding.advice.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_evict_is_found_and_a_claim_is_measured() {
    let bench = Bench::new().await;
    let facts = look(bench.connection.clone()).await.unwrap();
    assert_eq!((facts.policy.as_str(), facts.claim_bytes, facts.is_limited), ("noeviction", None, false));
    assert!(facts.most_bytes > 0, "its machine's memory");
    bench.claim(20_000).await;
    let before = facts.used_bytes;
    let facts = look(bench.connection.clone()).await.unwrap();
    let (each, measured) = ((facts.used_bytes - before) as f64 / 20_000.0, facts.claim_bytes.unwrap());
    assert!((0.8..1.25).contains(&(measured / each)), "{measured} is told, {each} are taken");

    let mut connection = bench.connection.clone();
    for (setting, value) in [("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")] {
        let _: () = redis::cmd("CONFIG")
            .arg("SET")
            .arg(setting)
            .arg(value)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    let facts = look(bench.connection.clone()).await.unwrap();
    assert_eq!((facts.most_bytes, facts.is_limited), (100 << 20, true));
    assert_eq!(bench.found("redis-eviction").await.level, Level::Problem);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_resolve_cannot_read_is_named_with_what_to_do() {
    let bench = Bench::new().await;
    let journal = PostgresJournal::new(bench.database.pool.clone());
    journal.ensure_partitions(1).await.unwrap();
    let mut builder = BlockBuilder::default();
    (0..3).for_each(|_| builder.push(SourceId(1), 1, b"event"));
    let block = builder.finish().unwrap();
    tracklayer_testkit::append(&journal, WORKSPACE, Partition(0), &block).await.unwrap();
    bench.run("insert into delivery.resolve_cursor values (1, 0, 1, 0)".to_owned()).await;
    assert_eq!(bench.found("blocks").await.level, Level::Ok);

    let flip = "update journal.received set payload = set_byte(payload, 5, get_byte(payload, 5) # 1)";
    bench.run(flip.to_owned()).await;
    let blocks = bench.found("blocks").await;
    assert_eq!((blocks.level, blocks.workspace), (Level::Problem, Some(WORKSPACE)));
    assert!(blocks.found.contains("1/0/0 (checksum is "), "{blocks:?}");
    assert!(blocks.advice.contains("`tracklayer journal skip 1/0/0`"), "{blocks:?}");
}
