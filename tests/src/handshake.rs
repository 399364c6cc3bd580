//! A server whose TLS handshakes fail: it answers each `ClientHello` with the alert of a server that cannot go on, and counts them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The first byte of a handshake. Source: RFC 8446, 5.1; 2026-11.
const HANDSHAKE: u8 = 22;
/// A fatal alert, `handshake_failure`. Source: RFC 8446, 5.1 and 6; 2026-11.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// The server, on a port of 127.0.0.1, until it is dropped.
pub struct NoHandshake {
    address: SocketAddr,
    begun: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl NoHandshake {
    /// Listens on a free port.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
        let address = listener.local_addr()?;
        let begun = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&begun);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(refuse(stream, Arc::clone(&counter)));
            }
        });
        Ok(Self { address, begun, accepting: accepting.abort_handle() })
    }

    /// `https://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Handshakes that were begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

impl Drop for NoHandshake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn refuse(mut stream: TcpStream, begun: Arc<AtomicU64>) {
    // Read before the answer, which a reset would overtake.
    let mut hello = [0; 8_192];
    if stream.read(&mut hello).await.is_ok_and(|read| read > 0) && hello[0] == HANDSHAKE {
        begun.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(&ALERT).await;
        let _ = stream.shutdown().await;
    }
}
