//! One lane with everything around it that it talks to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tracklayer_delivery::breaker::Breakers;
use tracklayer_delivery::clock::Clock;
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::entry::{Entry, EntryReader};
use tracklayer_delivery::file_memory::FileMemory;
use tracklayer_delivery::forecast::Forecaster;
use tracklayer_delivery::give_ups::GiveUps;
use tracklayer_delivery::holds::Holds;
use tracklayer_delivery::http::Sender;
use tracklayer_delivery::lane::{Lane, LaneContext};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::ledger::{State, Verdict};
use tracklayer_delivery::match_keys::MatchKeys;
use tracklayer_delivery::narrowing::NarrowingTail;
use tracklayer_delivery::oauth::Tokens;
use tracklayer_delivery::pace::Pace;
use tracklayer_delivery::progress::Progress;
use tracklayer_delivery::quota::Quota;
use tracklayer_delivery::replay::replays::Replays;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::lanes::LaneStore;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::ledger::{LaneCommit, LedgerStore, RetryRow, Settled};
use tracklayer_delivery::store::match_keys::MatchKeyStore;
use tracklayer_delivery::store::orders::OrderStore;
use tracklayer_delivery::store::replays::ReplayStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_delivery::store::retries::RetryStore;
use tracklayer_delivery::store::twins::TwinRows;
use tracklayer_ids::{ConnectionId, Offset, Partition, Position, SourceId};
use tracklayer_journal::{BlockBuilder, Headroom};
use tracklayer_lake::Rules;
use tracklayer_proto::consent::v1::Outcome;
use tracklayer_proto::control::v1::{ConnectionConfig, FreezeWindow, WatchConfigResponse, WorkspaceConfig};
use tracklayer_proto::event::v1::{ConnectionDecision, ConsentSignals, Event, ResolvedEvent};
use tracklayer_rpc::follow::{ConfigSender, ConfigWatch};
use tracklayer_sandbox::{Options, Platform, Sandbox};
use tracklayer_testkit::eventually;

use crate::services::{Services, WORKSPACE, workspace};

pub const CONNECTION: ConnectionId = ConnectionId(7);
const PARTITION: Partition = Partition(0);
pub const REVISION: u64 = 3;

const LANE: Duty = Duty { workspace: WORKSPACE, connection: CONNECTION, partition: PARTITION };

pub struct Rig {
    pub services: Services,
    pub sandbox: Sandbox,
    pub progress: Progress,
    pub give_ups: GiveUps,
    pub replays: Replays,
    /// The lane's clock.
    pub clock: Clock,
    /// The circuits of its process.
    pub breakers: Breakers,
    /// Which change of the connection resolve asks for.
    pub decided_for: u64,
    /// Newest narrowing that resolve sees.
    pub decided_at: i64,
    /// Where files may go.
    pub files: Rules,
    /// What large rounds of lanes leave to small ones.
    pub headroom: Arc<Headroom>,
    /// What the lane may have in memory for files.
    pub file_memory: FileMemory,
    /// Whether it is the lane's process that resolves.
    pub resolves_here: bool,
    config: ConfigWatch,
    control: ConfigSender,
    said: WorkspaceConfig,
    ttl: Duration,
    keeper: LeaseKeeper,
    resolve: Lease,
    lane: Option<Lease>,
    running: Option<JoinHandle<()>>,
    generation: AtomicU32,
    next: AtomicU64,
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
        "google_data_manager" => json!({
            "operating_account": { "account_id": o::GOOGLE_CUSTOMER },
            "login_account": { "account_id": o::GOOGLE_LOGIN_CUSTOMER },
            "conversion_action_id": o::GOOGLE_CONVERSION_ACTION, "base_url": sandbox.data_manager_url(),
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
    // In this shop what is cancelled is paid back.
    let map = if kind == "ga4_mp" { json!({ "Order Cancelled": "refund" }) } else { json!({}) };
    json!({ "kind": kind, "mode": "live", "settings": settings, "event_map": map })
}

/// One second more with each call, for some hours: platforms take two of a kind at the same time for one.
fn next_second() -> Duration {
    static SECONDS: AtomicU64 = AtomicU64::new(0);
    Duration::from_secs(SECONDS.fetch_add(1, Ordering::Relaxed))
}

/// A purchase of a visitor with a click, in Texas.
pub fn order(message_id: &str, visitor: &str) -> Value {
    json!({
        "type": "track", "event": "Order Completed", "messageId": message_id, "anonymousId": visitor,
        "timestamp": (Timestamp::now() - Duration::from_secs(12 * 3_600) + next_second()).to_string(),
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
    event["timestamp"] =
        json!((Timestamp::now() - Duration::from_secs(6 * 3_600) + next_second()).to_string());
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
        Self::with(kind, ttl, Options::default()).await
    }

    /// As [`Self::new`], for a connection that leads elsewhere, or nowhere.
    pub async fn with_settings(kind: &str, settings: Value) -> Self {
        let document = |_: &Sandbox| json!({ "kind": kind, "mode": "live", "settings": settings });
        Self::of(kind, document, Duration::from_secs(600), Options::default()).await
    }

    /// As [`Self::with_lease`], with platforms of these options.
    pub async fn with(kind: &str, ttl: Duration, options: Options) -> Self {
        Self::of(kind, |sandbox| document(kind, sandbox), ttl, options).await
    }

    async fn of(kind: &str, document: impl Fn(&Sandbox) -> Value, ttl: Duration, options: Options) -> Self {
        let services = Services::start().await;
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let sandbox = Sandbox::start(local, options, services.shutdown.clone()).await.unwrap();
        let said = workspace(1, vec![connection(kind, document(&sandbox), &services)]);
        let (config, control) = ConfigWatch::manual();
        control.send(WatchConfigResponse { version: 1, workspaces: vec![said.clone()] });

        let resolve = Duty::resolve(WORKSPACE, PARTITION);
        CursorStore::new(services.database.pool.clone()).begin_lanes(&[LANE]).await.unwrap();
        services
            .run(
                "insert into delivery.resolve_cursor values (1, 0, 1, 0);
                 insert into delivery.dedup_generation (generation, run_id, sentinel, evicted_keys, rebuilt)
                 values (1, 'r', 's', 0, true);",
            )
            .await;
        let leases = LeaseStore::new(services.database.pool.clone());
        let mut keeper = LeaseKeeper::new(leases, ttl);
        let mut taken = keeper.round(&[LANE, resolve].into()).await.unwrap().taken;
        let place = taken.iter().position(|lease| lease.duty == resolve).unwrap();
        let resolve = taken.remove(place);
        let clock = Clock::default();
        Self {
            services,
            sandbox,
            progress: Progress::default(),
            give_ups: GiveUps::default(),
            breakers: Breakers::new(clock.clone()),
            clock,
            replays: Replays::default(),
            decided_for: REVISION,
            decided_at: 0,
            files: Rules { root: None, allow_private: true },
            headroom: Arc::default(),
            file_memory: FileMemory::new(400_000_000),
            resolves_here: false,
            config,
            control,
            said,
            ttl,
            keeper,
            resolve,
            lane: taken.pop(),
            running: None,
            generation: AtomicU32::new(1),
            next: AtomicU64::new(0),
        }
    }

    /// What the lane's lease is for.
    pub const fn duty() -> Duty {
        LANE
    }

    /// What control says.
    pub fn config(&self) -> &ConfigWatch {
        &self.config
    }

    /// Has control say something else of the workspace and its connection.
    pub fn control_says(&mut self, change: impl FnOnce(&mut ConnectionConfig, &mut Vec<FreezeWindow>)) {
        change(&mut self.said.connections[0], &mut self.said.freezes);
        let version = self.config.snapshot().unwrap().version + 1;
        self.control.send(WatchConfigResponse { version, workspaces: vec![self.said.clone()] });
    }

    /// Has control say other things in the connection's document.
    pub fn mend(&mut self, changes: Value) {
        self.control_says(|connection, _| {
            let mut document: Value = serde_json::from_str(&connection.document_json).unwrap();
            let changes = changes.as_object().unwrap().clone();
            document.as_object_mut().unwrap().extend(changes);
            connection.document_json = document.to_string();
            connection.revision += 1;
        });
    }

    /// Files the first events under their ids.
    pub async fn index_ids(&self, message_ids: &[&str]) {
        for (offset, id) in (0i64..).zip(message_ids) {
            sqlx::query("insert into delivery.message_index values (1, $1, 0, 1, $2)")
                .bind(tracklayer_delivery::resolve::message_hash(id))
                .bind(offset)
                .execute(&self.services.database.pool)
                .await
                .unwrap();
        }
    }

    /// Starts the lane, over the test's own pool or another.
    pub async fn start(&mut self) {
        let pool = self.services.database.pool.clone();
        self.start_over(pool).await;
    }

    /// Starts the lane over a pool.
    pub async fn start_over(&mut self, pool: PgPool) {
        let lease = self.lane.take().expect("the lane is started once under a lease");
        let sender = Sender::new(true).unwrap();
        let context = LaneContext {
            clock: self.clock.clone(),
            breakers: self.breakers.clone(),
            holds: Holds::new(self.config.clone()),
            pace: Pace::default(),
            connections: Connections::new(self.config.clone(), self.services.master_key.clone()),
            config: self.config.clone(),
            entries: EntryReader::new(ResolvedStore::new(Index::new(pool.clone())), 10_000_000),
            progress: self.progress.clone(),
            give_ups: self.give_ups.clone(),
            replays: self.replays.clone(),
            cursors: CursorStore::new(pool.clone()),
            lanes: LaneStore::new(pool.clone()),
            ledger: LedgerStore::new(Index::new(pool.clone())),
            retries: RetryStore::new(pool.clone()),
            replay_store: ReplayStore::new(pool.clone()),
            orders: OrderStore::new(Index::new(pool.clone())),
            match_keys: self.match_keys(pool.clone()),
            clients: self.services.clients.clone(),
            narrowing: NarrowingTail::new(self.services.clients.consent.clone()),
            sender: sender.clone(),
            files: self.files.clone(),
            file_memory: self.file_memory.clone(),
            tokens: Tokens::new(sender),
            quota: Quota::default().by_clock(self.clock.clone()),
            headroom: Arc::clone(&self.headroom),
            master_key: self.services.master_key.clone(),
        };
        let lane = Lane::new(Arc::new(context), lease);
        self.running = Some(tokio::spawn(lane.run(self.services.shutdown.clone())));
    }

    /// What orders were matched by, as the lane keeps it.
    pub fn match_keys(&self, pool: PgPool) -> MatchKeys {
        let narrowing = NarrowingTail::new(self.services.clients.consent.clone());
        MatchKeys::new(MatchKeyStore::new(pool), narrowing, self.services.master_key.clone())
    }

    /// Foretells what the lane will make of what waits, in pages of so many events.
    pub fn forecaster(&self, page_events: usize) -> Forecaster {
        let pool = self.services.database.pool.clone();
        Forecaster {
            connections: Connections::new(self.config.clone(), self.services.master_key.clone()),
            holds: Holds::new(self.config.clone()),
            cursors: CursorStore::new(pool.clone()),
            resolved: ResolvedStore::new(Index::new(pool.clone())),
            retries: RetryStore::new(pool.clone()),
            lanes: LaneStore::new(pool),
            page_events,
        }
    }

    /// Ends the lane where it stands, as a kill of its process would, and takes its lease when it has run out.
    pub async fn crash(&mut self) {
        let running = self.running.take().expect("the lane runs");
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        self.services
            .run("update delivery.lease set expires_at = now() - interval '1 second' where connection_id = 7")
            .await;
        let leases = LeaseStore::new(self.services.database.pool.clone());
        let mut successor = LeaseKeeper::new(leases, self.ttl);
        self.lane = successor.round(&[LANE].into()).await.unwrap().taken.pop();
    }

    /// Tells the lane to end, as a shutdown does; its lease is kept meanwhile.
    pub fn part(&mut self) {
        self.keeper.part_with_all();
    }

    /// Waits until the lane has ended.
    pub async fn ended(&mut self) {
        let running = self.running.take().expect("the lane runs");
        let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
        ended.expect("the lane does not end").unwrap();
    }

    /// What a promotion does: what is resolved from now on stands in the next generation.
    pub fn open_next_generation(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
    }

    /// What resolve would write for events that came now and were allowed.
    pub async fn resolved(&self, events: &[Value]) {
        self.resolved_at(Timestamp::now(), events).await;
    }

    /// As [`Self::resolved`], received at another time.
    pub async fn resolved_at(&self, received_at: Timestamp, events: &[Value]) {
        let events = events.iter().map(|event| self.resolve_event(event, received_at).encode_to_vec());
        self.resolved_bytes_at(received_at, &events.collect::<Vec<_>>()).await;
    }

    /// A resolved range of whatever bytes; answers its first position.
    pub async fn resolved_bytes(&self, events: &[Vec<u8>]) -> Position {
        self.resolved_bytes_at(Timestamp::now(), events).await
    }

    async fn resolved_bytes_at(&self, received_at: Timestamp, events: &[Vec<u8>]) -> Position {
        let mut builder = BlockBuilder::default();
        for bytes in events {
            builder.push(SourceId(1), received_at.as_second().div_euclid(60), bytes);
        }
        let block = builder.finish().unwrap();
        let base = self.next.fetch_add(events.len() as u64, Ordering::Relaxed);
        let first = Position::new(self.generation.load(Ordering::Relaxed), 0, base);
        let commit = ResolvedCommit {
            first,
            block: &block,
            message_hashes: (0..events.len() as i64).map(|n| base.cast_signed() + n).collect(),
            dedup_generation: 1,
            reused: Vec::new(),
            twins: TwinRows::new(),
        };
        let resolved = ResolvedStore::new(Index::new(self.services.database.pool.clone()));
        resolved.commit(&self.resolve, &commit).await.unwrap();
        let end = Position { offset: Offset(base + events.len() as u64), ..first };
        let progress = self.progress.partition(WORKSPACE, PARTITION);
        if self.resolves_here {
            progress.resolved_here(end);
        } else {
            Progress::raise(&progress.resolved, end);
        }
        first
    }

    /// Events that the lane, before it is started, has been asked to try again by now.
    pub async fn due_again(&self, events: &[Value]) {
        self.due_again_at(Timestamp::now(), events).await;
    }

    /// As [`Self::due_again`], not before that time.
    pub async fn due_again_at(&self, next_at: Timestamp, events: &[Value]) {
        let now = Timestamp::now();
        let bytes: Vec<Vec<u8>> =
            events.iter().map(|event| self.resolve_event(event, now).encode_to_vec()).collect();
        let first = self.resolved_bytes(&bytes).await;
        let entries = (first.offset.0..)
            .zip(bytes)
            .map(|(offset, bytes)| Entry::decode(Position { offset: Offset(offset), ..first }, bytes.into()));
        let mut commit = LaneCommit { id: uuid::Uuid::now_v7(), ..LaneCommit::default() };
        for entry in entries {
            commit.settled.push(Settled {
                position: entry.position,
                source: entry.source,
                minute: entry.received_ms.div_euclid(60_000),
                verdict: Verdict::of(State::Held, "retry"),
            });
            commit.retries.push(RetryRow {
                position: entry.position,
                order_key: entry.order_key,
                attempts: 1,
                tries: 1,
                transient_holds: 0,
                next_at,
                first_sent_at: None,
                waited: None,
                reason: "retry".to_owned(),
                resolved: entry.raw.to_vec(),
            });
        }
        let ledger = LedgerStore::new(Index::new(self.services.database.pool.clone()));
        ledger.commit_range(self.lane.as_ref().unwrap(), first, &commit).await.unwrap();
    }

    pub fn resolve_event(&self, event: &Value, received_at: Timestamp) -> ResolvedEvent {
        let mut event: Event = tracklayer_destination::preview::parse(event.clone(), received_at).unwrap();
        let received_at = prost_types::Timestamp { seconds: received_at.as_second(), nanos: 0 };
        event.source_id = 1;
        event.received_at = Some(received_at);
        event.consent = Some(ConsentSignals { place: "US-TX".to_owned(), ..ConsentSignals::default() });
        let key = self.services.master_key.workspace(WORKSPACE).subject("anonymous_id", &event.anonymous_id);
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

    /// What the ledger says about the event at an offset of the first generation, once it says this state.
    pub async fn ends_as(&self, offset: u64, state: State) -> Verdict {
        self.ends_at(Position::new(1, 0, offset), state).await
    }

    /// What the ledger says about the event at a position, once it says this state.
    pub async fn ends_at(&self, position: Position, state: State) -> Verdict {
        let ledger = LedgerStore::new(Index::new(self.services.database.pool.clone()));
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
        let (number,): (i64,) = sqlx::query_as(query).fetch_one(&self.services.database.pool).await.unwrap();
        number
    }

    /// Waits until a number in the database is this.
    pub async fn reaches(&self, query: &'static str, wanted: i64) {
        eventually(query, async || (self.number(query).await == wanted).then_some(())).await;
    }

    /// Waits until a platform has taken so many events.
    pub async fn takes(&self, platform: Platform, events: usize) {
        tracklayer_testkit::eventually_seen("the platform to take it", async || {
            let counted = self.sandbox.counted(platform).len();
            if counted == events { Ok(()) } else { Err(counted) }
        })
        .await;
    }
}

fn connection(kind: &str, mut document: Value, services: &Services) -> ConnectionConfig {
    let parsed = tracklayer_destination::Kind::parse(kind).unwrap();
    let paths = tracklayer_destination::secret_paths(parsed);
    tracklayer_secrets::seal_document(&services.master_key.secrets(), &mut document, paths).unwrap();
    ConnectionConfig {
        connection_id: CONNECTION.0,
        name: kind.to_owned(),
        kind: kind.to_owned(),
        mode: "live".to_owned(),
        document_json: document.to_string(),
        revision: REVISION,
        ..ConnectionConfig::default()
    }
}
