//! Channels to other services.

use std::time::Duration;

use tonic::{service::interceptor::InterceptedService, transport::Endpoint};
use tracklayer_ids::Secret;

use crate::auth::BearerToken;

/// A channel that carries the token. Cheap to clone; clones share one connection.
pub type Channel = InterceptedService<tonic::transport::Channel, BearerToken>;

/// Longest call until its answer begins, unless the caller says less. Streams go on after that.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often an idle connection is asked whether anybody is there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long the answer to that may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes under way on one stream; HTTP/2's own 64 KiB slows batches down by a fifth.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes under way on one connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// An address or a token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not an address.
    #[error("`{address}` is not an address; expected `http://host:port`")]
    Address {
        /// As given.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// Encrypted connections between services are a matter of the mesh.
    #[error(
        "`{address}` is not an address; expected `http://host:port` (services speak plain HTTP/2 among themselves)"
    )]
    Scheme {
        /// As given.
        address: String,
    },
    /// Not a token.
    #[error("the service token has characters that cannot stand in a header")]
    Token,
}

/// A channel to the service at `http://host:port`. Connects at the first call and again whenever the connection is gone; a
/// call while nobody is there fails with UNAVAILABLE.
///
/// # Errors
/// [`ConnectError`]: only the spelling is looked at.
pub fn connect_lazy(address: &str, token: Secret<String>) -> Result<Channel, ConnectError> {
    let named = || address.to_owned();
    if !address.starts_with("http://") {
        return Err(ConnectError::Scheme { address: named() });
    }
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| ConnectError::Address { address: named(), source })?
        .timeout(DEADLINE)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let token = BearerToken::new(&token).ok_or(ConnectError::Token)?;
    Ok(InterceptedService::new(endpoint.connect_lazy(), token))
}
