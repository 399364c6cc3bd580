//! A wire to PostgreSQL that plays a trick once, where the timing of two statements is what is tested.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracklayer_testkit::eventually;

/// Only part of the socket's name.
const PORT: u16 = 5_432;
/// How PostgreSQL ends the answer of a read that found nothing.
const NOTHING_FOUND: &str = "select 0\0";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// The commit of the first transaction with the marked statement comes through, and nobody hears it.
    LoseTheCommit,
    /// The marked read finds nothing, and its answer stays on the way until it is let go.
    HoldNothingFound,
}

struct Play {
    trick: Trick,
    marker: &'static str,
    played: AtomicBool,
    let_go: Semaphore,
}

/// The wire. Its pools are to be used by the code under test alone.
pub struct Wire {
    folder: PathBuf,
    url: String,
    play: Arc<Play>,
}

impl Wire {
    /// Breaks right after the commit of the first transaction whose statements name `marker`, before its answer is heard.
    pub async fn that_loses_the_commit_of(url: &str, marker: &'static str) -> Self {
        Self::new(url, Trick::LoseTheCommit, marker).await
    }

    /// Holds the first answer of a read that names `marker`, which has to find nothing, until [`Self::let_go`].
    pub async fn that_holds_the_answer_of(url: &str, marker: &'static str) -> Self {
        Self::new(url, Trick::HoldNothingFound, marker).await
    }

    async fn new(url: &str, trick: Trick, marker: &'static str) -> Self {
        let server: PgConnectOptions = url.parse().unwrap();
        let server = server.get_socket().unwrap().join(format!(".s.PGSQL.{}", server.get_port()));
        let folder = std::env::temp_dir().join(format!("tracklayer-wire-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{PORT}"))).unwrap();
        let play =
            Arc::new(Play { trick, marker, played: AtomicBool::new(false), let_go: Semaphore::new(0) });
        let played = Arc::clone(&play);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&server).await.unwrap();
                let play = Arc::clone(&played);
                tokio::spawn(async move { play.carry(client, server).await });
            }
        });
        Self { folder, url: url.to_owned(), play }
    }

    /// A pool whose connections go over the wire.
    pub async fn pool(&self) -> PgPool {
        let options: PgConnectOptions = self.url.parse().unwrap();
        let options = options.socket(&self.folder).port(PORT);
        PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
    }

    /// Whether the trick was played.
    pub fn has_played(&self) -> bool {
        self.play.played.load(Ordering::SeqCst)
    }

    /// Waits until it is.
    pub async fn plays(&self) {
        eventually("the wire's trick", async || self.has_played().then_some(())).await;
    }

    /// Lets a held answer go.
    pub fn let_go(&self) {
        self.play.let_go.add_permits(1);
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

impl Play {
    async fn carry(&self, mut client: UnixStream, mut server: UnixStream) {
        let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
        let mut marked = false;
        loop {
            tokio::select! {
                read = client.read(&mut asked) => {
                    let Ok(length @ 1..) = read else { return };
                    let bytes = &asked[..length];
                    marked |= holds(bytes, self.marker);
                    if server.write_all(bytes).await.is_err() {
                        return;
                    }
                    if self.trick == Trick::LoseTheCommit && marked && holds(bytes, "commit\0") && self.is_first() {
                        // The server's word that it is done, and nobody hears it.
                        let _ = server.read(&mut answered).await;
                        return;
                    }
                }
                read = server.read(&mut answered) => {
                    let Ok(length @ 1..) = read else { return };
                    let bytes = &answered[..length];
                    let held = self.trick == Trick::HoldNothingFound && marked && holds(bytes, NOTHING_FOUND);
                    if held && self.is_first() {
                        self.let_go.acquire().await.unwrap().forget();
                    }
                    if client.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn is_first(&self) -> bool {
        !self.played.swap(true, Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
