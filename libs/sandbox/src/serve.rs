//! Connections. Served by hyper directly, because a platform that hangs up must be able to do so: a response
//! that carries [`HangUp`] closes or resets its connection without a byte, and [`CutShort`] breaks an answer off in the
//! middle.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How long connections may take to end after the stop. An answer that is slow by a fault is not waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Marks a response that is not to be sent: the connection is closed instead, or reset.
#[derive(Clone, Copy)]
pub(crate) struct HangUp {
    reset: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("hung up, as told")]
struct HungUp;

/// A response for which the connection is closed.
pub(crate) fn hang_up() -> Response {
    instead_of_an_answer(HangUp { reset: false })
}

/// A response for which the connection is reset.
pub(crate) fn reset() -> Response {
    instead_of_an_answer(HangUp { reset: true })
}

fn instead_of_an_answer(hang_up: HangUp) -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(hang_up);
    response
}

/// A connection that can be told to end by a reset.
struct Line {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            // An orderly end would come before the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Serves until the stop, then ends the connections.
pub(crate) async fn serve(listener: TcpListener, app: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, app.clone(), shutdown.clone()));
            }
            // Out of files, most likely: the clients' connections wait in the kernel until some are closed.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn serve_connection(stream: TcpStream, app: Router, shutdown: CancellationToken) {
    // Without it small answers wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let line = Line { stream, reset: Arc::clone(&reset) };
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (app, reset) = (app.clone(), Arc::clone(&reset));
        async move {
            let Ok(response) = app.oneshot(request.map(Body::new)).await;
            match response.extensions().get::<HangUp>() {
                Some(hang_up) => {
                    reset.store(hang_up.reset, Ordering::Relaxed);
                    Err(HungUp)
                }
                None => Ok(response),
            }
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection(TokioIo::new(line), service));
    tokio::select! {
        // A client that went away, or a hang-up as told: nothing to do about either.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(GRACE, connection).await;
}

/// A body that says how long it is and breaks off half-way.
pub(crate) struct CutShort {
    whole: u64,
    first: Option<Bytes>,
    sent: bool,
}

impl CutShort {
    /// Half of `body`.
    pub(crate) fn half(body: &Bytes) -> Self {
        Self { whole: body.len() as u64, first: Some(body.slice(..body.len() / 2)), sent: false }
    }
}

impl hyper::body::Body for CutShort {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        // One round in between, so that the first half leaves before the connection breaks.
        if !self.sent {
            self.sent = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::Error::other("cut short, as told"))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.whole)
    }
}
