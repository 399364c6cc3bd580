//! The service: its rooms put together.

use tokio_util::sync::CancellationToken;
use tracklayer_proto::identity::v1::identity_service_server::IdentityServiceServer;
use tracklayer_rpc::{GrpcServer, Listeners, Readiness, ServeError};

use crate::config::Config;
use crate::grpc::IdentityGrpc;
use crate::metrics;
use crate::policy::{Policy, PolicyError};
use crate::resolve::Resolver;
use crate::store::Store;

/// Largest request: 2,500 events with all identifiers and click ids as long as they may be.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

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
    /// A listener.
    #[error("identity stopped serving")]
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
    let policy = config.policy_file.as_deref().map(Policy::read).transpose()?.unwrap_or_default();
    metrics::describe();
    let pool = tracklayer_postgres::connect(&config.database_url, config.database_connections).await?;
    let resolver = Resolver::new(Store::new(pool.clone()), config.master_key.clone(), policy);
    let service =
        IdentityServiceServer::new(IdentityGrpc::new(resolver)).max_decoding_message_size(MAX_REQUEST_BYTES);
    let token = tracklayer_rpc::require_service_token(&config.master_key.service_token());
    let grpc =
        GrpcServer::new("identity").add(tonic::service::interceptor::InterceptedService::new(service, token));

    // Whoever ends first, by an error, ends the others: no half a service.
    let stop = shutdown.child_token();
    let ready = Readiness::new();
    ready.set(true, "ok");
    let ops = tracklayer_rpc::ops_router(ready.clone());
    let ended = |result: Result<(), ServeError>| {
        stop.cancel();
        result
    };
    let (grpc, ops, ()) = tokio::join!(
        async { ended(grpc.serve(listeners.grpc, stop.clone()).await) },
        async { ended(tracklayer_rpc::serve_http(listeners.ops, ops, stop.clone()).await) },
        async {
            stop.cancelled().await;
            ready.set(false, "stopping");
        },
    );
    pool.close().await;
    grpc.and(ops).map_err(RunError::from)
}
