//! The twin audit: who came first, who had no twin, what was a repeat; exact, wherever resolve crashes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::migrate::Migrator;
use tracklayer_delivery::store::twins::TwinStore;
use tracklayer_delivery::subjects;
use tracklayer_delivery::twins::{OfPair, OfSource, TwinAudit, Twins};
use tracklayer_ids::{Position, SourceId};
use tracklayer_proto::event::v1::{Event, EventType};

use super::orders::{Bench, Crash};
use crate::services::WORKSPACE;

const BROWSER: i64 = 1;
const SERVER: i64 = 2;
const APP: i64 = 3;
/// These three claim by the order, too.
const BROWSER_BY_ORDER: i64 = 4;
const SERVER_BY_ORDER: i64 = 5;
const SHOP_BY_ORDER: i64 = 6;

fn sent(source: i64, message_id: &str, order: &str) -> Event {
    Event {
        message_id: message_id.to_owned(),
        r#type: EventType::Track.into(),
        name: "Order Completed".to_owned(),
        source_id: source,
        // Somebody new, whom identity has to look for.
        user_id: format!("user-{source}-{message_id}"),
        properties_json: serde_json::json!({ "order_id": order }).to_string().into(),
        received_at: Some(subjects::proto_time(jiff::Timestamp::now())),
        ..Event::default()
    }
}

async fn audit(bench: &Bench) -> TwinAudit {
    let store = TwinStore::new(bench.rig.services.database.pool.clone());
    TwinAudit::of(&store.window(WORKSPACE, 0..i64::MAX).await.unwrap())
}

/// The audit says what can be seen of the resolved events themselves.
pub async fn check(bench: &Bench) {
    let resolved = bench.resolved_since([0, 0]).await;
    let sources: HashMap<Position, i64> =
        resolved.values().map(|(at, event)| (*at, event.source_id)).collect();
    let mut twins: HashSet<(Position, i64)> = HashSet::new();
    let mut alone: BTreeMap<i64, HashSet<Position>> = BTreeMap::new();
    for (at, event) in resolved.values() {
        let Some(first) = event.duplicate else {
            alone.entry(event.source_id).or_default().insert(*at);
            continue;
        };
        let first = Position::new(first.generation, first.partition, first.offset);
        if sources[&first] != event.source_id {
            twins.insert((first, event.source_id));
        }
    }
    let mut pairs: BTreeMap<(i64, i64), u64> = BTreeMap::new();
    for (first, second) in &twins {
        *pairs.entry((sources[first], *second)).or_default() += 1;
        alone.entry(sources[first]).or_default().remove(first);
    }
    let audit = audit(bench).await;
    let told: BTreeMap<(i64, i64), u64> = audit
        .pairs
        .iter()
        .map(|pair| ((pair.first.0, pair.second.0), pair.by_message_id + pair.by_order))
        .collect();
    assert!(pairs.len() > 6, "sources send twins of each other's: {pairs:?}");
    assert_eq!(told, pairs);
    for source in &audit.sources {
        let alone = alone.get(&source.source.0).map_or(0, |alone| alone.len() as u64);
        assert_eq!(source.alone, alone, "{source:?}");
    }
}

fn of(source: i64, figures: [u64; 6]) -> OfSource {
    let [events, first, second, alone, repeats, further] = figures;
    OfSource { source: SourceId(source), events, first, second, alone, repeats, further }
}

fn pair(first: i64, second: i64, by_message_id: u64, by_order: u64) -> OfPair {
    OfPair { first: SourceId(first), second: SourceId(second), by_message_id, by_order }
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_are_counted_once_for_each_winner_and_source_wherever_resolve_crashes() {
    let mut bench = Bench::start().await;
    // The first claims open the dedup store's history.
    bench.round([vec![sent(APP, "first", "")], Vec::new()], Crash::Never).await;
    for (runs, crash) in (1u64..).zip(Crash::ALL) {
        let event = |source: i64, id: &str| sent(source, &format!("{id}-{crash:?}"), "");
        let order = |source: i64, id: &str, order: &str| {
            sent(source, &format!("{id}-{crash:?}"), &format!("{order}-{crash:?}"))
        };
        let rounds = [
            [
                vec![
                    event(BROWSER, "both"),
                    event(BROWSER, "twice"),
                    event(BROWSER, "alone"),
                    order(BROWSER_BY_ORDER, "pixel", "A"),
                ],
                vec![
                    event(SERVER, "server"),
                    event(SERVER, "server-alone"),
                    order(BROWSER_BY_ORDER, "same", "B"),
                ],
            ],
            [
                vec![
                    event(BROWSER, "server"),
                    event(SERVER, "both"),
                    event(SERVER, "both"),
                    event(BROWSER, "twice"),
                ],
                vec![
                    event(APP, "both"),
                    order(SERVER_BY_ORDER, "order", "A"),
                    order(SERVER_BY_ORDER, "same", "B"),
                ],
            ],
            [
                vec![order(SHOP_BY_ORDER, "shop", "A")],
                vec![event(SERVER, "both"), order(SERVER_BY_ORDER, "later", "A")],
            ],
        ];
        for round in rounds {
            bench.round(round, crash).await;
        }
        let audit = audit(&bench).await;
        let sources = [
            of(BROWSER, [4, 1, 1, 2, 1, 0]),
            of(SERVER, [3, 1, 1, 1, 0, 2]),
            of(APP, [1, 0, 1, 0, 0, 0]),
            of(BROWSER_BY_ORDER, [2, 2, 0, 0, 0, 0]),
            of(SERVER_BY_ORDER, [2, 0, 2, 0, 0, 1]),
            of(SHOP_BY_ORDER, [1, 0, 1, 0, 0, 0]),
        ];
        let expected = sources.map(|of| OfSource {
            // The very first event.
            events: of.events * runs + u64::from(of.source.0 == APP),
            first: of.first * runs,
            second: of.second * runs,
            alone: of.alone * runs + u64::from(of.source.0 == APP),
            repeats: of.repeats * runs,
            further: of.further * runs,
            ..of
        });
        assert_eq!(audit.sources, expected, "{crash:?}");
        let pairs = [
            pair(BROWSER, SERVER, 1, 0),
            pair(BROWSER, APP, 1, 0),
            pair(SERVER, BROWSER, 1, 0),
            pair(BROWSER_BY_ORDER, SERVER_BY_ORDER, 1, 1),
            pair(BROWSER_BY_ORDER, SHOP_BY_ORDER, 0, 1),
        ];
        let expected = pairs.map(|pair| OfPair {
            by_message_id: pair.by_message_id * runs,
            by_order: pair.by_order * runs,
            ..pair
        });
        assert_eq!(audit.pairs, expected, "{crash:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_is_no_event_without_a_twin() {
    const DAY: i64 = 24 * 60;
    let database = tracklayer_testkit::database(&[
        ("journal", &tracklayer_journal::MIGRATOR),
        ("delivery", &tracklayer_delivery::MIGRATOR),
    ])
    .await;
    for statement in [
        "insert into delivery.resolve_cursor (workspace_id, partition, generation, next_offset) values (1, 0, 1, 8)",
        "insert into delivery.rollup values (1, 0, 0, 0, 1, 0, '', 2), (1, 0, 0, 0, 2, 0, '', 2),
             (1, 0, 0, 1440, 1, 0, '', 2), (1, 0, 0, 1440, 2, 0, '', 2)",
        "insert into delivery.twin_count values (1, 0, 0, 1, 2, false, 2, 2, 2), (1, 0, 1440, 1, 2, false, 2, 2, 2)",
    ] {
        sqlx::query(statement).execute(&database.pool).await.unwrap();
    }
    let twins = Twins { store: TwinStore::new(database.pool.clone()), kept_days: 2 };
    let told = async || {
        let window = twins.store.window(WORKSPACE, 0..10 * DAY).await.unwrap();
        (window.minutes.start, TwinAudit::of(&window).sources)
    };
    let minute = |minute: i64| jiff::Timestamp::from_second(minute * 60).unwrap();
    twins.forget(minute(2 * DAY)).await.unwrap();
    assert_eq!(told().await, (0, vec![of(1, [4, 4, 0, 0, 0, 0]), of(2, [4, 0, 4, 0, 0, 0])]));
    twins.forget(minute(3 * DAY)).await.unwrap();
    assert_eq!(told().await, (DAY, vec![of(1, [2, 2, 0, 0, 0, 0]), of(2, [2, 0, 2, 0, 0, 0])]));
    twins.forget(minute(2 * DAY)).await.unwrap();
    assert_eq!(told().await.0, DAY, "the clock of another process may be late");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_anything_was_counted_is_left_out() {
    let database = tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await;
    let all = &tracklayer_delivery::MIGRATOR;
    let before = Migrator {
        migrations: Cow::Owned(all.iter().filter(|migration| migration.version < 18).cloned().collect()),
        ignore_missing: all.ignore_missing,
        locking: all.locking,
        no_tx: all.no_tx,
        table_name: all.table_name.clone(),
        create_schemas: all.create_schemas.clone(),
    };
    tracklayer_postgres::migrate(&database.pool, "delivery", &before).await.unwrap();
    for statement in [
        "insert into delivery.resolve_cursor (workspace_id, partition, generation, next_offset) values (1, 0, 1, 2)",
        "insert into delivery.rollup
         values (1, 0, 0, floor(extract(epoch from now()) / 60)::bigint, 1, 0, '', 2)",
    ] {
        sqlx::query(statement).execute(&database.pool).await.unwrap();
    }
    tracklayer_postgres::migrate(&database.pool, "delivery", all).await.unwrap();
    let store = TwinStore::new(database.pool.clone());
    let told = async || TwinAudit::of(&store.window(WORKSPACE, 0..i64::MAX).await.unwrap()).sources;
    assert!(told().await.is_empty(), "their twins were counted by nobody");
    // Two minutes later.
    sqlx::query("update delivery.rollup set minute = minute + 2").execute(&database.pool).await.unwrap();
    assert_eq!(told().await, [of(1, [2, 0, 0, 2, 0, 0])]);
}
