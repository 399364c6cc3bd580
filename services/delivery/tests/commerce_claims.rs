//! Claims of two keys against a real Redis and PostgreSQL: who is whose duplicate, a Redis that forgets, a log that does.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use redis::aio::ConnectionManager;
use tracklayer_delivery::dedup::{Claimed, Dedup, DedupError, Memory, Reuse, Wanted};
use tracklayer_delivery::lease::{Duty, Lease, LeaseKeeper};
use tracklayer_delivery::resolve::message_hash;
use tracklayer_delivery::store::cursors::CursorStore;
use tracklayer_delivery::store::dedup_generation::DedupGenerationStore;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::leases::LeaseStore;
use tracklayer_delivery::store::resolved::{ResolvedCommit, ResolvedStore};
use tracklayer_delivery::store::twins::TwinRows;
use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::claim::{CommerceClaim, claim_key};
use tracklayer_journal::{BlockBuilder, Kind, Record};
use tracklayer_proto::event::v1::{Duplicate, Event, EventType, ResolvedEvent};
use tracklayer_testkit::{TestDatabase, TestRedis};

const WORKSPACE: WorkspaceId = WorkspaceId(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// Its commerce events claim a second key; it is remembered for an hour.
const SHOP: i64 = 1;
/// Likewise, for five hours.
const BROWSER: i64 = 2;
/// Goes by the message_id.
const PORTAL: i64 = 3;
const OF_ANOTHER_ORDER: Claimed = Claimed::WinnerOfReusedId(Reuse::OtherOrder);

fn memory() -> Memory {
    Memory::default()
        .with(WORKSPACE, SourceId(SHOP), HOUR)
        .with(WORKSPACE, SourceId(BROWSER), 5 * HOUR)
        .with(WORKSPACE, SourceId(PORTAL), HOUR)
        .with_orders(WORKSPACE, SourceId(SHOP))
        .with_orders(WORKSPACE, SourceId(BROWSER))
}

struct Bench {
    database: TestDatabase,
    connection: ConnectionManager,
    dedup: Dedup,
    cursors: CursorStore,
    lease: Lease,
    _redis: TestRedis,
}

fn track(name: &str, source: i64, message_id: &str, properties: &str) -> Event {
    Event {
        message_id: message_id.to_owned(),
        r#type: EventType::Track.into(),
        name: name.to_owned(),
        source_id: source,
        properties_json: properties.to_owned().into(),
        ..Event::default()
    }
}

/// A purchase; without an order if that is empty.
fn order(source: i64, message_id: &str, order: &str) -> Event {
    let properties = if order.is_empty() { "{}".to_owned() } else { format!(r#"{{"order_id":"{order}"}}"#) };
    track("Order Completed", source, message_id, &properties)
}

fn refund(message_id: &str, order: &str, refund: &str) -> Event {
    let properties = format!(r#"{{"order_id":"{order}","refund_id":"{refund}"}}"#);
    track("Order Refunded", SHOP, message_id, &properties)
}

fn at(offset: u64) -> Position {
    Position::new(1, 0, offset)
}

fn of(offset: u64) -> Claimed {
    Claimed::DuplicateOf(at(offset))
}

impl Bench {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let redis = tracklayer_testkit::redis().await;
        let connection =
            ConnectionManager::new(redis::Client::open(redis.url.as_str()).unwrap()).await.unwrap();
        let pool = database.pool.clone();
        let generations = DedupGenerationStore::new(pool.clone());
        let dedup = Dedup::new(connection.clone(), generations, ResolvedStore::new(Index::new(pool.clone())))
            .beside_a_log_that_may_change();
        let cursors = CursorStore::beside(pool.clone(), Kind::Kafka);
        cursors.resolve(WORKSPACE, Partition(0)).await.unwrap();
        let mut keeper = LeaseKeeper::new(LeaseStore::new(pool), Duration::from_secs(600));
        let duties = [Duty::resolve(WORKSPACE, Partition(0))].into();
        let lease = keeper.round(&duties).await.unwrap().taken.remove(0);
        Self { database, connection, dedup, cursors, lease, _redis: redis }
    }

    async fn claim_by(&self, memory: &Memory, claims: &[(&Event, Position)]) -> Vec<Claimed> {
        let wanted: Vec<Wanted<'_>> =
            claims.iter().map(|(event, at)| Wanted::by(memory, WORKSPACE, event, *at).0).collect();
        loop {
            match self.dedup.claim(WORKSPACE, &wanted, memory).await {
                Ok(answers) => return answers.claimed,
                Err(DedupError::HistoryChanged) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn claim(&self, claims: &[(&Event, Position)]) -> Vec<Claimed> {
        self.claim_by(&memory(), claims).await
    }

    async fn claim_one(&self, event: &Event, offset: u64) -> Claimed {
        self.claim(&[(event, at(offset))]).await.remove(0)
    }

    /// Claims events at the positions from 0 on, and commits what became of them.
    async fn resolve(&self, events: &[Event]) -> Vec<Claimed> {
        let claims: Vec<(&Event, Position)> = events.iter().zip((0..).map(at)).collect();
        let answers = self.claim(&claims).await;
        let memory = memory();
        let mut builder = BlockBuilder::default();
        for ((event, position), answer) in claims.iter().zip(&answers) {
            let duplicate = match answer {
                Claimed::DuplicateOf(first) => Some(Duplicate {
                    generation: first.generation.0,
                    partition: first.partition.0,
                    offset: first.offset.0,
                }),
                Claimed::Winner | Claimed::WinnerOfReusedId(_) => None,
            };
            let winner = duplicate.is_none();
            let resolved = ResolvedEvent {
                event: if winner { event.encode_to_vec().into() } else { Bytes::new() },
                duplicate,
                message_id: event.message_id.clone(),
                source_id: event.source_id,
                reused_id: answer.reuse().is_some(),
                commerce_key: Wanted::by(&memory, WORKSPACE, event, *position).1,
                ..ResolvedEvent::default()
            };
            builder.push(SourceId(event.source_id), 1, &resolved.encode_to_vec());
        }
        let block = builder.finish().unwrap();
        let (generation,): (i64,) = sqlx::query_as("select generation from delivery.dedup_generation")
            .fetch_one(&self.database.pool)
            .await
            .unwrap();
        let commit = ResolvedCommit {
            first: at(0),
            block: &block,
            message_hashes: events.iter().map(|event| message_hash(&event.message_id)).collect(),
            dedup_generation: generation,
            reused: Vec::new(),
            twins: TwinRows::new(),
        };
        ResolvedStore::new(Index::new(self.database.pool.clone()))
            .commit(&self.lease, &commit)
            .await
            .unwrap();
        answers
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &str, arguments: &[&[u8]]) -> T {
        let mut redis = self.connection.clone();
        redis::cmd(command).arg(arguments).query_async(&mut redis).await.unwrap()
    }

    /// What a log does that loses everything from a position on.
    async fn lose_from(&self, offset: u64) {
        let begins = Record { offset: 0, step: 0, mark: None };
        self.cursors.open_generation(&self.lease, at(offset), begins).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_by_either_key_is_a_duplicate_of_the_same_winner() {
    let bench = Bench::new().await;
    let (browser, webhook) = (order(BROWSER, "m-1", "A"), order(SHOP, "shop-1", "A"));
    assert_eq!(bench.claim(&[(&browser, at(0)), (&webhook, at(1))]).await, [Claimed::Winner, of(0)]);
    assert_eq!(bench.claim_one(&order(BROWSER, "m-1", "A"), 2).await, of(0), "by both");
    assert_eq!(bench.claim_one(&order(SHOP, "shop-1", ""), 3).await, of(0), "by the id of a duplicate");
    assert_eq!(bench.claim_one(&order(PORTAL, "shop-1", "A"), 4).await, of(0), "from another source");
    assert_eq!(bench.claim_one(&order(SHOP, "shop-2", "A"), 5).await, of(0), "by the order alone");
    assert_eq!(bench.claim_one(&order(PORTAL, "p-1", "A"), 6).await, Claimed::Winner, "it goes by its id");
    assert_eq!(bench.claim_one(&browser, 0).await, Claimed::Winner, "a crash is no duplicate of itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_brings_the_order_teaches_it_to_one_that_had_none() {
    let bench = Bench::new().await;
    let copies = [order(BROWSER, "m-1", ""), order(SHOP, "m-1", "A"), order(SHOP, "shop-1", "A")];
    let claims: Vec<(&Event, Position)> = copies.iter().zip((0..).map(at)).collect();
    assert_eq!(bench.claim(&claims).await, [Claimed::Winner, of(0), of(0)]);
    assert_eq!(bench.claim_one(&copies[0], 0).await, Claimed::Winner);
    assert_eq!(bench.claim_one(&order(SHOP, "m-1", "B"), 3).await, OF_ANOTHER_ORDER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_is_no_duplicate_of_its_purchase_nor_of_the_next_part() {
    let bench = Bench::new().await;
    let cancelled = track("Order Cancelled", SHOP, "m-5", r#"{"order_id":"A"}"#);
    let parts = track("Order Refunded", SHOP, "m-6", r#"{"order_id":"A"}"#);
    let more = track("Order Refunded", SHOP, "m-7", r#"{"order_id":"A"}"#);
    let first = refund("m-2", "A", "R-1");
    let events = [&order(SHOP, "m-1", "A"), &first, &refund("m-3", "A", "R-2"), &cancelled, &parts, &more];
    let claims: Vec<(&Event, Position)> = events.into_iter().zip((0..).map(at)).collect();
    assert_eq!(bench.claim(&claims).await, [Claimed::Winner; 6]);
    assert_eq!(bench.claim_one(&refund("m-8", "A", "R-1"), 9).await, of(1), "the same refund, told again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_two_orders_is_reused_and_not_a_duplicate() {
    let bench = Bench::new().await;
    let events = [
        order(SHOP, "1", "A"),
        order(SHOP, "1", "B"),
        order(SHOP, "1", "C"),
        order(SHOP, "1", "B"),
        order(BROWSER, "m-2", "B"),
        order(BROWSER, "1", "A"),
        refund("1", "A", "R-1"),
    ];
    let claims: Vec<(&Event, Position)> = events.iter().zip((0..).map(at)).collect();
    let (reused, of_another_event) = (OF_ANOTHER_ORDER, Claimed::WinnerOfReusedId(Reuse::OtherEvent));
    let expected = [Claimed::Winner, reused, reused, of(1), of(1), of(0), of_another_event];
    assert_eq!(bench.claim(&claims).await, expected);
    // As after a crash.
    let mine = [0, 1, 2, 6].map(|n| claims[n]);
    assert_eq!(bench.claim(&mine).await, [Claimed::Winner, reused, reused, of_another_event]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_both_keys_have_their_winner_the_message_id_decides() {
    let bench = Bench::new().await;
    let events = [order(BROWSER, "m-1", ""), order(SHOP, "shop-1", "A"), order(SHOP, "m-1", "A")];
    let claims: Vec<(&Event, Position)> = events.iter().zip((0..).map(at)).collect();
    assert_eq!(bench.claim(&claims).await, [Claimed::Winner, Claimed::Winner, of(0)]);
    assert_eq!(bench.claim_one(&order(SHOP, "shop-2", "A"), 3).await, of(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_claimed_before_its_source_went_by_orders_is_its_own_winner() {
    let bench = Bench::new().await;
    let (event, webhook) = (order(SHOP, "m-1", "A"), order(SHOP, "shop-1", "A"));
    let before = Memory::default().with(WORKSPACE, SourceId(SHOP), HOUR);
    assert_eq!(bench.claim_by(&before, &[(&event, at(0))]).await, [Claimed::Winner]);
    assert_eq!(bench.claim_one(&event, 0).await, Claimed::Winner);
    assert_eq!(bench.claim_one(&webhook, 1).await, of(0), "it has claimed the order by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_by_orders_stays_so_when_its_source_goes_by_the_message_id_again() {
    let bench = Bench::new().await;
    let (event, webhook) = (order(SHOP, "m-1", "A"), order(SHOP, "shop-1", "A"));
    assert_eq!(bench.claim(&[(&event, at(0)), (&webhook, at(1))]).await, [Claimed::Winner, of(0)]);
    let since = Memory::default().with(WORKSPACE, SourceId(SHOP), HOUR);
    let again = [(&event, at(0)), (&webhook, at(1))];
    assert_eq!(bench.claim_by(&since, &again).await, [Claimed::Winner, of(0)], "as after a crash");
    let later = [order(SHOP, "m-1", "A"), order(SHOP, "shop-1", ""), order(SHOP, "shop-2", "A")];
    let claims: Vec<(&Event, Position)> = later.iter().zip((2..).map(at)).collect();
    assert_eq!(bench.claim_by(&since, &claims).await, [of(0), of(0), Claimed::Winner]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_memory_is_that_of_claims_from_then_on() {
    let bench = Bench::new().await;
    let remembered = |ttl: Duration| {
        let memory = Memory::default().with(WORKSPACE, SourceId(SHOP), ttl);
        memory.with(WORKSPACE, SourceId(PORTAL), ttl).with_orders(WORKSPACE, SourceId(SHOP))
    };
    // Raised, and lowered.
    for (base, before, after) in [(0, HOUR, 24 * HOUR), (10, 24 * HOUR, HOUR)] {
        let pair = |name: &str| {
            let by_order = order(SHOP, &format!("s-{name}-{base}"), &format!("{name}-{base}"));
            [by_order, order(PORTAL, &format!("p-{name}-{base}"), "")]
        };
        let (old, new) = (pair("old"), pair("new"));
        let won = [Claimed::Winner; 2];
        let places = |from: u64| [at(base + from), at(base + from + 1)];
        let [first, second] = places(0);
        assert_eq!(bench.claim_by(&remembered(before), &[(&old[0], first), (&old[1], second)]).await, won);
        let [third, fourth] = places(2);
        let again = bench.claim_by(&remembered(after), &[(&old[0], third), (&old[1], fourth)]).await;
        assert_eq!(again, [of(base), of(base + 1)]);
        let [fifth, sixth] = places(4);
        assert_eq!(bench.claim_by(&remembered(after), &[(&new[0], fifth), (&new[1], sixth)]).await, won);
        for (name, ttl) in [("old", before), ("new", after)] {
            let (shops, portals) = (format!("s-{name}-{base}"), format!("p-{name}-{base}"));
            let of_order = format!("order_completed:{name}-{base}");
            let second = CommerceClaim::of(WORKSPACE, &of_order, &shops).key();
            for key in [claim_key(WORKSPACE, &shops), second, claim_key(WORKSPACE, &portals)] {
                let left: u64 = bench.ask("TTL", &[&key]).await;
                assert!((ttl.as_secs() - 600..=ttl.as_secs()).contains(&left), "{name}-{base}: {left} s");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_keys_last_as_long_as_the_longest_source_that_claims_so() {
    let bench = Bench::new().await;
    bench.claim(&[(&order(SHOP, "m-1", "A"), at(0)), (&order(SHOP, "m-2", ""), at(1))]).await;
    let second = CommerceClaim::of(WORKSPACE, "order_completed:A", "m-1").key();
    let keys = [claim_key(WORKSPACE, "m-1"), second, claim_key(WORKSPACE, "m-2")];
    let mut left: Vec<u64> = Vec::new();
    for key in &keys {
        left.push(bench.ask("TTL", &[key]).await);
    }
    let five_hours = 5 * HOUR.as_secs();
    assert!(left[..2].iter().all(|left| (five_hours - 600..=five_hours).contains(left)), "{left:?}");
    assert!(left[2] <= HOUR.as_secs(), "without an order, its own source's: {left:?}");
}

/// How often each command was called.
async fn calls(bench: &Bench) -> BTreeMap<String, u64> {
    let stats: String = bench.ask("INFO", &[b"commandstats"]).await;
    let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    lines.map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_orders_takes_one_round_trip_even_if_redis_has_forgotten_the_script() {
    let bench = Bench::new().await;
    bench.claim_one(&order(SHOP, "first", ""), 0).await;
    let events: Vec<Event> = (0..300)
        .map(|n| order(if n % 3 == 0 { PORTAL } else { SHOP }, &format!("m-{n}"), &format!("A-{n}")))
        .collect();
    for base in [1_000, 2_000] {
        let _: () = bench.ask("SCRIPT", &[b"FLUSH"]).await;
        let before = calls(&bench).await;
        let claims: Vec<(&Event, Position)> = events.iter().zip((base..).map(at)).collect();
        let answers = bench.claim(&claims).await;
        let after = calls(&bench).await;
        let more = |name: &str| after[name] - before.get(name).copied().unwrap_or_default();
        assert_eq!((more("exec"), more("evalsha")), (1, 200));
        let winners = answers.iter().filter(|answer| **answer == Claimed::Winner).count();
        assert_eq!(winners, if base == 1_000 { 300 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_gives_both_keys_back_and_what_duplicates_taught() {
    let bench = Bench::new().await;
    let events = [
        order(BROWSER, "m-1", "A"),
        // Its id is the first's, too.
        order(SHOP, "shop-1", "A"),
        // A twin that comes before the one that teaches it: by an id that is an order's only by the next.
        order(BROWSER, "m-2", ""),
        order(SHOP, "m-2", "B"),
        order(SHOP, "shop-2", "B"),
        // Reused.
        order(SHOP, "m-1", "C"),
        refund("m-3", "A", "R-1"),
    ];
    let (won, reused) = (Claimed::Winner, OF_ANOTHER_ORDER);
    assert_eq!(bench.resolve(&events).await, [won, of(0), won, of(2), of(2), reused, won]);
    let _: () = bench.ask("FLUSHALL", &[]).await;

    let later = [
        (order(SHOP, "new-1", "A"), of(0)),
        (order(SHOP, "shop-1", ""), of(0)),
        (order(SHOP, "new-2", "B"), of(2)),
        (order(PORTAL, "shop-2", ""), of(2)),
        (order(SHOP, "m-2", "D"), reused),
        (order(SHOP, "m-1", "C"), of(5)),
        (order(BROWSER, "new-3", "C"), of(5)),
        (refund("new-4", "A", "R-1"), of(6)),
        (refund("new-5", "A", "R-2"), won),
        (events[0].clone(), of(0)),
    ];
    let claims: Vec<(&Event, Position)> =
        later.iter().zip((100..).map(at)).map(|((event, _), at)| (event, at)).collect();
    let expected: Vec<Claimed> = later.iter().map(|(_, answer)| *answer).collect();
    assert_eq!(bench.claim(&claims).await, expected);
    let second = CommerceClaim::of(WORKSPACE, "order_completed:A", "m-1").key();
    let left: u64 = bench.ask("TTL", &[&second]).await;
    assert!(left > 4 * HOUR.as_secs(), "by the longest source: {left} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_finds_what_was_taught_before_its_teacher() {
    let bench = Bench::new().await;
    // In `resolved` the pupil stands first, as in another partition: it is an order's only by the event behind it.
    let events = [order(SHOP, "shop-1", "A"), order(SHOP, "m-1", "A"), order(BROWSER, "m-1", "")];
    bench.claim(&[(&events[2], at(2)), (&events[1], at(1)), (&events[0], at(0))]).await;
    bench.resolve(&events).await;
    let _: () = bench.ask("FLUSHALL", &[]).await;
    assert_eq!(bench.claim_one(&order(SHOP, "shop-1", ""), 9).await, of(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_keys_of_a_lost_event_are_taken_over_by_one_and_a_kept_one_keeps_its_own() {
    let bench = Bench::new().await;
    let kept = [order(BROWSER, "m-1", "A"), order(SHOP, "shop-1", "A")];
    bench.resolve(&kept).await;
    let lost = order(BROWSER, "m-2", "B");
    assert_eq!(
        bench.claim(&[(&lost, at(2)), (&order(SHOP, "shop-2", "B"), at(3))]).await,
        [Claimed::Winner, of(2)]
    );
    bench.lose_from(2).await;

    let later = |offset| Position::new(2, 0, offset);
    let answers = bench
        .claim(&[
            (&order(SHOP, "shop-1", ""), later(0)),
            (&order(SHOP, "shop-9", "A"), later(1)),
            (&order(SHOP, "shop-3", "B"), later(2)),
            (&order(SHOP, "shop-2", "B"), later(3)),
            (&lost, later(4)),
        ])
        .await;
    let again = Claimed::DuplicateOf(later(2));
    assert_eq!(answers, [of(0), of(0), Claimed::Winner, again, again]);
    assert_eq!(bench.claim(&[(&order(SHOP, "shop-3", "B"), later(2))]).await, [Claimed::Winner]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_find_an_order_void_one_wins() {
    let bench = Bench::new().await;
    assert_eq!(bench.claim_one(&order(SHOP, "lost", "A"), 5).await, Claimed::Winner);
    bench.lose_from(0).await;
    let events: Vec<Event> = (0..16)
        .map(|n| order(SHOP, &if n % 2 == 0 { "lost".to_owned() } else { format!("m-{n}") }, "A"))
        .collect();
    let claims: Vec<[(&Event, Position); 1]> =
        events.iter().zip(0..).map(|(event, n)| [(event, Position::new(1, 1, n))]).collect();
    let answers = futures::future::join_all(claims.iter().map(|claim| bench.claim(claim))).await;
    let winners: Vec<Claimed> =
        answers.into_iter().flatten().filter(|answer| *answer == Claimed::Winner).collect();
    assert_eq!(winners, [Claimed::Winner]);
}
