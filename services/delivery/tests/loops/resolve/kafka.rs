//! Resolve over a journal in Kafka: what exists, who may write it, and what happens when the log has another history.
//!
//! Where the machine has no Java each test says `SKIPPED` on standard error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use redis::aio::ConnectionManager;
use tokio::task::JoinHandle;
use tracklayer_delivery::books::Books;
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::dedup::Dedup;
use tracklayer_delivery::entry::EntryReader;
use tracklayer_delivery::inspection::Inspection;
use tracklayer_delivery::lease::{Duty, FleetLevel, Lease, LeaseKeeper};
use tracklayer_delivery::narrowing::NarrowingTail;
use tracklayer_delivery::progress::Progress;
use tracklayer_delivery::resolve::{Resolver, message_hash, read_event};
use tracklayer_delivery::retention;
use tracklayer_delivery::skips::{self, SkipError, Skipping};
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dedup_generation::DedupGenerationStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore, Span};
use tracklayer_delivery::store::skips::SkipStore;
use tracklayer_delivery::store::stats::StatsStore;
use tracklayer_delivery::store::twins::TwinRows;
use tracklayer_delivery::suspects::Suspects;
use tracklayer_ids::{ConnectionId, Partition, Position, SourceId};
use tracklayer_journal::{BlockBuilder, FEATURE_LEVEL, Journal, Kind, LayoutStore, PostgresJournal, Record};
use tracklayer_journal_kafka::topics::{Stage, topic};
use tracklayer_journal_kafka::{KafkaJournal, KafkaSettings, encode_record};
use tracklayer_proto::event::v1::ResolvedEvent;
use tracklayer_testkit::{TestKafka, TestRedis, eventually, eventually_seen};

use super::rig::{PARTITION, event, ids};
use crate::services::{Services, WORKSPACE, configuration};

const LANE: Duty = Duty { workspace: WORKSPACE, connection: ConnectionId(7), partition: PARTITION };

struct Rig {
    services: Services,
    journal: Arc<dyn Journal>,
    settings: KafkaSettings,
    resolved: ResolvedStore,
    cursors: CursorStore,
    resolver: Arc<Resolver>,
    _redis: TestRedis,
    _broker: Arc<TestKafka>,
}

impl Rig {
    async fn new() -> Option<Self> {
        let broker = tracklayer_testkit::kafka().await?;
        let prefix = format!("d-{}", uuid::Uuid::new_v4().simple());
        let settings = KafkaSettings { prefix, replication: 1, ..KafkaSettings::new(broker.brokers()) };
        let services = Services::start().await;
        let layouts = LayoutStore::new(services.database.pool.clone());
        let journal: Arc<dyn Journal> = Arc::new(KafkaJournal::new(settings.clone(), layouts).unwrap());
        let redis = tracklayer_testkit::redis().await;
        let claims = ConnectionManager::new(redis::Client::open(redis.url.as_str()).unwrap()).await.unwrap();
        let config = configuration(2, Vec::new());
        let pool = services.database.pool.clone();
        let resolved = ResolvedStore::over(Index::new(pool.clone()), journal.resolved());
        let cursors = CursorStore::beside(pool.clone(), Kind::Kafka);
        let dedup = Dedup::new(claims, DedupGenerationStore::new(pool.clone()), resolved.clone());
        let fleet = FleetLevel::default();
        fleet.set(FEATURE_LEVEL);
        let resolver = Arc::new(Resolver {
            journal: Arc::clone(&journal),
            resolved: resolved.clone(),
            cursors: cursors.clone(),
            skips: SkipStore::new(pool.clone()),
            dedup: dedup.beside_a_log_that_may_change(),
            fleet,
            clients: services.clients.clone(),
            config: config.clone(),
            connections: Connections::new(config, services.master_key.clone()),
            progress: Progress::default(),
            entries: EntryReader::new(resolved.clone(), 64 << 20),
            narrowing: NarrowingTail::new(services.clients.consent.clone()),
            master_key: services.master_key.clone(),
            read: read_event,
            suspects: Suspects::default(),
            headroom: Arc::default(),
        });
        cursors.begin_lanes(&[LANE]).await.unwrap();
        Some(Self {
            services,
            journal,
            settings,
            resolved,
            cursors,
            resolver,
            _redis: redis,
            _broker: broker,
        })
    }

    /// The lease of the partition's resolve, under the next epoch.
    async fn lease(&self) -> Lease {
        self.services.run("update delivery.lease set holder = null").await;
        let leases = LeaseStore::new(self.services.database.pool.clone());
        let mut keeper = LeaseKeeper::new(leases, Duration::from_secs(600));
        keeper.round(&[Duty::resolve(WORKSPACE, PARTITION)].into()).await.unwrap().taken.remove(0)
    }

    async fn start(&self) -> JoinHandle<()> {
        let lease = self.lease().await;
        tokio::spawn(Arc::clone(&self.resolver).run(lease, self.services.shutdown.clone()))
    }

    /// Appends a block; repeats until the cluster takes it.
    async fn append(&self, ids: &[String]) {
        let mut builder = BlockBuilder::default();
        for id in ids {
            builder.push(SourceId(1), 1, &event(id).encode_to_vec());
        }
        let block = builder.finish().unwrap();
        eventually_seen("an append", async || {
            let appended =
                tracklayer_testkit::append(self.journal.as_ref(), WORKSPACE, PARTITION, &block).await;
            appended.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Puts a record there as it is.
    async fn put(&self, bytes: &[u8]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers);
        let producer: FutureProducer = config.create().unwrap();
        let name = topic(&self.settings.prefix, WORKSPACE, Stage::Received);
        let record: FutureRecord<'_, (), [u8]> =
            FutureRecord::to(&name).partition(PARTITION.0.cast_signed()).payload(bytes);
        producer.send(record, Duration::from_secs(10)).await.unwrap();
    }

    /// A loop comes to its end by itself, where it cannot go on.
    async fn stops_at(&self, at: Position) {
        let stopped = self.start().await;
        tokio::time::timeout(Duration::from_secs(60), stopped).await.expect("it gives the lease up").unwrap();
        assert_eq!(self.cursors.resolve(WORKSPACE, PARTITION).await.unwrap().at, at);
    }

    async fn wait_until_resolved(&self, end: Position) {
        eventually_seen("resolve to come to the end", async || {
            let place = self.cursors.resolve(WORKSPACE, PARTITION).await.unwrap();
            if place.at == end { Ok(()) } else { Err(format!("{place:?}")) }
        })
        .await;
    }

    /// What another process finds in `resolved`, from a position to the end of its generation.
    async fn resolved_from(&self, mut at: Position) -> Vec<ResolvedEvent> {
        let layouts = LayoutStore::new(self.services.database.pool.clone());
        let journal = KafkaJournal::new(self.settings.clone(), layouts).unwrap();
        let resolved =
            ResolvedStore::over(Index::new(self.services.database.pool.clone()), journal.resolved());
        let mut events = Vec::new();
        loop {
            let blocks = resolved.read(WORKSPACE, at, 16).await.unwrap();
            let Some(last) = blocks.last() else { return events };
            at.offset = last.end();
            let bytes = blocks.iter().flat_map(|block| block.events().unwrap());
            events.extend(bytes.map(|bytes| ResolvedEvent::decode(bytes).unwrap()));
        }
    }

    async fn ids_from(&self, at: Position) -> Vec<String> {
        self.resolved_from(at).await.into_iter().map(|event| event.message_id).collect()
    }

    async fn number(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&self.services.database.pool).await.unwrap()
    }

    /// Deletes the topic of what was received, as an operator's slip does, and waits until the broker takes nothing for it.
    async fn delete_topic(&self) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers).set("allow.auto.create.topics", "false");
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let name = topic(&self.settings.prefix, WORKSPACE, Stage::Received);
        admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        eventually("the topic to be gone", async || {
            let metadata = admin.inner().fetch_metadata(Some(&name), Duration::from_secs(5)).unwrap();
            metadata.topics()[0].error().map(drop)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_kafka_is_resolved_in_order_and_its_payload_is_a_record() {
    let Some(rig) = Rig::new().await else { return };
    let all = ids("a", 900);
    rig.append(&all[..300]).await;
    let resolving = rig.start().await;
    rig.append(&all[300..600]).await;
    rig.wait_until_resolved(Position::new(1, 0, 600)).await;
    // A successor has nothing but the cursor.
    resolving.abort();
    let _ = resolving.await;
    rig.append(&all[600..]).await;
    rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 900)).await;
    assert_eq!(rig.ids_from(Position::new(1, 0, 0)).await, all);
    assert_eq!(rig.number("select count(*) from delivery.resolved where payload is not null").await, 0);
    assert_eq!(rig.number("select count(*) from journal.received").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_skipped_where_resolve_stands_and_the_next_ones_are_read() {
    let Some(rig) = Rig::new().await else { return };
    let at = |offset| Position::new(1, 0, offset);
    let (good, behind) = (ids("good", 5), ids("behind", 5));
    rig.append(&good).await;
    let mut builder = BlockBuilder::default();
    (0..3).for_each(|_| builder.push(SourceId(1), 1, b"lost"));
    let mut rotten = builder.finish().unwrap();
    rotten.payload[4] ^= 1;
    rig.put(&encode_record(&rotten)).await;
    rig.put(b"\xff").await;
    rig.append(&behind).await;
    rig.stops_at(at(5)).await;

    let store = SkipStore::new(rig.services.database.pool.clone());
    let skipping = Skipping {
        journal: Arc::clone(&rig.journal),
        cursors: rig.cursors.clone(),
        store,
        resolved: rig.resolved.clone(),
    };
    let skip = async |offset, is_meant| skipping.skip(WORKSPACE, at(offset), "ann", is_meant).await;
    let further = skip(8, true).await;
    assert!(matches!(further, Err(SkipError::NotNext { next }) if next == at(5)), "{further:?}");
    let shown = skip(5, false).await.unwrap();
    assert_eq!((shown.first, shown.events, shown.is_counted), (at(5), 3, true));
    rig.stops_at(at(5)).await;
    assert_eq!(skip(5, true).await.unwrap().stage, skips::Stage::Asked);
    rig.stops_at(at(8)).await;

    assert_eq!(skip(5, true).await.unwrap().stage, skips::Stage::Passed);
    let uncounted = skip(8, true).await.unwrap();
    assert_eq!((uncounted.first, uncounted.events, uncounted.is_counted), (at(8), 1, false));
    let _resolving = rig.start().await;
    rig.wait_until_resolved(at(14)).await;
    let lost = vec![String::new(); 4];
    assert_eq!(rig.ids_from(at(0)).await, [good, lost, behind].concat());
    let is_lost: Vec<bool> = rig.resolved_from(at(5)).await.iter().map(|event| event.lost).collect();
    assert_eq!(is_lost, [[true; 4].as_slice(), &[false; 5]].concat());
    let books = Books::new(StatsStore::new(rig.services.database.pool.clone()), Arc::clone(&rig.journal));
    let balance = &books.balances(WORKSPACE).await.unwrap().finish()[&LANE.connection.0];
    assert!(balance.is_clean() && balance.accepted == 14, "{balance:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_resolve_and_lanes_are_behind_is_told() {
    let Some(rig) = Rig::new().await else { return };
    let all = ids("a", 12);
    rig.append(&all[..4]).await;
    let resolving = rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 4)).await;
    resolving.abort();
    let _ = resolving.await;
    rig.append(&all[4..8]).await;
    rig.append(&all[8..]).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;

    let pool = rig.services.database.pool.clone();
    let inspection = Inspection::new(pool, Kind::Kafka).beside(Arc::clone(&rig.journal));
    let lags = inspection.lags(WORKSPACE).await.unwrap();
    let told: Vec<_> = lags.iter().map(|lag| (lag.duty, lag.behind.events)).collect();
    assert_eq!(told, [(Duty::resolve(WORKSPACE, PARTITION), 8), (LANE, 12)]);
    assert!(lags.iter().all(|lag| (1..300).contains(&lag.behind.seconds)), "{lags:?}");

    rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 12)).await;
    let lags = inspection.lags(WORKSPACE).await.unwrap();
    assert_eq!((lags[0].behind.events, lags[0].behind.seconds), (0, 0), "resolve has passed everything");
    assert_eq!(lags[1].behind.events, 12);
    assert!((1..300).contains(&lags[1].behind.seconds), "{lags:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_without_the_lease_appends_is_never_read() {
    let Some(rig) = Rig::new().await else { return };
    let zombie = rig.lease().await;
    let all = ids("a", 20);
    rig.append(&all[..10]).await;
    let resolving = rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 10)).await;

    let mut builder = BlockBuilder::default();
    (0..10).for_each(|_| builder.push(SourceId(1), 1, b"late"));
    let block = builder.finish().unwrap();
    let commit = ResolvedCommit {
        first: Position::new(1, 0, 10),
        block: &block,
        message_hashes: vec![message_hash("late"); 10],
        dedup_generation: 1,
        reused: Vec::new(),
        twins: TwinRows::new(),
    };
    let place = |offset| Record { offset, step: 0, mark: None };
    let span = Span { from: place(1), to: place(2) };
    for _ in 0..3 {
        let fenced = rig.resolved.commit_span(&zombie, &commit, Some(span)).await;
        assert!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");
    }
    rig.append(&all[10..]).await;
    rig.wait_until_resolved(Position::new(1, 0, 20)).await;
    assert_eq!(
        rig.ids_from(Position::new(1, 0, 0)).await,
        all,
        "the late ones stand between, and are named by nobody"
    );
    let records = rig.number("select max(payload_record) from delivery.resolved").await;
    assert_eq!(records, 4, "two blocks, and three late ones between them");
    resolving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_made_anew_is_read_in_a_new_generation_and_nothing_counts_twice() {
    let Some(rig) = Rig::new().await else { return };
    let (old, new) = (ids("old", 8), ids("new", 5));
    rig.append(&old[..4]).await;
    rig.append(&old[4..]).await;
    let _resolving = rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 8)).await;

    // The loop stands at the end of the log and waits, while it is taken away under it.
    rig.delete_topic().await;
    rig.append(&old[2..6]).await;
    rig.append(&new).await;
    // An append that was repeated may stand there twice, as a client's repeat does.
    let events = eventually_seen("the new generation to be resolved", async || {
        let events = rig.resolved_from(Position::new(2, 0, 0)).await;
        let last = events.last().map(|event| event.message_id.clone());
        if last.as_ref() == new.last() { Ok(events) } else { Err(format!("{last:?}")) }
    })
    .await;
    let (duplicates, winners): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| event.duplicate.is_some());
    let ids_of = |events: Vec<ResolvedEvent>| events.into_iter().map(|event| event.message_id);
    assert!(ids_of(winners).eq(new.iter().cloned()), "each new one once, and none that was resolved before");
    let repeated: BTreeSet<String> = ids_of(duplicates).collect();
    assert!(repeated.is_superset(&old[2..6].iter().cloned().collect()), "{repeated:?}");
    assert_eq!(rig.ids_from(Position::new(1, 0, 0)).await, old, "what was resolved stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted_from_the_records_beyond_the_cursors() {
    let Some(rig) = Rig::new().await else { return };
    let all = ids("a", 60);
    rig.append(&all[..20]).await;
    let resolving = rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 20)).await;
    resolving.abort();
    let _ = resolving.await;
    let books = Books::new(StatsStore::new(rig.services.database.pool.clone()), Arc::clone(&rig.journal));
    for received in [20, 40, 60] {
        if received > 20 {
            rig.append(&all[received - 20..received]).await;
        }
        let counts = books.counts(WORKSPACE).await.unwrap();
        assert_eq!(counts.accepted.values().sum::<u64>(), received as u64);
        assert_eq!(counts.waiting[&LANE.connection.0], received as u64, "no lane has settled anything");
        let balances = books.balances(WORKSPACE).await.unwrap();
        assert_eq!(balances.received, received as u64);
        let balance = &balances.finish()[&LANE.connection.0];
        assert!(balance.is_clean(), "{balance:?}");
        assert_eq!(balance.accepted, received as u64);
    }
    // Resolve overtakes what was counted, and the count goes on.
    rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 60)).await;
    let counts = books.counts(WORKSPACE).await.unwrap();
    assert_eq!(counts.accepted.values().sum::<u64>(), 60);
    assert_eq!(counts.waiting[&LANE.connection.0], 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lane_has_not_behind_it_is_not_trimmed_and_headers_go_on_counting() {
    let Some(rig) = Rig::new().await else { return };
    let all = ids("a", 30);
    let _resolving = rig.start().await;
    for part in all.chunks(10) {
        rig.append(part).await;
        rig.wait_until_resolved(Position::new(
            1,
            0,
            all.iter().position(|id| *id == part[9]).unwrap() as u64 + 1,
        ))
        .await;
    }
    let trim = async |longest: Duration| {
        let resolve = Duty::resolve(WORKSPACE, PARTITION);
        let journal = rig.journal.as_ref();
        retention::trim(journal, &rig.resolved, &rig.cursors, resolve, &[LANE.connection], longest)
            .await
            .unwrap();
    };
    let kept = "select count(*) from delivery.resolved where payload_record is not null";
    rig.services.run("update delivery.lane_cursor set next_offset = 20").await;
    trim(Duration::from_secs(3_600)).await;
    assert_eq!(rig.number(kept).await, 3, "a rebuild of the claims may want them");
    trim(Duration::ZERO).await;
    assert_eq!(rig.number(kept).await, 1, "two are behind the lane");
    assert_eq!(rig.ids_from(Position::new(1, 0, 20)).await, all[20..]);
    let gone = rig.resolved.read(WORKSPACE, Position::new(1, 0, 0), 1).await;
    assert!(matches!(gone, Err(StoreError::Trimmed)), "{gone:?}");
    let books = Books::new(StatsStore::new(rig.services.database.pool.clone()), Arc::clone(&rig.journal));
    assert_eq!(books.balances(WORKSPACE).await.unwrap().received, 30);
    // Resolve goes on behind what it has trimmed.
    rig.append(&ids("b", 1)).await;
    rig.wait_until_resolved(Position::new(1, 0, 31)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_kafka_begins_where_resolve_stands() {
    let Some(rig) = Rig::new().await else { return };
    rig.append(&ids("a", 7)).await;
    rig.start().await;
    rig.wait_until_resolved(Position::new(1, 0, 7)).await;
    let new = Duty { connection: ConnectionId(8), ..LANE };
    rig.cursors.begin_lanes(&[new, Duty { partition: Partition(1), ..new }]).await.unwrap();
    let begun = rig.cursors.lane(new).await.unwrap().unwrap();
    assert_eq!((begun.start, begun.next), (Position::new(1, 0, 7), Position::new(1, 0, 7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_changes_over_in_a_new_generation_once_the_old_journal_is_read() {
    let Some(rig) = Rig::new().await else { return };
    let pool = rig.services.database.pool.clone();
    let mut builder = BlockBuilder::default();
    ids("old", 3).iter().for_each(|id| builder.push(SourceId(1), 1, &event(id).encode_to_vec()));
    let postgres = PostgresJournal::new(pool.clone());
    let block = builder.finish().unwrap();
    tracklayer_testkit::append(&postgres, WORKSPACE, PARTITION, &block).await.unwrap();
    assert_eq!(
        rig.cursors.of_another_journal().await.unwrap(),
        [(WORKSPACE, PARTITION)],
        "three are not read"
    );
    rig.services.run("insert into delivery.resolve_cursor values (1, 0, 1, 3)").await;
    assert_eq!(rig.cursors.of_another_journal().await.unwrap(), [], "all are");

    let new = ids("new", 4);
    rig.append(&new).await;
    rig.start().await;
    rig.wait_until_resolved(Position::new(2, 0, 4)).await;
    assert_eq!(rig.ids_from(Position::new(2, 0, 0)).await, new);
    let back = CursorStore::new(pool).of_another_journal().await.unwrap();
    assert_eq!(back, [(WORKSPACE, PARTITION)], "there is no way back");
}
