//! Channels to other services.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Uri, uri::Scheme};
use tonic::service::interceptor::InterceptedService;
use tracklayer_ids::Secret;

use crate::{auth::BearerToken, balance::Balanced};

/// A channel that carries the token and spreads calls over all replicas. Cheap to clone; clones share the connections.
pub type Channel = InterceptedService<Balanced, BearerToken>;

/// Longest call until its answer begins, unless the caller says less. Streams go on after that.
const DEADLINE: Duration = Duration::from_secs(10);
/// The port of an address that names none.
const HTTP_PORT: u16 = 80;

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
        source: http::uri::InvalidUri,
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

/// A channel to the service at `http://host:port`. Connects at the first call, to every address that the host stands for, looks
/// the host up again every two seconds, and connects again whenever a connection is gone. A call while nobody is there
/// fails with UNAVAILABLE.
///
/// # Errors
/// [`ConnectError`]: only the spelling is looked at.
pub fn connect_lazy(address: &str, token: Secret<String>) -> Result<Channel, ConnectError> {
    let uri = parse(address)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(HTTP_PORT);
    connect_each(address, token, move || {
        let host = host.clone();
        async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) }.boxed()
    })
}

/// As [`connect_lazy`], for replicas that are found in another way than by the host's name, which is then only what servers see.
///
/// # Errors
/// As [`connect_lazy`].
pub fn connect_each(
    address: &str,
    token: Secret<String>,
    look_up: impl Fn() -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
) -> Result<Channel, ConnectError> {
    let uri = parse(address)?;
    let authority =
        uri.authority().cloned().ok_or_else(|| ConnectError::Scheme { address: address.to_owned() })?;
    let token = BearerToken::new(&token).ok_or(ConnectError::Token)?;
    Ok(InterceptedService::new(Balanced::new(authority, Arc::new(look_up), DEADLINE), token))
}

fn parse(address: &str) -> Result<Uri, ConnectError> {
    let named = || address.to_owned();
    if !address.starts_with("http://") {
        return Err(ConnectError::Scheme { address: named() });
    }
    let uri: Uri = address.parse().map_err(|source| ConnectError::Address { address: named(), source })?;
    let usable = uri.scheme() == Some(&Scheme::HTTP) && uri.host().is_some_and(|host| !host.is_empty());
    if usable { Ok(uri) } else { Err(ConnectError::Scheme { address: named() }) }
}
