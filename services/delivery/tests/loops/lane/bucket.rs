//! An S3-compatible server's side of a PUT, which does with each what a test says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const KEPT: &str = "HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 0\r\n\r\n";

/// What becomes of a PUT.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// Kept, and said so.
    Keep,
    /// Kept, and never answered.
    KeepAndHang,
    /// Kept, and hung up on instead of an answer.
    KeepAndHangUp,
    /// Kept, and said so once [`Bucket::answers`] is called.
    KeepAndWait,
    /// Refused with a status and a code.
    Refuse(u16, &'static str),
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    puts: Vec<(String, Vec<u8>)>,
    script: VecDeque<Reply>,
    always: Option<Reply>,
}

/// The server.
#[derive(Clone)]
pub struct Bucket {
    address: String,
    state: Arc<Mutex<State>>,
    answers: Arc<watch::Sender<bool>>,
}

impl Bucket {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let bucket = Self { address, state: Arc::default(), answers: Arc::new(watch::Sender::new(false)) };
        let serving = bucket.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serving.clone().answer(connection));
            }
        });
        bucket
    }

    /// Settings of a connection that writes here, two rows a file and no waiting.
    pub fn settings(&self, change: Value) -> Value {
        let mut settings = json!({
            "url": "s3://lake/events", "endpoint": format!("http://{}", self.address),
            "access_key_id": "AKIA", "secret_access_key": "key", "seconds_per_file": 1,
        });
        settings.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        settings
    }

    /// The next PUTs; those after them are kept.
    pub fn next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.lock().unwrap().script = replies.into_iter().collect();
    }

    /// All PUTs from now on.
    pub fn always(&self, reply: Reply) {
        let mut state = self.state.lock().unwrap();
        state.script.clear();
        state.always = Some(reply);
    }

    /// Answers the PUTs that wait for it.
    pub fn answers(&self) {
        self.answers.send_replace(true);
    }

    /// Every PUT so far: name and bytes.
    pub fn puts(&self) -> Vec<(String, Vec<u8>)> {
        self.state.lock().unwrap().puts.clone()
    }

    /// What a reader finds: message_ids, file by file.
    pub fn found(&self) -> BTreeMap<String, Vec<String>> {
        let objects = self.state.lock().unwrap().objects.clone();
        objects.into_iter().map(|(name, bytes)| (name, message_ids(&bytes))).collect()
    }

    async fn answer(self, mut connection: TcpStream) {
        let mut read = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            };
            let text = String::from_utf8(read[..head].to_vec()).unwrap();
            let line = text.lines().next().unwrap().to_owned();
            let length = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            let end = head + length.unwrap_or(0);
            while read.len() < end {
                if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let body = read[head..end].to_vec();
            read.drain(..end);
            let name = line.strip_prefix("PUT /").unwrap().split(' ').next().unwrap().replace("%3D", "=");
            let reply = {
                let mut state = self.state.lock().unwrap();
                state.puts.push((name.clone(), body.clone()));
                let reply = state.script.pop_front().or(state.always).unwrap_or(Reply::Keep);
                if !matches!(reply, Reply::Refuse(..)) {
                    state.objects.insert(name, body);
                }
                reply
            };
            let answer = match reply {
                Reply::KeepAndHang => std::future::pending().await,
                Reply::KeepAndHangUp => return,
                Reply::Keep => KEPT.to_owned(),
                Reply::KeepAndWait => {
                    let _ = self.answers.subscribe().wait_for(|answers| *answers).await;
                    KEPT.to_owned()
                }
                Reply::Refuse(status, code) => {
                    let body = format!("<Error><Code>{code}</Code></Error>");
                    format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
            };
            if connection.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn message_ids(bytes: &[u8]) -> Vec<String> {
    let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(bytes)).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_string(0).unwrap().clone()).collect()
}
