//! The service: its rooms put together.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tracklayer_postgres::Limits;
use tracklayer_proto::consent::v1::consent_service_server::ConsentServiceServer;
use tracklayer_rpc::{GrpcServer, Listeners, Readiness, ServeError};

use crate::{
    config::Config,
    error::StoreError,
    firewall::Firewall,
    grpc::ConsentGrpc,
    metrics,
    policy::{Policy, PolicyError},
    store::{Activation, Store},
};

/// Largest request: 2,500 events with every string as long as it usually is.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;
/// Longest pause inside a transaction: a stopped recorder must not hold up its workspace for longer.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// How often receipts past their retention are looked for.
const RETENTION_ROUND: Duration = Duration::from_secs(3_600);

/// Why consent stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error("the settings of consent are not usable: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The policy file cannot be read.
    #[error("could not read the policy from `{path}`")]
    PolicyFile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The policy cannot be used.
    #[error("consent cannot use its policy")]
    Policy(#[from] PolicyError),
    /// A version was used for two texts.
    #[error("policy version {version} was in force with another text; give a changed policy a new version")]
    PolicyVersionTaken {
        /// The version.
        version: String,
    },
    /// PostgreSQL.
    #[error("consent cannot use its database")]
    Database(#[from] tracklayer_postgres::PostgresError),
    /// A statement.
    #[error("consent cannot use its tables")]
    Store(#[from] StoreError),
    /// A listener.
    #[error("consent stopped serving")]
    Serve(#[from] ServeError),
}

/// Serves gRPC and the operators' endpoints until `shutdown`. The tables must be migrated.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(RunError::Config(problems));
    }
    let policy = Arc::new(load_policy(&config)?);
    // Descriptions given before the recorder is there are lost.
    tracklayer_telemetry::install_recorder();
    metrics::describe();
    let limits = Limits {
        idle_in_transaction_timeout: IDLE_IN_TRANSACTION,
        ..Limits::new(config.database_connections).named("tracklayer-consent")
    };
    let pool = tracklayer_postgres::connect_with(&config.database_url, limits).await?;
    let store = Store::new(pool.clone());
    match store.activate_policy(&policy).await? {
        Activation::Unchanged => {}
        Activation::Replaced { workspaces } => {
            tracing::warn!(version = policy.version(), workspaces, "another policy is in force");
        }
        Activation::VersionTaken => {
            return Err(RunError::PolicyVersionTaken { version: policy.version().to_owned() });
        }
    }
    let service = ConsentServiceServer::new(ConsentGrpc::new(Firewall::new(store.clone(), policy)))
        .max_decoding_message_size(MAX_REQUEST_BYTES);
    let token = tracklayer_rpc::require_service_token(&config.master_key.service_token());
    let grpc = GrpcServer::new("consent").add(InterceptedService::new(service, token));

    // Whoever ends first, by an error, ends the others: no half a service.
    let stop = shutdown.child_token();
    let ready = Readiness::new();
    ready.set(true, "ok");
    let ops = tracklayer_rpc::ops_router(ready.clone());
    let ended = |result: Result<(), ServeError>| {
        stop.cancel();
        result
    };
    let (grpc, ops, (), ()) = tokio::join!(
        async { ended(grpc.serve(listeners.grpc, stop.clone()).await) },
        async { ended(tracklayer_rpc::serve_http(listeners.ops, ops, stop.clone()).await) },
        delete_old_receipts(&store, config.receipt_retention_days, stop.clone()),
        async {
            stop.cancelled().await;
            ready.set(false, "stopping");
        },
    );
    pool.close().await;
    grpc.and(ops).map_err(RunError::from)
}

fn load_policy(config: &Config) -> Result<Policy, RunError> {
    let Some(path) = &config.policy_file else { return Ok(Policy::compiled_in()?) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| RunError::PolicyFile { path: path.display().to_string(), source })?;
    Ok(Policy::parse(&text)?)
}

/// Once an hour, until there is nothing left to delete.
async fn delete_old_receipts(store: &Store, retention_days: u32, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(RETENTION_ROUND);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        let before = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(retention_days));
        loop {
            match store.delete_receipts(before).await {
                Ok(0) => break,
                Ok(_) if stop.is_cancelled() => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "receipts past their retention were not deleted");
                    break;
                }
            }
        }
    }
}
