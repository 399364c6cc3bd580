//! A connection that the server can cut, and that must say something soon.
//!
//! The server's library runs each connection in a task of its own that ends by itself only. Where a drain time is over, the
//! socket is made to fail instead, and the connection with all its calls ends as if the network had. The library also waits
//! for ever for the first bytes, from which it reads the protocol (its time for headers begins after them): whoever connects
//! and stays silent would hold a place until he goes. Here he does not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a client may take to say which protocol it speaks.
pub(crate) const OPENING: Duration = Duration::from_secs(15);
/// What every HTTP/2 connection begins with; whatever differs is HTTP/1. Source: RFC 9113, 3.4; 2025-11.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
pub(crate) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    opening: Option<Opening>,
    /// Given back when the connection ends.
    _place: Option<OwnedSemaphorePermit>,
}

/// Until the protocol is known.
struct Opening {
    /// Bytes of the preface that were read.
    read: usize,
    until: Pin<Box<Sleep>>,
}

impl Connection {
    /// Must be made inside the runtime. `opening`: [`OPENING`], less in tests.
    pub(crate) fn new(stream: TcpStream, cut: CancellationToken, opening: Duration) -> Self {
        let until = Box::pin(tokio::time::sleep(opening));
        let opening = Some(Opening { read: 0, until });
        Self { stream, cut: Box::pin(cut.cancelled_owned()), opening, _place: None }
    }

    /// Holds a place among the connections until it ends.
    pub(crate) fn in_place(self, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { _place: place, ..self }
    }
}

impl Opening {
    /// Whether the protocol is known after these bytes.
    fn is_over_after(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if PREFACE.get(self.read) != Some(byte) {
                return true;
            }
            self.read += 1;
        }
        self.read == PREFACE.len()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;
    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection always waits for something to read: here it is woken and told.
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Some(opening) = &mut self.opening
            && opening.until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if self.opening.as_mut().is_some_and(|opening| opening.is_over_after(new)) {
            self.opening = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair(listener: &TcpListener, opening: Duration) -> (TcpStream, Connection) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, Connection::new(server, CancellationToken::new(), opening))
    }

    #[tokio::test]
    async fn who_does_not_say_which_protocol_he_speaks_loses_the_connection_and_who_does_keeps_it() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let opening = Duration::from_millis(50);
        let mut buffer = [0; 64];
        // Those who speak connect first, so that their time is over when that of the silent is.
        let (mut old, mut of_old) = pair(&listener, opening).await;
        old.write_all(b"GET").await.unwrap();
        assert_eq!(of_old.read(&mut buffer).await.unwrap(), 3);
        let (mut new, mut of_new) = pair(&listener, opening).await;
        new.write_all(PREFACE).await.unwrap();
        assert_eq!(of_new.read(&mut buffer).await.unwrap(), PREFACE.len());
        let (_silent, mut of_silent) = pair(&listener, opening).await;
        let (mut half, mut of_half) = pair(&listener, opening).await;
        half.write_all(&PREFACE[..5]).await.unwrap();
        assert_eq!(of_half.read(&mut buffer).await.unwrap(), 5);

        for connection in [&mut of_silent, &mut of_half] {
            let read = tokio::time::timeout(Duration::from_secs(10), connection.read(&mut buffer)).await;
            assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        for (client, connection) in [(&mut old, &mut of_old), (&mut new, &mut of_new)] {
            client.write_all(b"more").await.unwrap();
            assert_eq!(connection.read(&mut buffer).await.unwrap(), 4);
        }
    }

    #[tokio::test]
    async fn a_cut_connection_ends() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let cut = CancellationToken::new();
        let mut connection = Connection::new(server, cut.clone(), OPENING);
        cut.cancel();
        let error = connection.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
