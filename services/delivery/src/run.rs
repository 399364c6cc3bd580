//! Starts the service: wires its parts together and hands them to the supervisor.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Partition, Secret};
use tracklayer_journal::{Headroom, Kind};
use tracklayer_journal_kafka::KafkaFailure;
use tracklayer_postgres::Limits;
use tracklayer_proto::delivery::v1::delivery_service_server::DeliveryServiceServer;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_rpc::{GrpcServer, Listeners, Readiness};

use crate::backlog::Backlog;
use crate::breaker::Breakers;
use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::Config;
use crate::connections::Connections;
use crate::dead_letters::DeadLetters;
use crate::dedup::Dedup;
use crate::entry::EntryReader;
use crate::examine::Examiner;
use crate::file_memory::FileMemory;
use crate::follower::Follower;
use crate::give_ups::GiveUps;
use crate::golden::Golden;
use crate::grpc::DeliveryGrpc;
use crate::holds::Holds;
use crate::http::Sender;
use crate::ingest_requests::{Away, VerdictPoller};
use crate::inspection::Inspection;
use crate::lane::{Lane, LaneContext};
use crate::lease::{Duty, Lease, LeaseKeeper};
use crate::match_keys::MatchKeys;
use crate::match_quality::MatchQuality;
use crate::narrowing::NarrowingTail;
use crate::oauth::Tokens;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::quota::Quota;
use crate::replay::replays::Replays;
use crate::resolve::{Resolver, describe_metrics, error_chain, read_event};
use crate::retention::DayKeeper;
use crate::reused_ids;
use crate::store::StoreError;
use crate::store::cursors::CursorStore;
use crate::store::dead_letters::DeadLetterStore;
use crate::store::dedup_generation::DedupGenerationStore;
use crate::store::examine::ExamineStore;
use crate::store::give_ups::GiveUpStore;
use crate::store::golden::GoldenStore;
use crate::store::index::Index;
use crate::store::ingest_requests::IngestRequestStore;
use crate::store::lanes::LaneStore;
use crate::store::leases::LeaseStore;
use crate::store::ledger::LedgerStore;
use crate::store::match_quality::MatchQualityStore;
use crate::store::orders::OrderStore;
use crate::store::replays::ReplayStore;
use crate::store::resolved::ResolvedStore;
use crate::store::retention::RetentionStore;
use crate::store::retries::RetryStore;
use crate::store::skips::SkipStore;
use crate::store::twins::TwinStore;
use crate::supervisor::{Supervisor, Tasks};
use crate::suspects::Suspects;
use crate::twins::Twins;
use crate::verify::Verifier;

/// Connections to PostgreSQL that only leases use.
const LEASE_CONNECTIONS: u32 = 2;

/// Why the service could not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Settings.
    #[error("delivery's settings cannot be used: {0}")]
    Config(String),
    /// PostgreSQL.
    #[error("could not connect delivery to its database")]
    Postgres(#[from] tracklayer_postgres::PostgresError),
    /// Redis.
    #[error("could not connect delivery to Redis")]
    Redis(#[from] redis::RedisError),
    /// Kafka.
    #[error("could not use kafka as the journal")]
    Kafka(#[from] KafkaFailure),
    /// The tables.
    #[error("could not read delivery's cursors")]
    Store(#[from] StoreError),
    /// The installation changed its journal before the old one was read to its end.
    #[error(
        "`journal` was changed, and the one before is not read to its end ({partitions} partitions are left): start ingest with \
         the new one, and delivery with the old one until nothing waits; from kafka there is no way back to postgres"
    )]
    JournalChanged {
        /// How many.
        partitions: usize,
    },
    /// A journal that nothing has been read from does not answer: its address may be wrong.
    #[error(
        "the journal does not answer, and nothing was changed to use it; see `kafka_brokers`, and start again when it does"
    )]
    JournalAway(#[source] tracklayer_journal::JournalError),
    /// Addresses of the others.
    #[error("could not use the address of another service")]
    Connect(#[from] tracklayer_rpc::ConnectError),
    /// HTTP client.
    #[error(transparent)]
    Client(#[from] tracklayer_outbound::ClientError),
    /// Serving.
    #[error("could not serve delivery")]
    Serve(#[from] tracklayer_rpc::ServeError),
}

/// Runs delivery until `shutdown`: not ready, nothing new is begun, what is under way is finished and committed, leases are given
/// back, then it returns.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(RunError::Config(problems.join("; ")));
    }
    let pool = tracklayer_postgres::connect(&config.database_url, config.database_connections).await?;
    let redis = connect_redis(&config.redis_url).await?;
    let token = Secret::new(config.master_key.service_token());
    let control = tracklayer_rpc::connect_lazy(&config.control_address, token.clone())?;
    let identity = tracklayer_rpc::connect_lazy(&config.identity_address, token.clone())?;
    let consent = tracklayer_rpc::connect_lazy(&config.consent_address, token.clone())?;

    let watch = ConfigWatch::start(control.clone(), shutdown.clone());
    let connections = Connections::new(watch.clone(), config.master_key.clone());
    let clients = Clients::new(identity.clone(), consent.clone());
    let journal = tracklayer_journal_kafka::open(config.journal, config.kafka(), pool.clone())?;
    // Leases are renewed over connections of their own: a pool that lanes have emptied must not cost a lease.
    let limits = Limits::new(LEASE_CONNECTIONS).named("tracklayer-leases");
    let lease_pool = tracklayer_postgres::connect_with(&config.database_url, limits).await?;
    let ttl = Duration::from_millis(config.lease_ms);
    let keeper = LeaseKeeper::new(LeaseStore::beside(lease_pool.clone(), journal.kind()), ttl);
    let index = Index::beside(pool.clone(), keeper.fleet());
    let resolved = ResolvedStore::over(index.clone(), journal.resolved());
    let cursors = CursorStore::beside(pool.clone(), journal.kind());
    let partitions = cursors.of_another_journal().await?.len();
    if partitions > 0 {
        return Err(RunError::JournalChanged { partitions });
    }
    // From the first cursor in it on there is no way back.
    if journal.kind() == Kind::Kafka && !cursors.stand_in_kafka().await? {
        journal.weaknesses().await.map_err(RunError::JournalAway)?;
    }
    let entries = EntryReader::new(resolved.clone(), config.entry_cache_bytes);
    let progress = Progress::default();
    let sender = Sender::new(config.allow_private_addresses)?;

    let dedup = Dedup::new(redis.clone(), DedupGenerationStore::new(pool.clone()), resolved.clone());
    let dedup = dedup.beside(Arc::clone(&journal));
    if let Err(error) = dedup.keeps_all_keys().await {
        tracing::warn!(error = %error_chain(&error), "Redis could not be asked whether it evicts keys");
    }
    reused_ids::describe();
    let narrowing = NarrowingTail::new(clients.consent.clone());
    let orders = OrderStore::new(index.clone());
    let match_keys = MatchKeys::new(orders.match_keys(), narrowing.clone(), config.master_key.clone());
    let headroom = Arc::new(Headroom::of_service("delivery"));
    describe_metrics();
    let resolver = Arc::new(Resolver {
        journal: Arc::clone(&journal),
        resolved: resolved.clone(),
        cursors: cursors.clone(),
        skips: SkipStore::new(pool.clone()),
        dedup,
        fleet: keeper.fleet(),
        clients: clients.clone(),
        config: watch.clone(),
        connections: connections.clone(),
        progress: progress.clone(),
        entries: entries.clone(),
        narrowing: narrowing.clone(),
        master_key: config.master_key.clone(),
        read: read_event,
        suspects: Suspects::default(),
        headroom: Arc::clone(&headroom),
    });
    let quality = MatchQuality {
        store: MatchQualityStore::new(pool.clone()),
        connections: connections.clone(),
        sender: sender.clone(),
        kept_days: config.match_quality_days,
    };
    let quota = Quota::default().shared_over(redis.clone());
    let tokens = Tokens::new(sender.clone());
    let verifier = Verifier::new(
        connections.clone(),
        sender.clone(),
        tokens.clone(),
        quota.clone(),
        config.file_rules(),
    );
    let verdicts = VerdictPoller {
        store: IngestRequestStore::new(pool.clone()),
        resolved: entries.store().clone(),
        connections: connections.clone(),
        sender: sender.clone(),
        tokens: tokens.clone(),
        quota: quota.clone(),
        away: Away::default(),
    };
    let holds = Holds::new(watch.clone());
    let give_ups = GiveUps::default();
    let clock = Clock::default();
    let replays = Replays::default();
    let lanes = Arc::new(LaneContext {
        breakers: Breakers::new(clock.clone()),
        clock,
        connections: connections.clone(),
        holds: holds.clone(),
        pace: Pace::default(),
        config: watch.clone(),
        entries,
        progress: progress.clone(),
        give_ups: give_ups.clone(),
        replays: replays.clone(),
        cursors: cursors.clone(),
        lanes: LaneStore::new(pool.clone()),
        ledger: LedgerStore::new(index.clone()),
        retries: RetryStore::new(pool.clone()),
        orders,
        match_keys: match_keys.clone(),
        replay_store: ReplayStore::new(pool.clone()),
        clients: clients.clone(),
        narrowing,
        sender,
        files: config.file_rules(),
        file_memory: FileMemory::new(config.file_memory_bytes),
        tokens,
        quota: quota.clone(),
        headroom,
        master_key: config.master_key.clone(),
    });

    let readiness = Readiness::default();
    readiness.set(false, "no configuration yet");
    let examiner = Examiner {
        journal: Arc::clone(&journal),
        store: ExamineStore::new(pool.clone()),
        inspection: Inspection::new(pool.clone(), journal.kind()).beside(Arc::clone(&journal)),
        days: RetentionStore::new(pool.clone()),
        redis,
        control,
        identity,
        consent,
        config: watch.clone(),
        holds,
    };
    let grpc = DeliveryGrpc::new(
        index.clone(),
        Arc::clone(&journal),
        examiner,
        verifier,
        watch.clone(),
        config.control_address.clone(),
        &config.master_key,
    );
    let server = GrpcServer::new("delivery").add(DeliveryServiceServer::new(grpc));
    let serving = tokio::spawn(server.serve(listeners.grpc, shutdown.clone()));
    let ops = tokio::spawn(tracklayer_rpc::serve_http(
        listeners.ops,
        tracklayer_rpc::ops_router(readiness.clone()),
        shutdown.clone(),
    ));
    // After the router, which installs the recorder that keeps the descriptions.
    Quota::describe_metrics();
    let days = DayKeeper {
        journal: Arc::clone(&journal),
        store: RetentionStore::new(pool.clone()),
        config: watch.clone(),
    };
    days.make_days().await;
    let days = tokio::spawn(days.run(shutdown.clone()));
    let merges = tokio::spawn(index.keep_merged(shutdown.clone()));
    let narrowed = tokio::spawn(match_keys.follower.run(Clock::default(), shutdown.clone()));
    let letters =
        DeadLetters { store: DeadLetterStore::new(pool.clone()), kept_days: config.dead_letter_days };
    let letters = Follower::new(letters, NarrowingTail::new(clients.consent.clone()));
    let letters = tokio::spawn(letters.run(Clock::default(), shutdown.clone()));
    let judged = tokio::spawn(verdicts.run(Clock::default(), shutdown.clone()));
    let golden =
        Golden::new(GoldenStore::new(pool.clone()), clients, watch.clone(), config.master_key.clone());
    let golden = tokio::spawn(golden.follower().run(Clock::default(), shutdown.clone()));
    let quality = tokio::spawn(quality.run(Clock::default(), shutdown.clone()));
    let twins = Twins { store: TwinStore::new(pool.clone()), kept_days: config.twin_days };
    let twins = tokio::spawn(twins.run(Clock::default(), shutdown.clone()));
    let given_up = tokio::spawn(give_ups.watch(GiveUpStore::new(pool.clone()), shutdown.clone()));
    let replayed = tokio::spawn(replays.watch(ReplayStore::new(pool.clone()), shutdown.clone()));
    let backlog = Backlog::default();
    let inspection = Inspection::new(pool, journal.kind()).beside(Arc::clone(&journal));
    let backlogs = tokio::spawn(backlog.clone().watch(inspection, shutdown.clone()));
    let poll = tokio::spawn(progress.poll(
        journal,
        cursors,
        Duration::from_millis(config.poll_ms),
        shutdown.clone(),
    ));

    let supervisor = Supervisor::new(
        keeper,
        ttl,
        CursorStore::beside(lease_pool, config.journal),
        watch.clone(),
        readiness,
        Loops { quota, connections, watch, resolver, lanes, backlog },
    );
    supervisor.run(shutdown).await;
    let _ = tokio::join!(
        poll, days, merges, narrowed, letters, judged, golden, quality, twins, given_up, replayed, backlogs,
    );
    flatten(serving.await)?;
    flatten(ops.await)
}

fn flatten(
    joined: Result<Result<(), tracklayer_rpc::ServeError>, tokio::task::JoinError>,
) -> Result<(), RunError> {
    match joined {
        Ok(result) => Ok(result?),
        Err(panic) => {
            tracing::error!(error = %panic, "a server task ended by itself");
            Ok(())
        }
    }
}

async fn connect_redis(url: &Secret<String>) -> Result<ConnectionManager, redis::RedisError> {
    let client = redis::Client::open(url.expose().as_str())?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(2)))
        .set_response_timeout(Some(Duration::from_secs(5)));
    ConnectionManager::new_with_config(client, config).await
}

/// The resolve loops and lanes of this process.
struct Loops {
    quota: Quota,
    connections: Connections,
    watch: ConfigWatch,
    resolver: Arc<Resolver>,
    lanes: Arc<LaneContext>,
    backlog: Backlog,
}

impl Tasks for Loops {
    fn wanted(&self) -> Option<BTreeSet<Duty>> {
        let snapshot = self.watch.snapshot()?;
        let all = self.connections.all()?;
        let mut wanted = BTreeSet::new();
        for (workspace, config) in &snapshot.workspaces {
            // Also partitions that are not appended to any more: they are read to their ends.
            let width = self.resolver.progress.width(*workspace).max(config.partitions).max(1);
            for partition in (0..width).map(Partition) {
                wanted.insert(Duty::resolve(*workspace, partition));
                for connection in all.get(workspace).into_iter().flatten() {
                    wanted.insert(Duty { workspace: *workspace, connection: connection.id, partition });
                }
            }
        }
        Some(wanted)
    }

    fn task(&self, lease: Lease, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let (resolver, lanes) = (Arc::clone(&self.resolver), Arc::clone(&self.lanes));
        let told = self.backlog.tell_of(&lease);
        async move {
            let _told = told;
            if lease.duty.is_resolve() {
                resolver.run(lease, shutdown).await;
            } else {
                Lane::new(lanes, lease).run(shutdown).await;
            }
        }
    }

    fn shared_among(&self, processes: usize) {
        self.quota.share_among(processes);
    }

    fn forget(&self) {
        self.resolver.progress.forget();
    }
}
