//! The service: its rooms put together.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::Secret;
use tracklayer_proto::identity::v1::identity_service_server::IdentityServiceServer;
use tracklayer_rpc::{ConnectError, GrpcServer, Listeners, Readiness, ServeError};

use crate::config::Config;
use crate::consent::Telling;
use crate::grpc::IdentityGrpc;
use crate::metrics;
use crate::policy::{Policy, PolicyError};
use crate::resolve::Resolver;
use crate::store::Store;

/// Largest request: 2,500 events with all identifiers and click ids as long as they may be.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// How often the tables are looked for until they are there.
const MIGRATION_ROUND: Duration = Duration::from_millis(500);

/// Why identity stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error("the settings of identity are not usable: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The policy file cannot be used.
    #[error("identity cannot use its policy")]
    Policy(#[from] PolicyError),
    /// PostgreSQL.
    #[error("identity cannot use its database")]
    Database(#[from] tracklayer_postgres::PostgresError),
    /// The address of consent.
    #[error("identity cannot call consent")]
    Consent(#[from] ConnectError),
    /// A listener.
    #[error("identity stopped serving")]
    Serve(#[from] ServeError),
}

/// Serves gRPC and the operators' endpoints until `shutdown`. Not ready until the tables are migrated.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(RunError::Config(problems));
    }
    let policy = config.policy_file.as_deref().map(Policy::read).transpose()?.unwrap_or_default();
    // Descriptions given before the recorder is there are lost.
    tracklayer_telemetry::install_recorder();
    metrics::describe();
    let service_token = config.master_key.service_token();
    let consent = tracklayer_rpc::connect_lazy(&config.consent_address, Secret::new(service_token.clone()))?;
    let limits = tracklayer_postgres::Limits::new(config.database_connections).by_index_only();
    let pool = tracklayer_postgres::connect_with(&config.database_url, limits).await?;
    let store = Store::new(pool.clone());
    let telling = Telling::new(store.clone(), consent);
    let resolver = Resolver::new(store, config.master_key.clone(), policy).telling(telling.clone());
    let service =
        IdentityServiceServer::new(IdentityGrpc::new(resolver)).max_decoding_message_size(MAX_REQUEST_BYTES);
    let token = tracklayer_rpc::require_service_token(&service_token);
    let grpc =
        GrpcServer::new("identity").add(tonic::service::interceptor::InterceptedService::new(service, token));

    // Whoever ends first, by an error, ends the others: no half a service.
    let stop = shutdown.child_token();
    let ready = Readiness::new();
    ready.set(false, "the tables are not migrated");
    let ops = tracklayer_rpc::ops_router(ready.clone());
    let ended = |result: Result<(), ServeError>| {
        stop.cancel();
        result
    };
    let (grpc, ops, ()) = tokio::join!(
        async { ended(grpc.serve(listeners.grpc, stop.clone()).await) },
        async { ended(tracklayer_rpc::serve_http(listeners.ops, ops, stop.clone()).await) },
        async {
            if migrated(&pool, &stop).await {
                ready.set(true, "ok");
                telling.run(stop.clone()).await;
            }
            stop.cancelled().await;
            ready.set(false, "stopping");
        },
    );
    pool.close().await;
    grpc.and(ops).map_err(RunError::from)
}

/// Waits for the tables; `false` if told to stop before they are there.
async fn migrated(pool: &PgPool, stop: &CancellationToken) -> bool {
    let mut rounds = tokio::time::interval(MIGRATION_ROUND);
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            _ = rounds.tick() => {}
        }
        match tracklayer_postgres::is_migrated(pool, "identity", &crate::MIGRATOR).await {
            Ok(true) => return true,
            Ok(false) => tracing::debug!("the tables of identity are not migrated yet"),
            Err(error) => tracing::warn!(error = %error, "could not look for the tables of identity"),
        }
    }
}
