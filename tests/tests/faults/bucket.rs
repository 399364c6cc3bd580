//! An S3-compatible server's side of a PUT, with the faults that such a server and the way to it have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// What becomes of a PUT.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// Kept, and said so.
    Keep,
    /// Refused with a status and a code of S3.
    Refuse(u16, &'static str),
    /// 429, with so many seconds to wait.
    Wait(u64),
    /// Never answered; kept or not.
    Stall { kept: bool },
    /// The connection is reset instead of an answer; kept or not.
    Reset { kept: bool },
    /// Kept, and the answer breaks off in its head.
    BreakOff,
}

impl Reply {
    const fn keeps(self) -> bool {
        match self {
            Self::Keep | Self::BreakOff => true,
            Self::Refuse(..) | Self::Wait(_) => false,
            Self::Stall { kept } | Self::Reset { kept } => kept,
        }
    }

    /// The status of the whole answer, if there is one.
    const fn status(self) -> Option<u16> {
        match self {
            Self::Keep => Some(200),
            Self::Refuse(status, _) => Some(status),
            Self::Wait(_) => Some(429),
            Self::Stall { .. } | Self::Reset { .. } | Self::BreakOff => None,
        }
    }
}

/// A PUT as the server got it.
#[derive(Debug, Clone, Copy)]
pub struct Put {
    /// When.
    pub at: Instant,
    /// Events of the file.
    pub events: usize,
    /// The status of the answer; none: it got no whole one.
    pub status: Option<u16>,
}

#[derive(Debug, Default)]
struct State {
    /// message_ids of each file that a reader finds.
    files: BTreeMap<String, Vec<String>>,
    puts: Vec<Put>,
    script: VecDeque<Reply>,
    always: Option<Reply>,
}

impl State {
    fn take(&mut self, name: String, ids: Vec<String>) -> Reply {
        let reply = self.script.pop_front().or(self.always).unwrap_or(Reply::Keep);
        self.puts.push(Put { at: Instant::now(), events: ids.len(), status: reply.status() });
        if reply.keeps() {
            self.files.insert(name, ids);
        }
        reply
    }
}

/// The server, on a port of 127.0.0.1, until it is dropped.
pub struct Bucket {
    endpoint: String,
    state: Arc<Mutex<State>>,
    accepting: AbortHandle,
}

impl Bucket {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { answer(connection, &state).await });
            }
        });
        Self { endpoint, state, accepting: accepting.abort_handle() }
    }

    /// A connection that writes here, so many rows a file at most.
    pub fn document(&self, rows_per_file: u64) -> Value {
        let settings = json!({
            "url": "s3://northline-lake/events", "endpoint": self.endpoint, "access_key_id": "AKIA",
            "secret_access_key": "key", "seconds_per_file": 2, "rows_per_file": rows_per_file,
        });
        json!({ "kind": "warehouse", "mode": "live", "settings": settings })
    }

    /// So many of the next PUTs; those after them are kept.
    pub fn next(&self, reply: Reply, times: u64) {
        self.state.lock().unwrap().script = (0..times).map(|_| reply).collect();
    }

    /// All PUTs from now on; none: they are kept.
    pub fn always(&self, reply: Option<Reply>) {
        self.state.lock().unwrap().always = reply;
    }

    /// Every PUT so far.
    pub fn puts(&self) -> Vec<Put> {
        self.state.lock().unwrap().puts.clone()
    }

    /// What a reader finds: message_ids, as often as they are there.
    pub fn found(&self) -> Vec<String> {
        self.state.lock().unwrap().files.values().flatten().cloned().collect()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One PUT; the connection ends with it, so that no other is in the way of a fault.
async fn answer(mut connection: TcpStream, state: &Mutex<State>) {
    let Some((name, body)) = read(&mut connection).await else { return };
    let reply = state.lock().unwrap().take(name, message_ids(body));
    let text = match reply {
        Reply::Keep => {
            "HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        Reply::Refuse(status, code) => refusal(status, code, ""),
        Reply::Wait(seconds) => refusal(429, "TooManyRequests", &format!("retry-after: {seconds}\r\n")),
        Reply::Stall { .. } => std::future::pending().await,
        Reply::Reset { .. } => {
            let _ = connection.set_zero_linger();
            return;
        }
        Reply::BreakOff => "HTTP/1.1 200 OK\r\netag: \"e".to_owned(),
    };
    let _ = connection.write_all(text.as_bytes()).await;
    let _ = connection.shutdown().await;
}

fn refusal(status: u16, code: &str, header: &str) -> String {
    let body = format!("<Error><Code>{code}</Code></Error>");
    let length = body.len();
    format!("HTTP/1.1 {status} No\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Name and bytes of what is put; none where it ends early.
async fn read(connection: &mut TcpStream) -> Option<(String, Bytes)> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let text = String::from_utf8(read[..head].to_vec()).unwrap();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let end = head + length.unwrap_or(0);
    while read.len() < end {
        if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    let name = text.strip_prefix("PUT /").unwrap().split(' ').next().unwrap().to_owned();
    Some((name, Bytes::copy_from_slice(&read[head..end])))
}

/// message_ids of a file's rows.
pub fn message_ids(file: Bytes) -> Vec<String> {
    let reader = SerializedFileReader::new(file).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_string(0).unwrap().clone()).collect()
}
