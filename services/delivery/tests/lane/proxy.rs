//! A wire to PostgreSQL that breaks once, right after a commit came through and before its answer did.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Only part of the socket's name.
const PORT: u16 = 5_432;

/// Breaks the first transaction whose statements name `marker`.
pub struct BreakingWire {
    folder: PathBuf,
    broken: Arc<AtomicBool>,
}

impl BreakingWire {
    /// A wire to the server of that address, which listens on a socket.
    pub async fn to(url: &str, marker: &'static str) -> Self {
        let server: PgConnectOptions = url.parse().unwrap();
        let server = server.get_socket().unwrap().join(format!(".s.PGSQL.{}", server.get_port()));
        let folder = std::env::temp_dir().join(format!("tracklayer-wire-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{PORT}"))).unwrap();
        let broken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&broken);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&server).await.unwrap();
                tokio::spawn(carry(client, server, marker, Arc::clone(&flag)));
            }
        });
        Self { folder, broken }
    }

    /// A pool whose connections go over the wire.
    pub async fn pool(&self, url: &str) -> PgPool {
        let options: PgConnectOptions = url.parse().unwrap();
        let options = options.socket(&self.folder).port(PORT);
        PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
    }

    /// Whether it has broken.
    pub fn has_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

async fn carry(mut client: UnixStream, mut server: UnixStream, marker: &str, broken: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut marked = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &asked[..length];
                marked |= holds(bytes, marker);
                if server.write_all(bytes).await.is_err() {
                    return;
                }
                if marked && holds(bytes, "commit\0") && !broken.swap(true, Ordering::SeqCst) {
                    // The server's word that it is done, and nobody hears it.
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Drop for BreakingWire {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
