//! The HTTP server of the edge, the console and the operators' port: HTTP/1.1 and HTTP/2 without TLS.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    ServeError,
    connection::{Connection, OPENING},
};

/// How long a client may take to send its headers: a slow one must not hold a place.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections at once; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 8192;
/// How long requests in flight may go on after the shutdown began; then they are cut.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause after an accept failed, as when file handles are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What one connection has in memory of what nobody has read yet, at most; the library would take seven times as much.
const UNREAD_BYTES: usize = 64 * 1024;
/// How often an idle HTTP/2 connection is asked whether anybody is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Serves until the shutdown, and then until the requests in flight have ended or ten seconds are over. Handlers find the
/// client's address in `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// [`ServeError::Socket`] if the socket cannot be used.
pub async fn serve_http(
    listener: TcpListener,
    app: Router,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    listener.local_addr().map_err(ServeError::Socket)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let app = app.clone().layer(axum::Extension(ConnectInfo(peer)));
                let (shutdown, cut) = (shutdown.clone(), cut.clone());
                connections.spawn(async move {
                    serve_connection(stream, app, shutdown, cut).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("requests were still in flight after the drain time and were cut");
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

async fn serve_connection(
    stream: TcpStream,
    app: Router,
    shutdown: CancellationToken,
    cut: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(UNREAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .initial_stream_window_size(UNREAD_BYTES as u32)
        .initial_connection_window_size(4 * UNREAD_BYTES as u32);
    let service = TowerToHyperService::new(
        app.map_request(|request: http::Request<hyper::body::Incoming>| request.map(axum::body::Body::new)),
    );
    let stream = Connection::new(stream, cut.clone(), OPENING);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            outcome = &mut connection => {
                if let Err(error) = outcome {
                    tracing::debug!(error = %error, "connection ended early");
                }
                return;
            }
            () = shutdown.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = cut.cancelled() => return,
        }
    }
}
