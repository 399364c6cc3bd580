//! One order told by many: its browser twin, its server twin, a shop's webhook with an id of its own, and two refunds, in every
//! order of arrival, over two partitions, with resolve crashing at each step.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message as _;
use redis::aio::ConnectionManager;
use tokio::task::JoinHandle;
use tracklayer_delivery::subjects::{self, Asked};
use tracklayer_ids::Position;
use tracklayer_journal::COMMERCE_LEVEL;
use tracklayer_proto::consent::v1::DestinationQuery;
use tracklayer_proto::control::v1::{SourceConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_proto::event::v1::{ConsentSignals, Event, EventType, ResolvedEvent};
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_testkit::eventually_seen;

use super::rig::{ANOTHER, PARTITION, Rig};
use super::twins;
use crate::services::WORKSPACE;

const PARTITIONS: [tracklayer_ids::Partition; 2] = [PARTITION, ANOTHER];
/// Browser, server and shop; those of the second three claim by the order, too.
const SOURCES: [i64; 6] = [1, 2, 3, 4, 5, 6];
const DENY: u32 = 3;

/// Who tells of the order, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Telling {
    Browser,
    Server,
    Shop,
    Refund,
    SecondRefund,
}

use Telling::{Browser, Refund, SecondRefund, Server, Shop};

const ALL: [Telling; 5] = [Browser, Server, Shop, Refund, SecondRefund];

/// Where resolve crashes, in each round once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    Never,
    AfterClaims,
    AfterIdentity,
    AfterConsent,
    BeforeCommit,
}

impl Crash {
    /// All of them, and none.
    pub const ALL: [Self; 5] =
        [Self::Never, Self::AfterClaims, Self::AfterIdentity, Self::AfterConsent, Self::BeforeCommit];

    /// Whom the table belongs to that whoever comes behind the step waits for.
    const fn table(self) -> Option<&'static str> {
        match self {
            Self::Never => None,
            Self::AfterClaims => Some("identity.identifier"),
            Self::AfterIdentity => Some("consent.signal"),
            Self::AfterConsent => Some("delivery.lease"),
            Self::BeforeCommit => Some("delivery.index_run"),
        }
    }
}

/// An order, the order in which it is told, and by what they are known.
#[derive(Debug, Clone)]
struct Story {
    name: String,
    arrival: Vec<Telling>,
    /// Bit n: telling n arrives in the other partition.
    partitions: usize,
    by_order: bool,
    /// Which telling of the purchase carries the GPC signal.
    gpc: Telling,
}

impl Story {
    fn all(run: &str) -> Vec<Self> {
        let orders = permutations(&ALL).into_iter().enumerate();
        orders
            .flat_map(|(number, arrival)| {
                [false, true].map(|by_order| Self {
                    name: format!("{run}-{number}-{by_order}"),
                    arrival: arrival.clone(),
                    partitions: number * 11 % 32,
                    by_order,
                    gpc: [Browser, Server, Shop][number % 3],
                })
            })
            .collect()
    }

    fn device(&self) -> String {
        format!("device-{}", self.name)
    }

    fn user(&self) -> String {
        format!("user-{}", self.name)
    }

    fn email(&self) -> String {
        format!("{}@example.org", self.name)
    }

    fn partition_of(&self, telling: Telling) -> usize {
        self.partitions >> (telling as usize) & 1
    }

    fn event(&self, telling: Telling) -> Event {
        let name = &self.name;
        let (source, id, refund) = match telling {
            Browser => (1, "order", ""),
            Server => (2, "order", ""),
            Shop => (3, "shop", ""),
            Refund => (3, "refund", "R-1"),
            SecondRefund => (3, "second-refund", "R-2"),
        };
        let mut properties = serde_json::json!({ "order_id": name });
        if telling == Shop {
            properties["email"] = self.email().into();
        }
        if !refund.is_empty() {
            properties["refund_id"] = format!("{name}-{refund}").into();
        }
        let gpc =
            ConsentSignals { gpc: true, gpc_provenance: "server".to_owned(), ..ConsentSignals::default() };
        Event {
            message_id: format!("{id}-{name}"),
            r#type: EventType::Track.into(),
            name: if refund.is_empty() { "Order Completed" } else { "Order Refunded" }.to_owned(),
            source_id: source + if self.by_order { 3 } else { 0 },
            // The server knows both, so that it joins what the browser and the shop know.
            anonymous_id: if matches!(telling, Browser | Server) { self.device() } else { String::new() },
            user_id: if telling == Browser { String::new() } else { self.user() },
            properties_json: properties.to_string().into(),
            consent: (telling == self.gpc).then_some(gpc),
            received_at: Some(subjects::proto_time(jiff::Timestamp::now())),
            ..Event::default()
        }
    }

    /// Of each of these, one counts.
    fn same(&self) -> Vec<Vec<Telling>> {
        let purchase = if self.by_order {
            vec![vec![Browser, Server, Shop]]
        } else {
            vec![vec![Browser, Server], vec![Shop]]
        };
        [purchase, vec![vec![Refund], vec![SecondRefund]]].concat()
    }
}

fn config() -> ConfigWatch {
    let source = |id: i64| SourceConfig {
        source_id: id,
        enabled: true,
        default_place: "US-CA".to_owned(),
        dedup_by_order_id: id > 3,
        ..SourceConfig::default()
    };
    let workspace = WorkspaceConfig {
        workspace_id: WORKSPACE.0,
        partitions: 2,
        sources: SOURCES.map(source).to_vec(),
        ..WorkspaceConfig::default()
    };
    ConfigWatch::fixed(WatchConfigResponse { version: 1, workspaces: vec![workspace] })
}

pub struct Bench {
    pub rig: Rig,
    redis: ConnectionManager,
    config: ConfigWatch,
    /// What was appended to each partition.
    ends: [u64; 2],
}

impl Bench {
    /// With six sources; what they send first opens the dedup store's history.
    pub async fn start() -> Self {
        let config = config();
        let rig = Rig::configured(config.clone()).await;
        Self { redis: rig.redis().await, rig, config, ends: [0, 0] }
    }

    /// Appends events and resolves them; one loop at a time where there is a crash.
    pub async fn round(&mut self, events: [Vec<Event>; 2], crash: Crash) {
        let mut running: Vec<JoinHandle<()>> = Vec::new();
        for (partition, events) in events.into_iter().enumerate().filter(|(_, events)| !events.is_empty()) {
            self.ends[partition] += events.len() as u64;
            let encoded: Vec<Bytes> = events.iter().map(|event| event.encode_to_vec().into()).collect();
            self.rig.append_bytes(PARTITIONS[partition], &encoded).await;
            self.rig.wait_until_received(self.end(partition)).await;
            if let Some(table) = crash.table() {
                self.crash(partition, table).await;
            }
            running.push(self.rig.start(PARTITIONS[partition]).await);
        }
        for partition in 0..2 {
            if self.ends[partition] > 0 {
                self.rig.wait_until_resolved(self.end(partition)).await;
            }
        }
        for running in running {
            end(running).await;
        }
    }

    fn end(&self, partition: usize) -> Position {
        Position::new(1, PARTITIONS[partition].0, self.ends[partition])
    }

    /// Lets the loop come to where it needs the table, and ends it there.
    async fn crash(&self, partition: usize, table: &'static str) {
        let lease = self.rig.lease(PARTITIONS[partition]).await;
        let pool = &self.rig.services.database.pool;
        let mut held = pool.begin().await.unwrap();
        // An ended loop may leave a transaction open, which the server ends after half a minute.
        let lock =
            format!("set local statement_timeout = '90s'; lock table {table} in access exclusive mode");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *held).await.unwrap();
        let before = self.claim_rounds().await;
        let running = self.rig.run(lease);
        eventually_seen("resolve to come to the step", async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_locks where relation = $1::regclass and not granted",
            )
            .bind(table)
            .fetch_one(pool)
            .await
            .unwrap();
            let rounds = self.claim_rounds().await - before;
            if waiting > 0 && rounds > 0 { Ok(()) } else { Err(format!("{waiting} wait, {rounds} rounds")) }
        })
        .await;
        end(running).await;
        held.rollback().await.unwrap();
    }

    /// How often something was asked of Redis in one piece, as claims are.
    async fn claim_rounds(&self) -> u64 {
        let mut redis = self.redis.clone();
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
        let exec = stats.lines().find_map(|line| line.strip_prefix("cmdstat_exec:calls="));
        exec.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// What became of each telling since these ends.
    pub async fn resolved_since(&self, ends: [u64; 2]) -> HashMap<(i64, String), (Position, ResolvedEvent)> {
        let mut all = HashMap::new();
        for (partition, from) in PARTITIONS.into_iter().zip(ends) {
            let events = self.rig.resolved_from(Position::new(1, partition.0, from)).await;
            for (offset, event) in (from..).zip(events) {
                let position = Position::new(1, partition.0, offset);
                all.insert((event.source_id, event.message_id.clone()), (position, event));
            }
        }
        all
    }

    /// Nobody's identifier and nobody's signal is lost, whoever's the event that counts is.
    async fn check_people(&self, stories: &[Story]) {
        let snapshot = self.config.snapshot().unwrap();
        let probe = Event { source_id: 1, r#type: EventType::Track.into(), ..Event::default() };
        let probes: Vec<Event> = stories
            .iter()
            .flat_map(|story| {
                let email = serde_json::json!({ "email": story.email() }).to_string();
                [
                    Event { anonymous_id: story.device(), ..probe.clone() },
                    Event { user_id: story.user(), ..probe.clone() },
                    Event { properties_json: email.into(), ..probe.clone() },
                ]
            })
            .chain([Event { user_id: "stranger".to_owned(), ..probe.clone() }])
            .collect();
        let asked: Vec<Asked<'_>> =
            probes.iter().map(|probe| Asked::about(probe, WORKSPACE, &snapshot)).collect();
        let clients = &self.rig.services.clients;
        let identities = subjects::resolve(clients, WORKSPACE, &asked).await.unwrap().of_events;
        let pairs: Vec<_> = asked.iter().zip(&identities).collect();
        let key = self.rig.services.master_key.workspace(WORKSPACE);
        let query = DestinationQuery {
            connection_id: 1,
            kind: "meta_capi".to_owned(),
            ..DestinationQuery::default()
        };
        let decided = subjects::decide(clients, WORKSPACE, &key, &snapshot, &pairs, &[query], false).await;
        let outcomes: Vec<u32> =
            decided.unwrap().decisions.iter().map(|decision| decision.destinations[0].outcome).collect();
        let (stranger, people) = outcomes.split_last().unwrap();
        assert_ne!(*stranger, DENY, "of whom nothing is known");
        for ((story, identities), outcomes) in stories.iter().zip(identities.chunks(3)).zip(people.chunks(3))
        {
            let [device, user, email] = identities else { panic!("three identities") };
            assert_eq!(device.canonical_key, user.canonical_key, "{story:?}");
            assert_eq!(user.canonical_key, email.canonical_key, "{story:?}");
            assert_eq!(outcomes, [DENY; 3], "the signal of the {:?} telling: {story:?}", story.gpc);
        }
    }
}

async fn end(running: JoinHandle<()>) {
    running.abort();
    assert!(running.await.is_err_and(|ended| ended.is_cancelled()));
}

/// One of each counts, and the others are its duplicates; the first, if they came one after another.
fn check(
    story: &Story,
    resolved: &HashMap<(i64, String), (Position, ResolvedEvent)>,
    one_after_another: bool,
) {
    for same in story.same() {
        let told: BTreeMap<Telling, &(Position, ResolvedEvent)> = same
            .iter()
            .map(|telling| {
                let event = story.event(*telling);
                (*telling, &resolved[&(event.source_id, event.message_id)])
            })
            .collect();
        let winners: Vec<Telling> = told
            .iter()
            .filter(|(_, (_, event))| event.duplicate.is_none())
            .map(|(telling, _)| *telling)
            .collect();
        let [winner] = winners[..] else { panic!("{winners:?} count of {same:?}: {story:?}") };
        let (first, _) = told[&winner];
        for (telling, (_, event)) in &told {
            let of = event.duplicate.map(|d| Position::new(d.generation, d.partition, d.offset));
            assert!(of.is_none_or(|of| of == *first), "{telling:?} is a duplicate of {of:?}: {story:?}");
            assert_eq!(!event.commerce_key.is_empty(), story.by_order, "{story:?}");
        }
        if one_after_another {
            let came_first = story.arrival.iter().find(|telling| same.contains(telling));
            assert_eq!(Some(&winner), came_first, "{story:?}");
        }
    }
}

fn permutations(of: &[Telling]) -> Vec<Vec<Telling>> {
    let [] = of else {
        return (0..of.len())
            .flat_map(|first| {
                let rest = [&of[..first], &of[first + 1..]].concat();
                permutations(&rest).into_iter().map(move |rest| [&[of[first]][..], &rest].concat())
            })
            .collect();
    };
    vec![Vec::new()]
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_that_tell_of_an_order_one_counts_and_nothing_that_they_brought_is_lost() {
    let mut bench = Bench::start().await;
    // The first claims open the dedup store's history.
    let somebody = Event {
        message_id: "first".to_owned(),
        r#type: 1,
        user_id: "u".to_owned(),
        source_id: 1,
        ..Event::default()
    };
    bench.round([vec![somebody], Vec::new()], Crash::Never).await;
    for crash in Crash::ALL {
        for one_after_another in [true, false] {
            let stories = Story::all(&format!("{crash:?}-{one_after_another}"));
            let before = bench.ends;
            let at_once = if one_after_another { 1 } else { ALL.len() };
            for from in (0..ALL.len()).step_by(at_once) {
                let mut events: [Vec<Event>; 2] = Default::default();
                for story in &stories {
                    for telling in story.arrival.iter().skip(from).take(at_once) {
                        events[story.partition_of(*telling)].push(story.event(*telling));
                    }
                }
                bench.round(events, crash).await;
            }
            let resolved = bench.resolved_since(before).await;
            assert_eq!(resolved.len(), stories.len() * ALL.len());
            stories.iter().for_each(|story| check(story, &resolved, one_after_another));
            bench.check_people(&stories).await;
        }
    }
    twins::check(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_whose_message_id_was_used_before_count_and_are_counted_by_source_and_cause() {
    let config = config();
    let rig = Rig::configured(config.clone()).await;
    let mut bench = Bench { redis: rig.redis().await, rig, config, ends: [0, 0] };
    bench.rig.resolver.fleet.set(COMMERCE_LEVEL);
    let event = |source_id, name: &str, order: &str| Event {
        message_id: "1".to_owned(),
        r#type: EventType::Track.into(),
        name: name.to_owned(),
        source_id,
        user_id: "u".to_owned(),
        properties_json: serde_json::json!({ "order_id": order }).to_string().into(),
        received_at: Some(subjects::proto_time(jiff::Timestamp::now())),
        ..Event::default()
    };
    let events = [
        event(6, "Order Completed", "A"),
        event(6, "Order Completed", "B"),
        // A repetition of that is one.
        event(6, "Order Completed", "B"),
        // Of a source that goes by the message_id alone.
        event(1, "Quote Requested", ""),
    ];
    bench.round([events.to_vec(), Vec::new()], Crash::Never).await;
    let resolved = bench.rig.resolved_from(Position::new(1, PARTITION.0, 0)).await;
    let told: Vec<(bool, bool)> =
        resolved.iter().map(|event| (event.reused_id, event.duplicate.is_some())).collect();
    assert_eq!(told, [(false, false), (true, false), (false, true), (true, false)]);
    let counted: Vec<(i64, i64, i16, i64)> = sqlx::query_as(
        "select workspace_id, source_id, cause, events from delivery.reused_id order by source_id, cause",
    )
    .fetch_all(&bench.rig.services.database.pool)
    .await
    .unwrap();
    assert_eq!(counted, [(WORKSPACE.0, 1, 1, 1), (WORKSPACE.0, 6, 2, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_is_claimed_while_a_process_lives_that_could_not_read_so() {
    let mut bench = Bench::start().await;
    let mut seen = Vec::new();
    for level in [COMMERCE_LEVEL - 1, COMMERCE_LEVEL] {
        bench.rig.resolver.fleet.set(level);
        let name = format!("level-{level}");
        let story = Story { name, arrival: Vec::new(), partitions: 0, by_order: true, gpc: Shop };
        let from = bench.end(0);
        bench.round([vec![story.event(Server), story.event(Shop)], Vec::new()], Crash::Never).await;
        let blocks = bench.rig.resolved.read(WORKSPACE, from, 16).await.unwrap();
        let events = bench.rig.resolved_from(from).await;
        let keys = events.iter().filter(|event| !event.commerce_key.is_empty()).count();
        let winners = events.iter().filter(|event| event.duplicate.is_none()).count();
        seen.push((blocks[0].header.feature_level, keys, winners));
    }
    assert_eq!(seen, [(1, 0, 2), (COMMERCE_LEVEL, 2, 1)]);
}
