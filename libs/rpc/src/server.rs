//! The gRPC server of a service: its own RPCs, health, reflection, and the layers that each call passes through.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt as _;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    server::NamedService,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{Service, ServiceBuilder};

use crate::connection::{Connection, OPENING};
use crate::layer::{deadline, observe::Observe, panics::CatchPanic, shed, trace::Trace};
use crate::probe::with_version;

/// Bytes under way on one stream; HTTP/2's own 64 KiB slows batches down by a fifth.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes of a call's headers.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How often an idle connection is asked whether anybody is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long the answer to that may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after an accept failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After this a connection is ended gently, so that callers who do not balance by themselves spread over replicas that came later.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(900);

/// What a server takes at once.
#[derive(Debug, Clone, Copy)]
pub struct StackLimits {
    /// Calls in flight; more are refused with RESOURCE_EXHAUSTED.
    pub in_flight: usize,
    /// Longest time until an answer begins.
    pub deadline: Duration,
    /// How long calls in flight may go on after the shutdown began; then they are cut.
    pub drain: Duration,
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// Calls of one connection at once.
    pub streams: u32,
    /// Bytes under way on one connection: what is sent to us and read by nobody yet stands in memory up to this.
    pub window_bytes: u32,
}

impl Default for StackLimits {
    fn default() -> Self {
        Self {
            in_flight: 1024,
            deadline: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            connections: 8192,
            streams: 1024,
            window_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Why a server ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// gRPC.
    #[error("the gRPC server of {service} failed")]
    Grpc {
        /// Whose.
        service: &'static str,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The descriptors of the protos are damaged.
    #[error("reflection could not be set up")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The socket cannot be used.
    #[error("the socket cannot be used")]
    Socket(#[source] std::io::Error),
}

/// A gRPC server in the making.
pub struct GrpcServer {
    name: &'static str,
    routes: Routes,
    served: Vec<&'static str>,
    limits: StackLimits,
}

impl GrpcServer {
    /// An empty one. The name is only for messages.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, routes: Routes::default(), served: Vec::new(), limits: StackLimits::default() }
    }

    /// Other limits.
    #[must_use]
    pub fn limits(self, limits: StackLimits) -> Self {
        Self { limits, ..self }
    }

    /// Adds a generated service. Set `max_decoding_message_size(MAX_MESSAGE_BYTES)` on it.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "nobody adds servers up")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.served.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Serves until the shutdown, and then until the calls in flight have ended or the drain time is over.
    ///
    /// # Errors
    /// [`ServeError`] if serving fails; an orderly shutdown is none.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
        tracklayer_telemetry::install_recorder();
        let health = HealthReporter::new();
        for service in &self.served {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tracklayer_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(ServeError::Reflection)?;
        let health_service = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(health.clone()),
        );
        let routes = self.routes.add_service(reflection).add_service(health_service);

        let stack = ServiceBuilder::new() // outermost first
            .layer(with_version()) // in refusals, too
            .layer(Trace) // everything below is inside the caller's trace
            .layer(Observe) // above the shedding, so that shed calls are counted, too
            .layer(shed::above(self.limits.in_flight)) // before any parsing: overload costs nothing
            .layer(deadline::shorter_of(self.limits.deadline)) // the caller's or ours
            .layer(CatchPanic) // those above see an answer, not an unwind
            .into_inner();
        let cut = CancellationToken::new();
        let cuttable = cut.clone();
        let places = Arc::new(Semaphore::new(self.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).then(move |accepted| {
            let (cuttable, places) = (cuttable.clone(), Arc::clone(&places));
            async move {
                match accepted {
                    Ok(stream) => {
                        if places.available_permits() == 0 {
                            metrics::counter!("tracklayer_rpc_connections_held_back_total").increment(1);
                            tracing::warn!("all connections are in use: further ones wait until one ends");
                        }
                        // Nobody else is accepted meanwhile.
                        let place = places.acquire_owned().await.ok();
                        Ok(Connection::new(stream, cuttable, OPENING).in_place(place))
                    }
                    Err(error) => {
                        // As when file handles are used up: the next one would fail at once, too.
                        tracing::warn!(error = %error, "could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        Err(error)
                    }
                }
            }
        });
        let stopping = shutdown.clone();
        let served = self.served.clone();
        let goodbye = async move {
            stopping.cancelled().await;
            for service in served.into_iter().chain([""]) {
                health.set_service_status(service, ServingStatus::NotServing).await;
            }
        };
        let server = Server::builder()
            // One call that is not read leaves room on its connection for the others.
            .initial_stream_window_size(STREAM_WINDOW_BYTES.min(self.limits.window_bytes / 4))
            .initial_connection_window_size(self.limits.window_bytes)
            .max_concurrent_streams(self.limits.streams)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_connection_age(MAX_CONNECTION_AGE)
            .layer(stack)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, goodbye);
        let overtime = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.limits.drain).await;
        };
        let failed = |source| ServeError::Grpc { service: self.name, source };
        let mut server = std::pin::pin!(server);
        tokio::select! {
            outcome = &mut server => return outcome.map_err(failed),
            () = overtime => {}
        }
        tracing::warn!(service = self.name, "calls were still in flight after the drain time and were cut");
        cut.cancel();
        server.await.map_err(failed)
    }
}
