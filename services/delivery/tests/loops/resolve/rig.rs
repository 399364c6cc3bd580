//! Resolve loops with everything around them that they talk to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::dedup::Dedup;
use tracklayer_delivery::entry::EntryReader;
use tracklayer_delivery::lease::{Duty, FleetLevel, Lease, LeaseKeeper};
use tracklayer_delivery::narrowing::NarrowingTail;
use tracklayer_delivery::progress::Progress;
use tracklayer_delivery::resolve::{ReadEvent, Resolver, read_event};
use tracklayer_delivery::skips::Skipping;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dedup_generation::DedupGenerationStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::ResolvedStore;
use tracklayer_delivery::store::skips::SkipStore;
use tracklayer_delivery::suspects::Suspects;
use tracklayer_ids::{Partition, Position, SourceId};
use tracklayer_journal::{BlockBuilder, FEATURE_LEVEL, Journal as _, PostgresJournal, Spread};
use tracklayer_proto::event::v1::{Event, EventType, ResolvedEvent};
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_testkit::{TestRedis, eventually, eventually_seen};

use crate::services::{Services, WORKSPACE, configuration};

pub const PARTITION: Partition = Partition(0);
pub const ANOTHER: Partition = Partition(1);

pub struct Rig {
    pub services: Services,
    /// Appends, as ingest does.
    pub journal: PostgresJournal,
    pub resolved: ResolvedStore,
    pub resolver: Arc<Resolver>,
    progress: Progress,
    redis: TestRedis,
}

impl Rig {
    pub async fn new() -> Self {
        Self::configured(configuration(2, Vec::new())).await
    }

    /// With this configuration.
    pub async fn configured(config: ConfigWatch) -> Self {
        let services = Services::start().await;
        let pool = services.database.pool.clone();
        Self::with(services, config, pool, read_event).await
    }

    /// Whose loops read the journal over a pool of their own, and events in a way of their own.
    pub async fn over(services: Services, received: PgPool, read: ReadEvent) -> Self {
        Self::with(services, configuration(2, Vec::new()), received, read).await
    }

    async fn with(services: Services, config: ConfigWatch, received: PgPool, read: ReadEvent) -> Self {
        let redis = tracklayer_testkit::redis().await;
        let client = redis::Client::open(redis.url.as_str()).unwrap();
        let claims = ConnectionManager::new(client).await.unwrap();
        let pool = services.database.pool.clone();
        let journal = PostgresJournal::new(pool.clone());
        let resolved = ResolvedStore::new(Index::new(pool.clone()));
        let cursors = CursorStore::new(pool.clone());
        let progress = Progress::default();
        let fleet = FleetLevel::default();
        fleet.set(FEATURE_LEVEL);
        let resolver = Arc::new(Resolver {
            journal: PostgresJournal::new(received).into(),
            resolved: resolved.clone(),
            cursors: cursors.clone(),
            skips: SkipStore::new(pool.clone()),
            dedup: Dedup::new(claims, DedupGenerationStore::new(pool.clone()), resolved.clone()),
            fleet,
            clients: services.clients.clone(),
            config: config.clone(),
            connections: Connections::new(config, services.master_key.clone()),
            progress: progress.clone(),
            entries: EntryReader::new(resolved.clone(), 64 << 20),
            narrowing: NarrowingTail::new(services.clients.consent.clone()),
            master_key: services.master_key.clone(),
            read,
            suspects: Suspects::default(),
            headroom: Arc::default(),
        });
        let shutdown = services.shutdown.clone();
        let polling =
            progress.clone().poll(journal.clone().into(), cursors, Duration::from_millis(5), shutdown);
        tokio::spawn(polling);
        Self { services, journal, resolved, resolver, progress, redis }
    }

    /// Starts the loop of a partition, under the next epoch.
    pub async fn start(&self, partition: Partition) -> JoinHandle<()> {
        self.run(self.lease(partition).await)
    }

    /// The next epoch of a partition.
    pub async fn lease(&self, partition: Partition) -> Lease {
        let duty = Duty::resolve(WORKSPACE, partition);
        // Whoever held it before has ended.
        sqlx::query("update delivery.lease set holder = null where partition = $1")
            .bind(partition.0.cast_signed())
            .execute(&self.services.database.pool)
            .await
            .unwrap();
        let leases = LeaseStore::new(self.services.database.pool.clone());
        let mut keeper = LeaseKeeper::new(leases, Duration::from_secs(600));
        // A commit that was broken off may still hold the lease's row: it is passed over until that is rolled back.
        eventually("the lease to be free", async || keeper.round(&[duty].into()).await.unwrap().taken.pop())
            .await
    }

    /// By what operators skip blocks.
    pub fn skipping(&self) -> Skipping {
        let pool = self.services.database.pool.clone();
        Skipping {
            journal: self.journal.clone().into(),
            cursors: CursorStore::new(pool.clone()),
            store: SkipStore::new(pool),
            resolved: self.resolved.clone(),
        }
    }

    /// Starts a loop under a lease.
    pub fn run(&self, lease: Lease) -> JoinHandle<()> {
        tokio::spawn(Arc::clone(&self.resolver).run(lease, self.services.shutdown.clone()))
    }

    /// Where claims are, for whom a busy machine may keep waiting.
    pub async fn redis(&self) -> ConnectionManager {
        let client = redis::Client::open(self.redis.url.as_str()).unwrap();
        let patient = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        ConnectionManager::new_with_config(client, patient).await.unwrap()
    }

    /// Appends blocks of events; each message_id says where it was appended.
    pub async fn append(&self, partition: Partition, prefix: &str, blocks: usize, events: usize) {
        for block in 0..blocks {
            let ids = (0..events).map(|event| format!("{prefix}-{}", block * events + event));
            let encoded: Vec<Bytes> = ids.map(|id| event(&id).encode_to_vec().into()).collect();
            self.append_bytes(partition, &encoded).await;
        }
    }

    /// Appends a block of whatever bytes.
    pub async fn append_bytes(&self, partition: Partition, events: &[Bytes]) {
        let mut builder = BlockBuilder::default();
        for bytes in events {
            builder.push(SourceId(1), 1, bytes);
        }
        let block = builder.finish().unwrap();
        tracklayer_testkit::append(&self.journal, WORKSPACE, partition, &block).await.unwrap();
    }

    /// The configuration says another number of partitions: what is appended from now on stands in the next generation.
    pub async fn open_next_generation(&self) {
        self.journal.layout(WORKSPACE, Spread { partitions: 3, revision: 1 }).await.unwrap();
    }

    /// Waits until the poll has seen that much in the journal.
    pub async fn wait_until_received(&self, end: Position) {
        let progress = self.progress.partition(WORKSPACE, end.partition);
        eventually_seen("the journal's end to be seen", async || {
            let at = *progress.received.borrow();
            if at == end { Ok(()) } else { Err(at) }
        })
        .await;
    }

    pub async fn wait_until_resolved(&self, end: Position) {
        let progress = self.progress.partition(WORKSPACE, end.partition);
        eventually_seen("resolve to come to the end", async || {
            let at = *progress.resolved.borrow();
            if at == end { Ok(()) } else { Err(at) }
        })
        .await;
    }

    /// What stands in `resolved` from a position to the end of its generation.
    pub async fn resolved_from(&self, mut at: Position) -> Vec<ResolvedEvent> {
        let mut events = Vec::new();
        loop {
            let blocks = self.resolved.read(WORKSPACE, at, 16).await.unwrap();
            let Some(last) = blocks.last() else { return events };
            at.offset = last.end();
            let bytes = blocks.iter().flat_map(|block| block.events().unwrap());
            events.extend(bytes.map(|bytes| ResolvedEvent::decode(bytes).unwrap()));
        }
    }

    /// The message_ids from there on, of events that are neither duplicates nor unread.
    pub async fn ids_from(&self, at: Position) -> Vec<String> {
        let events = self.resolved_from(at).await;
        assert!(
            events.iter().all(|event| event.duplicate.is_none() && event.poisoned.is_empty()),
            "{events:?}"
        );
        events.into_iter().map(|event| event.message_id).collect()
    }
}

/// An event of one of fifty visitors.
pub fn event(message_id: &str) -> Event {
    let number: usize = message_id.rsplit('-').next().unwrap().parse().unwrap();
    Event {
        message_id: message_id.to_owned(),
        r#type: EventType::Track.into(),
        name: "Product Viewed".to_owned(),
        source_id: 1,
        anonymous_id: format!("visitor-{}", number % 50),
        received_at: Some(tracklayer_delivery::subjects::proto_time(jiff::Timestamp::now())),
        ..Event::default()
    }
}

/// The message_ids of [`Rig::append`].
pub fn ids(prefix: &str, events: usize) -> Vec<String> {
    (0..events).map(|n| format!("{prefix}-{n}")).collect()
}
