//! The resolve loop over real stores and services: every event once, in order, over a backlog and a new generation.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use redis::aio::ConnectionManager;
use tokio_util::sync::CancellationToken;
use tracklayer_delivery::clients::Clients;
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::dedup::Dedup;
use tracklayer_delivery::entry::EntryReader;
use tracklayer_delivery::lease::{Duty, LeaseKeeper};
use tracklayer_delivery::progress::Progress;
use tracklayer_delivery::resolve::Resolver;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dedup_generation::DedupGenerationStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::ResolvedStore;
use tracklayer_ids::{MasterKey, Partition, Position, Secret, SourceId, WorkspaceId};
use tracklayer_journal::{BlockBuilder, PostgresJournal};
use tracklayer_proto::control::v1::{SourceConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_proto::event::v1::{Event, EventType, ResolvedEvent};
use tracklayer_rpc::Listeners;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_testkit::{TestDatabase, TestRedis, eventually_seen, listener};

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const PARTITION: Partition = Partition(0);

struct Rig {
    database: TestDatabase,
    journal: PostgresJournal,
    resolved: ResolvedStore,
    resolver: Arc<Resolver>,
    progress: Progress,
    shutdown: CancellationToken,
    _redis: TestRedis,
}

async fn rig() -> Rig {
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("identity", &tracklayer_identity::MIGRATOR),
        ("consent", &tracklayer_consent::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    let redis = tracklayer_testkit::redis().await;
    let shutdown = CancellationToken::new();
    let master_key = MasterKey::new([7; 32]);
    let clients = start_services(&database, &master_key, &shutdown).await;
    let client = redis::Client::open(redis.url.as_str()).unwrap();
    let claims = ConnectionManager::new(client).await.unwrap();
    let source = SourceConfig { source_id: 1, enabled: true, ..SourceConfig::default() };
    let workspace = WorkspaceConfig {
        workspace_id: WORKSPACE.0,
        partitions: 1,
        sources: vec![source],
        ..WorkspaceConfig::default()
    };
    let config = ConfigWatch::fixed(WatchConfigResponse { version: 1, workspaces: vec![workspace] });
    let pool = database.pool.clone();
    let journal = PostgresJournal::new(pool.clone());
    let resolved = ResolvedStore::new(pool.clone());
    let cursors = CursorStore::new(pool.clone());
    let progress = Progress::default();
    let resolver = Arc::new(Resolver {
        journal: journal.clone(),
        resolved: resolved.clone(),
        cursors: cursors.clone(),
        dedup: Dedup::new(claims, DedupGenerationStore::new(pool.clone()), resolved.clone()),
        clients,
        config: config.clone(),
        connections: Connections::new(config, master_key.clone()),
        progress: progress.clone(),
        entries: EntryReader::new(resolved.clone(), 64 << 20),
        master_key,
    });
    let polling = progress.clone().poll(journal.clone(), cursors, Duration::from_millis(5), shutdown.clone());
    tokio::spawn(polling);
    Rig { database, journal, resolved, resolver, progress, shutdown, _redis: redis }
}

async fn start_services(
    database: &TestDatabase,
    master_key: &MasterKey,
    shutdown: &CancellationToken,
) -> Clients {
    let mut addresses = Vec::new();
    let mut listeners = async || {
        let grpc = listener().await;
        addresses.push(format!("http://{}", grpc.local_addr().unwrap()));
        Listeners { grpc, http: None, ops: listener().await }
    };
    let (at_identity, at_consent) = (listeners().await, listeners().await);
    let identity = tracklayer_identity::Config {
        database_url: database.secret_url(),
        master_key: master_key.clone(),
        consent_address: format!("http://{}", at_consent.grpc.local_addr().unwrap()),
        database_connections: 4,
        policy_file: None,
    };
    let consent = tracklayer_consent::Config {
        database_url: database.secret_url(),
        master_key: master_key.clone(),
        database_connections: 4,
        policy_file: None,
        receipt_retention_days: 731,
    };
    tokio::spawn(tracklayer_identity::run(identity, at_identity, shutdown.clone()));
    tokio::spawn(tracklayer_consent::run(consent, at_consent, shutdown.clone()));
    let connect = |address: &str| {
        tracklayer_rpc::connect_lazy(address, Secret::new(master_key.service_token())).unwrap()
    };
    Clients::new(connect(&addresses[0]), connect(&addresses[1]))
}

impl Rig {
    /// Appends blocks of events; each message_id says where it was appended.
    async fn append(&self, prefix: &str, blocks: usize, events: usize) {
        for block in 0..blocks {
            let mut builder = BlockBuilder::default();
            for event in 0..events {
                let event = Event {
                    message_id: format!("{prefix}-{}", block * events + event),
                    r#type: EventType::Track.into(),
                    name: "Product Viewed".to_owned(),
                    source_id: 1,
                    anonymous_id: format!("visitor-{}", event % 50),
                    received_at: Some(tracklayer_delivery::subjects::proto_time(jiff::Timestamp::now())),
                    ..Event::default()
                };
                builder.push(SourceId(1), 1, &event.encode_to_vec());
            }
            let block = builder.finish().unwrap();
            self.journal.append(&[(WORKSPACE, PARTITION, block)]).await.unwrap();
        }
    }

    /// What a promotion does: the next append opens another generation.
    async fn open_next_generation(&self) {
        sqlx::query("update journal.head set generation = generation + 1, next_offset = 0")
            .execute(&self.database.pool)
            .await
            .unwrap();
    }

    async fn wait_until_resolved(&self, generation: u32, offset: u64) {
        let progress = self.progress.partition(WORKSPACE, PARTITION);
        eventually_seen("resolve to come to the end", async || {
            let at = *progress.resolved.borrow();
            if at == Position::new(generation, PARTITION.0, offset) { Ok(()) } else { Err(at) }
        })
        .await;
    }

    /// The message_ids of a generation in `resolved`, in order.
    async fn resolved_ids(&self, generation: u32) -> Vec<String> {
        let mut at = Position::new(generation, PARTITION.0, 0);
        let mut ids = Vec::new();
        loop {
            let blocks = self.resolved.read(WORKSPACE, at, 16).await.unwrap();
            let Some(last) = blocks.last() else { return ids };
            at.offset = last.end();
            for bytes in blocks.iter().flat_map(|block| block.events().unwrap()) {
                let event = ResolvedEvent::decode(bytes).unwrap();
                assert!(event.duplicate.is_none() && event.poisoned.is_empty(), "{event:?}");
                ids.push(event.message_id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_and_a_new_generation_are_resolved_once_and_in_order() {
    let rig = rig().await;
    rig.append("first", 25, 300).await;
    let duty = Duty::resolve(WORKSPACE, PARTITION);
    let mut keeper = LeaseKeeper::new(LeaseStore::new(rig.database.pool.clone()), Duration::from_secs(600));
    let lease = keeper.round(&[duty].into()).await.unwrap().taken.remove(0);
    let running = tokio::spawn(Arc::clone(&rig.resolver).run(lease, rig.shutdown.clone()));
    rig.wait_until_resolved(1, 7_500).await;

    rig.append("late", 1, 40).await;
    rig.open_next_generation().await;
    rig.append("second", 3, 100).await;
    rig.wait_until_resolved(2, 300).await;
    rig.shutdown.cancel();
    running.await.unwrap();

    let expected =
        |prefix: &str, events: usize| (0..events).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
    assert_eq!(rig.resolved_ids(1).await, [expected("first", 7_500), expected("late", 40)].concat());
    assert_eq!(rig.resolved_ids(2).await, expected("second", 300));
    let (rounds,): (i64,) =
        sqlx::query_as("select count(*) from delivery.resolved where base_offset < 7500 and generation = 1")
            .fetch_one(&rig.database.pool)
            .await
            .unwrap();
    assert!(rounds <= 5, "a backlog is taken in whole rounds, not in {rounds}");
}
