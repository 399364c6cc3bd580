//! Starts ingest, and stops it without losing what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracklayer_ids::Secret;
use tracklayer_journal::{Appender, AppenderSettings, Headroom, Journal};
use tracklayer_journal_kafka::KafkaFailure;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_rpc::{
    GrpcServer, Listeners, Readiness, ServeError, StackLimits, connect_lazy, ops_router, serve_http,
};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::config::Config;
use crate::grpc::{GrpcSettings, IngestGrpc};
use crate::http::{EdgeSettings, router};
use crate::ingest::Ingest;
use crate::look::Look;
use crate::metrics;
use crate::narrowing::Narrowing;
use crate::orders::KnownOrders;
use crate::rate::RateLimit;
use crate::refusals::Refusals;
use crate::rejected::RejectedEvents;

/// How often time partitions are made and old rejected events forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(3_600);

/// What is sent on one gRPC connection and not yet read, at most: two batches. More is held back at the sender.
const UNREAD_BYTES_PER_CONNECTION: u32 = 1024 * 1024;
/// Calls of one gRPC connection at once.
const CALLS_PER_CONNECTION: u32 = 256;

/// Why ingest could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings.
    #[error("settings of ingest: {}", problems.join("; "))]
    Config {
        /// Each with what is allowed.
        problems: Vec<String>,
    },
    /// The database.
    #[error("could not reach the database")]
    Database(#[from] tracklayer_postgres::PostgresError),
    /// Kafka.
    #[error("could not use kafka as the journal")]
    Kafka(#[from] KafkaFailure),
    /// An address of another service.
    #[error("could not use the address of {service}")]
    Address {
        /// Whose.
        service: &'static str,
        /// Why.
        #[source]
        source: tracklayer_rpc::ConnectError,
    },
    /// The address of Redis.
    #[error("could not use the address of redis")]
    Redis(#[source] redis::RedisError),
    /// A server ended.
    #[error("a server of ingest failed")]
    Serve(#[from] ServeError),
    /// There is no HTTP listener.
    #[error("ingest needs an http listener")]
    NoHttpListener,
}

/// Runs until `shutdown`. Does not migrate.
///
/// # Errors
/// The settings are wrong, the database is away at the start, or a server failed.
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(RunError::Config { problems });
    }
    let http_listener = listeners.http.ok_or(RunError::NoHttpListener)?;
    tracklayer_telemetry::install_recorder();
    metrics::describe();

    let token = || Secret::new(config.master_key.service_token());
    let connect = |service: &'static str, address: &str| {
        connect_lazy(address, token()).map_err(|source| RunError::Address { service, source })
    };
    let control = connect("control", &config.control_address)?;
    let consent = connect("consent", &config.consent_address)?;
    let pool = tracklayer_postgres::connect(&config.database_url, config.database_connections).await?;
    let watch = ConfigWatch::start(control, shutdown.clone());
    // Stopped by itself, after the servers: what they accepted has to reach the disk.
    let appender_stop = CancellationToken::new();
    let journal = tracklayer_journal_kafka::open(config.journal, config.kafka(), pool.clone())?;
    let headroom = Arc::new(Headroom::of_service("ingest"));
    let settings = AppenderSettings { headroom: Arc::clone(&headroom), ..appender_settings(&config) };
    let appender = Appender::start(Arc::clone(&journal), settings, &appender_stop);
    let rejected = RejectedEvents::new(pool.clone(), config.rejected_per_source_and_hour);
    let orders = KnownOrders::new(pool);
    let budget = Budget::new(config.journal_budget, config.journal_limit);
    let ingest = Arc::new(Ingest {
        watch: watch.clone(),
        budget: budget.clone(),
        admission: Admission::new(config.max_in_flight_requests, config.max_in_flight_bytes),
        headroom,
        rate: RateLimit::new(config.max_events_per_second_per_source),
        refusals: Refusals::default(),
        narrowing: Narrowing::new(
            consent,
            config.master_key.clone(),
            Duration::from_millis(config.consent_timeout_ms),
            Duration::from_secs(config.narrowing_cache_seconds),
        ),
        look: look(&config, &journal)?,
        appender: appender.clone(),
        rejected: rejected.clone(),
        orders: orders.clone(),
        trace_sample_ratio: config.trace_sample_ratio,
    });

    let readiness = Readiness::default();
    readiness.set(false, "no configuration from control yet");
    let tasks = TaskTracker::new();
    tasks.spawn(follow_readiness(watch, readiness.clone(), shutdown.clone()));
    let told = tracklayer_journal_kafka::tell_weaknesses(Arc::clone(&journal));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(told));
    tasks.spawn(budget.watch(Arc::clone(&journal), shutdown.clone()));
    tasks.spawn(keep_house(journal, rejected, config.rejected_retention_hours, shutdown.clone()));
    tasks.spawn(forget_orders(orders, config.known_order_days, shutdown.clone()));
    tasks.close();

    let edge = EdgeSettings {
        body_timeout: Duration::from_millis(config.body_timeout_ms),
        trusted_proxies: config.trusted_proxies,
        public_protocol: config.public_protocol.clone(),
        master_key: config.master_key.clone(),
    };
    let of_calls = GrpcSettings { stream_window: config.stream_window, body_timeout: edge.body_timeout };
    let limits = StackLimits {
        connections: config.max_grpc_connections as usize,
        streams: CALLS_PER_CONNECTION,
        window_bytes: UNREAD_BYTES_PER_CONNECTION,
        ..StackLimits::default()
    };
    let grpc = GrpcServer::new("ingest")
        .limits(limits)
        .add(IngestGrpc::service(Arc::clone(&ingest), of_calls, &config.master_key, shutdown.clone()))
        .serve(listeners.grpc, shutdown.clone());
    let http = serve_http(http_listener, router(ingest, edge), shutdown.clone());
    let ops = serve_http(listeners.ops, ops_router(readiness.clone()), shutdown.clone());
    tracing::info!("ingest is up");
    // If one of them fails, the others are told to stop as well.
    let stop_all = |result: Result<(), ServeError>| {
        if result.is_err() {
            shutdown.cancel();
        }
        result
    };
    let (grpc, http, ops) =
        futures::future::join3(async { stop_all(grpc.await) }, async { stop_all(http.await) }, async {
            stop_all(ops.await)
        })
        .await;
    readiness.set(false, "shutting down");
    appender_stop.cancel();
    appender.stopped().await;
    tasks.wait().await;
    tracing::info!("ingest has stopped");
    grpc.and(http).and(ops).map_err(RunError::from)
}

fn appender_settings(config: &Config) -> AppenderSettings {
    AppenderSettings {
        shards: config.append_shards as usize,
        max_linger: Duration::from_millis(config.max_linger_ms),
        max_waiting_bytes: usize::try_from(config.max_waiting_bytes).unwrap_or(usize::MAX),
        ..AppenderSettings::default()
    }
}

fn look(config: &Config, journal: &Arc<dyn Journal>) -> Result<Option<Look>, RunError> {
    let timeout = Duration::from_millis(config.look_timeout_ms);
    let look = |url| Look::new(url, timeout, Arc::clone(journal));
    config.redis_url.as_ref().map(look).transpose().map_err(RunError::Redis)
}

/// Ready from the first configuration on; it goes on with the last one when control is away.
async fn follow_readiness(mut watch: ConfigWatch, readiness: Readiness, shutdown: CancellationToken) {
    while watch.snapshot().is_none() {
        tokio::select! {
            () = watch.changed() => {}
            () = shutdown.cancelled() => return,
        }
    }
    readiness.set(true, "");
}

/// Forgets orders whose refunds are not waited for any more.
async fn forget_orders(orders: KnownOrders, days: u32, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = orders.forget_older_than(days).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "old orders of shops were not forgotten"
            );
        }
    }
}

/// Makes what the journal needs in the coming days, and forgets old rejected events.
async fn keep_house(
    journal: Arc<dyn Journal>,
    rejected: RejectedEvents,
    hours: u32,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = journal.prepare().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the journal was not prepared for the coming days");
        }
        match rejected.forget_older_than(hours).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "old rejected events were forgotten"),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old rejected events were not forgotten"
                );
            }
        }
    }
}
