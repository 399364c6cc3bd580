//! One replica of a service: its address, its connection, and how many calls are under way on it.
//!
//! The connection is HTTP/2 over plain TCP, held here and not by a ready-made channel, for one reason: a request that a
//! connection took but never wrote is given back, so that it can go to another replica. No call is lost to a replica that
//! goes away in an orderly way.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::Instant};
use tonic::body::Body;

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

/// A connection on which requests are sent. Clones share it; it ends when the last clone and the last call are gone.
pub(crate) type Sender = SendRequest<Body>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Replica {
    address: SocketAddr,
    in_flight: AtomicUsize,
    sender: Mutex<Option<Sender>>,
    /// Held by whoever connects; when the newest failed attempt began, and why it failed.
    connecting: tokio::sync::Mutex<Option<(Instant, Arc<str>)>>,
}

/// A call that is under way; counted until it is dropped.
pub(crate) struct Place(Arc<Replica>);

impl Replica {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: AtomicUsize::new(0),
            sender: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(None),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(self))
    }

    /// Its connection, if there is one that takes requests.
    pub(crate) fn connected(&self) -> Option<Sender> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.as_ref().is_some_and(SendRequest::is_closed) {
            *sender = None;
        }
        sender.clone()
    }

    /// Uses this connection for no further call; those under way go on.
    pub(crate) fn forget_connection(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Its connection, made if there is none. Of callers that come together one connects; an attempt that began after
    /// `arrived` stands for all who waited for it, so that nobody waits for several.
    pub(crate) async fn connect(&self, arrived: Instant) -> Result<Sender, Arc<str>> {
        let mut failed = self.connecting.lock().await;
        if let Some(sender) = self.connected() {
            return Ok(sender);
        }
        if let Some((began, why)) = &*failed
            && *began >= arrived
        {
            return Err(Arc::clone(why));
        }
        let began = Instant::now();
        let why: Arc<str> = match tokio::time::timeout(CONNECT_TIMEOUT, dial(self.address)).await {
            Ok(Ok(sender)) => {
                *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
                *failed = None;
                return Ok(sender);
            }
            Ok(Err(why)) => format!("{}: {why}", self.address).into(),
            Err(_) => format!("{}: no answer within {CONNECT_TIMEOUT:?}", self.address).into(),
        };
        *failed = Some((began, Arc::clone(&why)));
        Err(why)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn dial(address: SocketAddr) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with the last sender and the last call.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "connection to another service broke");
        }
    });
    Ok(sender)
}
