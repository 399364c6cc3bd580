//! A wire to PostgreSQL that plays a trick once, where the timing of two statements is what is tested, or counts what goes over it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
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
    /// It only counts.
    None,
    /// The commit of the first transaction with the marked statement comes through, and nobody hears it. By itself that statement is one.
    LoseTheCommit,
    /// The marked read finds nothing, and its answer stays on the way until it is let go.
    HoldNothingFound,
}

struct Play {
    trick: Trick,
    marker: &'static str,
    played: AtomicBool,
    let_go: Semaphore,
    statements: AtomicUsize,
}

/// The wire. Its pools are to be used by the code under test alone.
pub struct Wire {
    folder: PathBuf,
    url: String,
    play: Arc<Play>,
}

impl Wire {
    /// Plays no trick.
    pub async fn that_counts(url: &str) -> Self {
        Self::new(url, Trick::None, "").await
    }

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
        let play = Arc::new(Play {
            trick,
            marker,
            played: AtomicBool::new(false),
            let_go: Semaphore::new(0),
            statements: AtomicUsize::new(0),
        });
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
        // Without the question whether it can be encrypted, which would be a first message of its own.
        let options = options.socket(&self.folder).port(PORT).ssl_mode(PgSslMode::Disable);
        PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
    }

    /// Statements since it was last asked, `begin` and `commit` among them: each is a round trip. Preparing one is none of them, nor is
    /// the pool's look at a connection before it is lent.
    pub fn take_statements(&self) -> usize {
        self.play.statements.swap(0, Ordering::SeqCst)
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

/// What a client says, in messages: a type, a length that counts itself, and the rest. The first one has no type.
#[derive(Default)]
struct Messages {
    read: Vec<u8>,
    has_begun: bool,
}

impl Messages {
    /// The types and texts of those that are whole by now.
    fn after(&mut self, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        self.read.extend_from_slice(bytes);
        let mut whole = Vec::new();
        loop {
            let typed = usize::from(self.has_begun);
            let Some(length) = self.read.get(typed..typed + 4) else { return whole };
            let end = typed + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.read.len() < end {
                return whole;
            }
            let message: Vec<u8> = self.read.drain(..end).collect();
            if std::mem::replace(&mut self.has_begun, true) {
                whole.push((message[0], message[5..].to_vec()));
            }
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

impl Play {
    async fn carry(&self, mut client: UnixStream, mut server: UnixStream) {
        let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut marked, mut in_transaction) = (false, false);
        let mut messages = Messages::default();
        loop {
            tokio::select! {
                read = client.read(&mut asked) => {
                    let Ok(length @ 1..) = read else { return };
                    let bytes = &asked[..length];
                    let mut commits = false;
                    for (kind, text) in messages.after(bytes) {
                        marked |= self.trick != Trick::None && holds(&text, self.marker);
                        if kind == b'E' || kind == b'Q' {
                            self.statements.fetch_add(1, Ordering::SeqCst);
                            in_transaction |= kind == b'Q' && holds(&text, "begin\0");
                            let ends = kind == b'Q' && holds(&text, "commit\0");
                            commits |= marked && (ends || !in_transaction);
                            in_transaction &= !ends && !holds(&text, "rollback\0");
                        }
                    }
                    if server.write_all(bytes).await.is_err() {
                        return;
                    }
                    if self.trick == Trick::LoseTheCommit && commits && self.is_first() {
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
