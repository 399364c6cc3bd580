//! One lane with everything around it that it talks to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracklayer_delivery::clients::Clients;
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::entry::EntryReader;
use tracklayer_delivery::http::Sender;
use tracklayer_delivery::lane::{Lane, LaneContext};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::narrowing::NarrowingTail;
use tracklayer_delivery::oauth::Tokens;
use tracklayer_delivery::progress::Progress;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::lanes::LaneStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::LedgerStore;
use tracklayer_delivery::store::orders::OrderStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_delivery::store::retries::RetryStore;
use tracklayer_ids::{ConnectionId, MasterKey, Offset, Partition, Position, Secret, SourceId, WorkspaceId};
use tracklayer_journal::BlockBuilder;
use tracklayer_proto::consent::v1::Outcome;
use tracklayer_proto::control::v1::{ConnectionConfig, SourceConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_proto::event::v1::{ConnectionDecision, ConsentSignals, Event, ResolvedEvent};
use tracklayer_rpc::Listeners;
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_sandbox::{Options, Sandbox};
use tracklayer_testkit::{TestDatabase, eventually, listener};

pub const WORKSPACE: WorkspaceId = WorkspaceId(1);
pub const CONNECTION: ConnectionId = ConnectionId(7);
const PARTITION: Partition = Partition(0);
const REVISION: u64 = 3;

pub struct Rig {
    pub database: TestDatabase,
    pub sandbox: Sandbox,
    pub clients: Clients,
    pub master_key: MasterKey,
    pub progress: Progress,
    /// Which change of the connection resolve asks for.
    pub decided_for: u64,
    /// Newest narrowing that resolve sees.
    pub decided_at: i64,
    config: ConfigWatch,
    keeper: LeaseKeeper,
    resolve: Lease,
    lane: Option<Lease>,
    next: AtomicU64,
    shutdown: CancellationToken,
    _ends_with_the_test: DropGuard,
}

/// A connection's document, for a running sandbox.
pub fn document(kind: &str, sandbox: &Sandbox) -> Value {
    use tracklayer_sandbox::options as o;
    let settings = match kind {
        "meta_capi" => json!({
            "dataset_id": o::META_DATASET, "access_token": o::META_TOKEN, "base_url": sandbox.meta_url(),
        }),
        "google_ads" => json!({
            "customer_id": o::GOOGLE_CUSTOMER, "conversion_action_id": o::GOOGLE_CONVERSION_ACTION,
            "login_customer_id": o::GOOGLE_LOGIN_CUSTOMER, "base_url": sandbox.google_ads_url(),
            "oauth": {
                "client_id": o::GOOGLE_CLIENT_ID, "client_secret": o::GOOGLE_CLIENT_SECRET,
                "refresh_token": o::GOOGLE_REFRESH_TOKEN, "token_url": sandbox.google_token_url(),
            },
        }),
        "ga4_mp" => json!({
            "measurement_id": o::GA4_MEASUREMENT_ID, "api_secret": o::GA4_API_SECRET, "base_url": sandbox.ga4_url(),
        }),
        "webhook" => json!({ "url": sandbox.webhook_url("crm"), "secret": o::WEBHOOK_SECRET }),
        other => panic!("no document for {other}"),
    };
    json!({ "kind": kind, "mode": "live", "settings": settings })
}

/// One second more with each call: platforms take two of a kind at the same time for one.
fn next_second() -> Duration {
    static SECONDS: AtomicU64 = AtomicU64::new(0);
    Duration::from_secs(SECONDS.fetch_add(1, Ordering::Relaxed))
}

/// A purchase of a visitor with a click, in Texas.
pub fn order(message_id: &str, visitor: &str) -> Value {
    json!({
        "type": "track", "event": "Order Completed", "messageId": message_id, "anonymousId": visitor,
        "timestamp": (Timestamp::now() - Duration::from_secs(600) + next_second()).to_string(),
        "properties": { "order_id": format!("order-{message_id}"), "revenue": 100, "currency": "USD" },
        "integrations": { "Google Analytics 4": { "clientId": "1234567890.1700000000" } },
        "context": {
            "userAgent": "Mozilla/5.0", "ip": "203.0.113.7",
            "page": { "url": format!("https://shop.example.com/?gclid=Cj0{visitor}") },
        },
    })
}

/// The same order's refund.
pub fn refund(message_id: &str, visitor: &str, order_id: &str, amount: u32) -> Value {
    let mut event = order(message_id, visitor);
    event["event"] = json!("Order Refunded");
    event["timestamp"] = json!((Timestamp::now() - Duration::from_secs(300) + next_second()).to_string());
    event["properties"] = json!({ "order_id": order_id, "revenue": amount, "currency": "USD" });
    event
}

impl Rig {
    /// A lane of that kind that has not been started.
    pub async fn new(kind: &str) -> Self {
        Self::with_lease(kind, Duration::from_secs(600)).await
    }

    /// As [`Self::new`], with a lease of that length, which nobody renews.
    pub async fn with_lease(kind: &str, ttl: Duration) -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("identity", &tracklayer_identity::MIGRATOR),
            ("consent", &tracklayer_consent::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let shutdown = CancellationToken::new();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let sandbox = Sandbox::start(local, Options::default(), shutdown.clone()).await.unwrap();
        let master_key = MasterKey::new([7; 32]);
        let clients = start_services(&database, &master_key, &shutdown).await;
        let config = ConfigWatch::fixed(configuration(kind, document(kind, &sandbox), &master_key));

        let lane = Duty { workspace: WORKSPACE, connection: CONNECTION, partition: PARTITION };
        let resolve = Duty::resolve(WORKSPACE, PARTITION);
        CursorStore::new(database.pool.clone()).begin_lanes(&[lane]).await.unwrap();
        for statement in [
            "insert into delivery.resolve_cursor values (1, 0, 1, 0)",
            "insert into delivery.dedup_generation (generation, run_id, sentinel, evicted_keys, rebuilt)\
             values (1, 'r', 's', 0, true)",
        ] {
            sqlx::query(statement).execute(&database.pool).await.unwrap();
        }
        let leases = LeaseStore::new(database.pool.clone());
        let mut keeper = LeaseKeeper::new(leases, ttl);
        let mut taken = keeper.round(&[lane, resolve].into()).await.unwrap().taken;
        let place = taken.iter().position(|lease| lease.duty == resolve).unwrap();
        let resolve = taken.remove(place);
        Self {
            database,
            sandbox,
            clients,
            master_key,
            progress: Progress::default(),
            decided_for: REVISION,
            decided_at: 0,
            config,
            keeper,
            resolve,
            lane: taken.pop(),
            next: AtomicU64::new(0),
            _ends_with_the_test: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    /// Starts the lane, over the test's own pool or another.
    pub async fn start(&mut self) {
        let pool = self.database.pool.clone();
        self.start_over(pool).await;
    }

    /// Starts the lane over a pool.
    pub async fn start_over(&mut self, pool: PgPool) {
        let lease = self.lane.take().expect("the lane is started once");
        let sender = Sender::new(true).unwrap();
        let context = LaneContext {
            connections: Connections::new(self.config.clone(), self.master_key.clone()),
            config: self.config.clone(),
            entries: EntryReader::new(ResolvedStore::new(pool.clone()), 10_000_000),
            progress: self.progress.clone(),
            cursors: CursorStore::new(pool.clone()),
            lanes: LaneStore::new(pool.clone()),
            ledger: LedgerStore::new(pool.clone()),
            retries: RetryStore::new(pool.clone()),
            orders: OrderStore::new(pool.clone()),
            clients: self.clients.clone(),
            narrowing: NarrowingTail::new(self.clients.consent.clone()),
            sender: sender.clone(),
            tokens: Tokens::new(sender),
            quota: tracklayer_delivery::quota::Quota::default(),
            master_key: self.master_key.clone(),
        };
        // Kept, so that nobody else takes the leases meanwhile.
        let _ = self.keeper.process();
        tokio::spawn(Lane::new(Arc::new(context), lease).run(self.shutdown.clone()));
    }

    /// What resolve would write for events that came now and were allowed.
    pub async fn resolved(&self, events: &[Value]) {
        self.resolved_at(Timestamp::now(), events).await;
    }

    /// As [`Self::resolved`], received at another time.
    pub async fn resolved_at(&self, received_at: Timestamp, events: &[Value]) {
        let mut builder = BlockBuilder::default();
        for event in events {
            let resolved = self.resolve_event(event, received_at);
            builder.push(SourceId(1), received_at.as_second().div_euclid(60), &resolved.encode_to_vec());
        }
        let block = builder.finish().unwrap();
        let base = self.next.fetch_add(events.len() as u64, Ordering::Relaxed);
        let first = Position::new(1, 0, base);
        let commit = ResolvedCommit {
            first,
            block: &block,
            message_hashes: (0..events.len() as i64).map(|n| base.cast_signed() + n).collect(),
            dedup_generation: 1,
        };
        let resolved = ResolvedStore::new(self.database.pool.clone());
        resolved.commit(&self.resolve, &commit).await.unwrap();
        let end = Position { offset: Offset(base + events.len() as u64), ..first };
        Progress::raise(&self.progress.partition(WORKSPACE, PARTITION).resolved, end);
    }

    fn resolve_event(&self, event: &Value, received_at: Timestamp) -> ResolvedEvent {
        let mut event: Event = tracklayer_destination::preview::parse(event.clone(), received_at).unwrap();
        let received_at = prost_types::Timestamp { seconds: received_at.as_second(), nanos: 0 };
        event.source_id = 1;
        event.received_at = Some(received_at);
        event.consent = Some(ConsentSignals { place: "US-TX".to_owned(), ..ConsentSignals::default() });
        let key = self.master_key.workspace(WORKSPACE).subject("anonymous_id", &event.anonymous_id);
        ResolvedEvent {
            event: event.encode_to_vec().into(),
            subject_keys: vec![key.0.to_vec().into()],
            decisions: vec![ConnectionDecision {
                connection_id: CONNECTION.0,
                outcome: i32::from(Outcome::Allow).cast_unsigned(),
                connection_revision: self.decided_for,
                ..ConnectionDecision::default()
            }],
            narrowing_seq: self.decided_at,
            message_id: event.message_id,
            source_id: 1,
            received_at: Some(received_at),
            ..ResolvedEvent::default()
        }
    }

    /// What the ledger says about the event at an offset, once it says this state.
    pub async fn ends_as(&self, offset: u64, state: State) -> tracklayer_delivery::ledger::Verdict {
        let ledger = LedgerStore::new(self.database.pool.clone());
        let position = Position::new(1, 0, offset);
        tracklayer_testkit::eventually_seen("the event's state", async || {
            match ledger.verdict(WORKSPACE, CONNECTION.0, position).await.unwrap() {
                Some((verdict, _)) if verdict.state == state => Ok(verdict),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// One number from the database.
    pub async fn number(&self, query: &'static str) -> i64 {
        let (number,): (i64,) = sqlx::query_as(query).fetch_one(&self.database.pool).await.unwrap();
        number
    }

    /// Waits until a number in the database is this.
    pub async fn reaches(&self, query: &'static str, wanted: i64) {
        eventually(query, async || (self.number(query).await == wanted).then_some(())).await;
    }

    pub async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.database.pool).await.unwrap();
    }
}

fn configuration(kind: &str, mut document: Value, master_key: &MasterKey) -> WatchConfigResponse {
    let parsed = tracklayer_destination::Kind::parse(kind).unwrap();
    let paths = tracklayer_destination::secret_paths(parsed);
    tracklayer_secrets::seal_document(&master_key.secrets(), &mut document, paths).unwrap();
    let connection = ConnectionConfig {
        connection_id: CONNECTION.0,
        name: kind.to_owned(),
        kind: kind.to_owned(),
        mode: "live".to_owned(),
        document_json: document.to_string(),
        revision: REVISION,
    };
    let source = SourceConfig { source_id: 1, enabled: true, ..SourceConfig::default() };
    let workspace = WorkspaceConfig {
        workspace_id: WORKSPACE.0,
        partitions: 1,
        value_from: ["revenue", "total", "value"].map(str::to_owned).to_vec(),
        sources: vec![source],
        connections: vec![connection],
        ..WorkspaceConfig::default()
    };
    WatchConfigResponse { version: 1, workspaces: vec![workspace] }
}

async fn start_services(
    database: &TestDatabase,
    master_key: &MasterKey,
    shutdown: &CancellationToken,
) -> Clients {
    let mut addresses = Vec::new();
    let mut listeners = async || {
        let grpc = listener().await;
        addresses.push(format!("http://{}", grpc.local_addr().unwrap()));
        Listeners { grpc, http: None, ops: listener().await }
    };
    let (at_identity, at_consent) = (listeners().await, listeners().await);
    let identity = tracklayer_identity::Config {
        database_url: database.secret_url(),
        master_key: master_key.clone(),
        consent_address: format!("http://{}", at_consent.grpc.local_addr().unwrap()),
        database_connections: 4,
        policy_file: None,
    };
    let consent = tracklayer_consent::Config {
        database_url: database.secret_url(),
        master_key: master_key.clone(),
        database_connections: 4,
        policy_file: None,
        receipt_retention_days: 731,
    };
    tokio::spawn(tracklayer_identity::run(identity, at_identity, shutdown.clone()));
    tokio::spawn(tracklayer_consent::run(consent, at_consent, shutdown.clone()));
    let connect = |address: &str| {
        tracklayer_rpc::connect_lazy(address, Secret::new(master_key.service_token())).unwrap()
    };
    Clients::new(connect(&addresses[0]), connect(&addresses[1]))
}
