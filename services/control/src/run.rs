//! The service: its rooms put together.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::Secret;
use tracklayer_proto::control::v1::control_service_server::ControlServiceServer;
use tracklayer_rpc::{ConnectError, GrpcServer, Listeners, Readiness, ServeError};

use crate::admin::Admin;
use crate::config::Config;
use crate::configuration::follow;
use crate::console::delivery::Delivery;
use crate::console::session::CookieKey;
use crate::console::{Console, router};
use crate::grpc::ControlGrpc;
use crate::metrics;
use crate::store::Store;

/// Why control stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error("the settings of control are not usable: {}", .0.join("; "))]
    Config(Vec<String>),
    /// PostgreSQL.
    #[error("control cannot use its database")]
    Database(#[from] tracklayer_postgres::PostgresError),
    /// The address of delivery.
    #[error("control cannot use delivery's address")]
    Delivery(#[from] ConnectError),
    /// A listener.
    #[error("control stopped serving")]
    Serve(#[from] ServeError),
}

/// Serves gRPC, the console and the operators' endpoints until `shutdown`. The tables must be migrated.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), RunError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(RunError::Config(problems));
    }
    let ready = Readiness::new();
    let ops_app = tracklayer_rpc::ops_router(ready.clone());
    // After the router, which installs the recorder that keeps the descriptions.
    metrics::describe();
    let pool = tracklayer_postgres::connect(&config.database_url, config.database_connections).await?;
    let store = Store::new(pool.clone());
    let admin = Admin::new(store.clone(), config.master_key.clone()).beside(config.journal);
    let token = Secret::new(config.master_key.service_token());
    let console = Console {
        admin: admin.clone(),
        delivery: Delivery::new(tracklayer_rpc::connect_lazy(&config.delivery_address, token)?),
        cookies: CookieKey::of(&config.master_key),
        https_only: config.console_cookies_https_only,
    };

    // Whoever ends first, by an error, ends the others: no half a service.
    let stop = shutdown.child_token();
    let (feed, newest) = watch::channel(None);
    let service = ControlGrpc::new(admin, newest.clone(), &config.master_key, stop.clone());
    let grpc = GrpcServer::new("control").add(ControlServiceServer::new(service));

    let http = async {
        match listeners.http {
            Some(listener) => tracklayer_rpc::serve_http(listener, router(console), stop.clone()).await,
            None => {
                stop.cancelled().await;
                Ok(())
            }
        }
    };
    let ended = |result: Result<(), ServeError>| {
        stop.cancel();
        result
    };
    let (grpc, http, ops, (), ()) = tokio::join!(
        async { ended(grpc.serve(listeners.grpc, stop.clone()).await) },
        async { ended(http.await) },
        async { ended(tracklayer_rpc::serve_http(listeners.ops, ops_app, stop.clone(),).await,) },
        follow(store, feed, stop.clone()),
        tell_readiness(newest, &ready, stop.clone()),
    );
    pool.close().await;
    grpc.and(http).and(ops).map_err(RunError::from)
}

/// Ready once there is a configuration to hand out, and no longer when it stops.
async fn tell_readiness(
    mut newest: watch::Receiver<Option<std::sync::Arc<crate::configuration::Configuration>>>,
    ready: &Readiness,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        seen = newest.wait_for(Option::is_some) => if seen.is_ok() { ready.set(true, "ok"); }
    }
    stop.cancelled().await;
    ready.set(false, "stopping");
}
