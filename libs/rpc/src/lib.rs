//! Server and client stacks of all services: one way from error to status, one order of layers, one shutdown.
//!
//! Modules in reading order: [`error`] (codes, what caller and operator do about each, error → gRPC status and HTTP),
//! `server` (gRPC with health and reflection), `connection` (a socket that can be cut), `layer` (what each call passes
//! through, outermost first), `http` (the HTTP edge), `ops` (metrics and probes), `auth` (bearer tokens), `client` (channels to
//! other services), `balance` (all replicas of one), `replica` (one of them), `probe` (whether it answers), [`follow`] (the configuration that control
//! publishes). It knows no rule of any service.

mod auth;
mod balance;
mod client;
mod connection;
pub mod error;
pub mod follow;
mod http;
mod layer;
mod ops;
mod probe;
mod replica;
mod server;

use tokio::net::TcpListener;

pub use auth::{BearerToken, ServiceToken, bearer, require_service_token};
pub use balance::Balanced;
pub use client::{Channel, ConnectError, connect_each, connect_lazy};
pub use error::{Code, RpcError, http_response, http_status, status};
pub use http::serve_http;
pub use layer::deadline::{carried, remaining};
pub use ops::{Readiness, ops_router};
pub use probe::{VERSION, probe};
pub use server::{GrpcServer, ServeError, StackLimits};

/// Largest message that a server takes and a client reads: `Server::new(..).max_decoding_message_size(MAX_MESSAGE_BYTES)`.
/// A batch is at most 512,000 bytes; answers about 2,500 events with all their links are larger.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// The sockets of a service, bound by whoever starts it: port 0 in tests.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// The HTTP edge of ingest, the console of control.
    pub http: Option<TcpListener>,
    /// /metrics, /healthz, /readyz.
    pub ops: TcpListener,
}
