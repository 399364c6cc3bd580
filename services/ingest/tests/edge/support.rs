//! An ingest of its own for each test, and what a test asks about it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracklayer_config::ByteSize;
use tracklayer_ids::{MasterKey, Offset, Position, Secret, SourceId, WorkspaceId};
use tracklayer_ingest::admission::Admission;
use tracklayer_ingest::budget::{Budget, Measured};
use tracklayer_ingest::http::{EdgeSettings, router};
use tracklayer_ingest::ingest::Ingest;
use tracklayer_ingest::look::Look;
use tracklayer_ingest::narrowing::Narrowing;
use tracklayer_ingest::orders::KnownOrders;
use tracklayer_ingest::rate::RateLimit;
use tracklayer_ingest::refusals::Refusals;
use tracklayer_ingest::rejected::RejectedEvents;
use tracklayer_journal::{Appender, AppenderSettings, PostgresJournal};
use tracklayer_proto::consent::v1 as consent;
use tracklayer_proto::consent::v1::consent_service_server::{ConsentService, ConsentServiceServer};
use tracklayer_proto::control::v1::{SourceConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_proto::event::v1::Event;
use tracklayer_rpc::connect_lazy;
use tracklayer_rpc::follow::{ConfigSender, ConfigWatch};
use tracklayer_testkit::{TestDatabase, TestRedis};

/// Write key of the browser source, as in the recorded requests: source 1.
pub const BROWSER_KEY: &str = "wk_test";
/// Write key of the server source: source 2.
pub const SERVER_KEY: &str = "wk_server";
/// Write key of a source that is switched off: source 3.
pub const DISABLED_KEY: &str = "wk_disabled";
/// An admin key of workspace 1.
pub const ADMIN_KEY: &str = "admin_of_1";
/// The workspace of all sources.
pub const WORKSPACE: WorkspaceId = WorkspaceId(1);

/// Consent's place: remembers what was recorded, and can be away.
#[derive(Debug, Default)]
pub struct ConsentLog {
    pub recorded: Mutex<Vec<consent::RecordItem>>,
    pub away: AtomicBool,
    /// Held by a test: nothing is answered meanwhile.
    pub slow: tokio::sync::RwLock<()>,
}

pub struct Consent(pub Arc<ConsentLog>);

#[tonic::async_trait]
impl ConsentService for Consent {
    async fn record(
        &self,
        request: tonic::Request<consent::RecordRequest>,
    ) -> Result<tonic::Response<consent::RecordResponse>, tonic::Status> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(tonic::Status::unavailable("the log is away"));
        }
        let items = request.into_inner().items;
        let narrowed = u32::try_from(items.len()).unwrap();
        self.0.recorded.lock().unwrap().extend(items);
        drop(self.0.slow.read().await);
        Ok(tonic::Response::new(consent::RecordResponse { narrowing_seq: 1, narrowed }))
    }
    async fn decide(
        &self,
        _: tonic::Request<consent::DecideRequest>,
    ) -> Result<tonic::Response<consent::DecideResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("ingest never decides"))
    }
    async fn read_narrowing(
        &self,
        _: tonic::Request<consent::ReadNarrowingRequest>,
    ) -> Result<tonic::Response<consent::ReadNarrowingResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("ingest never reads the log"))
    }
    async fn narrow(
        &self,
        _: tonic::Request<consent::NarrowRequest>,
    ) -> Result<tonic::Response<consent::NarrowResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("ingest narrows by recording"))
    }
    async fn explain(
        &self,
        _: tonic::Request<consent::ExplainRequest>,
    ) -> Result<tonic::Response<consent::ExplainResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("ingest never explains"))
    }
}

/// What a test may choose.
pub struct Choices {
    pub journal_budget: u64,
    pub in_flight_bytes: u64,
    pub in_flight_requests: u32,
    pub events_per_second: u32,
    pub rejected_per_hour: u32,
    pub redis: bool,
    pub configured: bool,
    pub trusted_proxies: u32,
    pub body_timeout: Duration,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            journal_budget: 0,
            in_flight_bytes: 64_000_000,
            in_flight_requests: 100,
            events_per_second: 0,
            rejected_per_hour: 1_000,
            redis: false,
            configured: true,
            trusted_proxies: 0,
            body_timeout: Duration::from_secs(10),
        }
    }
}

/// One ingest with everything around it.
pub struct Bench {
    pub database: TestDatabase,
    pub redis: Option<TestRedis>,
    pub consent: Arc<ConsentLog>,
    pub config: ConfigSender,
    pub ingest: Arc<Ingest>,
    pub edge: axum::Router,
    pub stop: CancellationToken,
}

pub fn master_key() -> MasterKey {
    MasterKey::new([7; 32])
}

/// The configuration that control would send.
pub fn configuration() -> WatchConfigResponse {
    let source = |source_id, key: &str, channel: &str, enabled| SourceConfig {
        source_id,
        name: format!("source-{source_id}"),
        write_key_sha256: Sha256::digest(key).to_vec(),
        channel: channel.to_owned(),
        default_place: "US-CA".to_owned(),
        enabled,
        ..SourceConfig::default()
    };
    let workspace = WorkspaceConfig {
        workspace_id: WORKSPACE.0,
        name: "northline".to_owned(),
        partitions: 4,
        sources: vec![
            source(1, BROWSER_KEY, "browser", true),
            source(2, SERVER_KEY, "server", true),
            source(3, DISABLED_KEY, "server", false),
        ],
        admin_key_sha256: vec![Sha256::digest(ADMIN_KEY).to_vec()],
        ..WorkspaceConfig::default()
    };
    WatchConfigResponse { version: 1, workspaces: vec![workspace] }
}

/// A journal of which so many bytes are unread, all of today.
pub fn unread(bytes: u64) -> Measured {
    Measured { bytes, unread: Some(bytes), late_day: None }
}

/// Serves the fake consent; its address.
pub async fn serve_consent(log: Arc<ConsentLog>) -> String {
    let listener = tracklayer_testkit::listener().await;
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(ConsentServiceServer::new(Consent(log)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

impl Bench {
    pub async fn start() -> Self {
        Self::with(Choices::default()).await
    }

    pub async fn with(choices: Choices) -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("ingest", &tracklayer_ingest::MIGRATOR),
        ])
        .await;
        let redis = if choices.redis { Some(tracklayer_testkit::redis().await) } else { None };
        let log = Arc::new(ConsentLog::default());
        let consent =
            connect_lazy(&serve_consent(Arc::clone(&log)).await, Secret::new("token".to_owned())).unwrap();
        let (watch, config) = ConfigWatch::manual();
        if choices.configured {
            config.send(configuration());
        }
        let stop = CancellationToken::new();
        let look = redis.as_ref().map(|redis| {
            let journal = PostgresJournal::new(database.pool.clone());
            Look::new(&Secret::new(redis.url.clone()), Duration::from_millis(500), journal.into()).unwrap()
        });
        let ingest = Arc::new(Ingest {
            watch,
            admission: Admission::new(choices.in_flight_requests, choices.in_flight_bytes),
            budget: Budget::new(ByteSize(choices.journal_budget), ByteSize(0)),
            headroom: Arc::default(),
            rate: RateLimit::new(choices.events_per_second),
            refusals: Refusals::default(),
            narrowing: Narrowing::new(consent, master_key(), Duration::from_secs(5), Duration::from_secs(60)),
            look,
            appender: Appender::start(
                PostgresJournal::new(database.pool.clone()),
                AppenderSettings::default(),
                &stop,
            ),
            rejected: RejectedEvents::new(database.pool.clone(), choices.rejected_per_hour),
            orders: KnownOrders::new(database.pool.clone()),
            trace_sample_ratio: 0.0,
        });
        let settings = EdgeSettings {
            body_timeout: choices.body_timeout,
            trusted_proxies: choices.trusted_proxies,
            public_protocol: None,
            master_key: master_key(),
        };
        let edge = router(Arc::clone(&ingest), settings);
        Self { database, redis, consent: log, config, ingest, edge, stop }
    }

    /// Sends a request in process, as if from 198.51.100.9.
    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        let peer: SocketAddr = "198.51.100.9:40000".parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        Answer::read(self.edge.clone().oneshot(request).await.unwrap()).await
    }

    /// Posts text with the browser's key in the header.
    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(post(path, body).body_is_done()).await
    }

    /// Every event in the journal, in the order of partition and offset.
    pub async fn journal(&self) -> Vec<Event> {
        let journal = PostgresJournal::new(self.database.pool.clone());
        let mut events = Vec::new();
        for head in journal.heads().await.unwrap() {
            let rows: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
                "select header, payload from journal.received where workspace_id = $1 and partition = $2 order by base_offset",
            )
            .bind(head.workspace.0)
            .bind(i32::try_from(head.partition.0).unwrap())
            .fetch_all(&self.database.pool)
            .await
            .unwrap();
            for (header, payload) in rows {
                let header = tracklayer_journal::BlockHeader::read(&header).unwrap();
                events.extend(
                    header.events(&payload).unwrap().into_iter().map(|bytes| Event::decode(bytes).unwrap()),
                );
            }
        }
        events
    }

    /// Where the first event of [`Self::journal`] stands.
    pub async fn first_position(&self) -> Position {
        let heads = PostgresJournal::new(self.database.pool.clone()).heads().await.unwrap();
        let written = heads.into_iter().filter(|head| head.next.0 > 0);
        let first = written.min_by_key(|head| head.partition).unwrap();
        Position { generation: first.generation, partition: first.partition, offset: Offset(0) }
    }

    /// Ids of the events in the journal, sorted.
    pub async fn stored_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.journal().await.into_iter().map(|event| event.message_id).collect();
        ids.sort();
        ids
    }

    /// Codes of the rejected events that were kept, newest first.
    pub async fn rejected_codes(&self) -> Vec<String> {
        self.ingest.rejected.newest(WORKSPACE, 1_000).await.unwrap().into_iter().map(|row| row.code).collect()
    }

    /// What the consent log was told.
    pub fn recorded(&self) -> Vec<consent::RecordItem> {
        self.consent.recorded.lock().unwrap().clone()
    }
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1_000_000).await.unwrap().to_vec();
        Self { status: head.status, headers: head.headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Status and `code` of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(body["success"], false, "{body}");
        assert!(!body["message"].as_str().unwrap().is_empty());
        (self.status.as_u16(), body["code"].as_str().unwrap().to_owned())
    }

    /// `rejected` as (index, code, field).
    pub fn rejected(&self) -> Vec<(u64, String, String)> {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        let body = self.json();
        assert_eq!(body["success"], true);
        let rejected = body["rejected"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rejected.iter().map(|r| (r["index"].as_u64().unwrap(), text(&r["code"]), text(&r["field"]))).collect()
    }
}

/// A POST with the browser's key in the header.
pub fn post(path: &str, body: impl Into<Body>) -> Sending {
    Sending(
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("authorization", "Basic d2tfdGVzdDo=")
            .header("content-type", "text/plain")
            .body(body.into())
            .unwrap(),
    )
}

/// A request that a test goes on with.
pub struct Sending(Request<Body>);

impl Sending {
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.headers_mut().append(name, value.parse().unwrap());
        self
    }
    pub fn without(mut self, name: &'static str) -> Self {
        self.0.headers_mut().remove(name);
        self
    }
    pub fn body_is_done(self) -> Request<Body> {
        self.0
    }
}

/// A GET.
pub fn get(path: &str) -> Request<Body> {
    Request::builder()
        .method(Method::GET)
        .uri(path)
        .header("host", "edge.example.com")
        .body(Body::empty())
        .unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A track call with an id.
pub fn track(message_id: &str) -> Value {
    serde_json::json!({
        "type": "track", "event": "Order Completed", "anonymousId": "a-1", "messageId": message_id,
        "properties": {"revenue": 45, "currency": "EUR"},
    })
}

/// A batch of these.
pub fn batch_of(events: &[Value]) -> String {
    serde_json::json!({ "batch": events }).to_string()
}

/// The id of a source.
pub const BROWSER: SourceId = SourceId(1);
