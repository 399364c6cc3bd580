//! The sample day over Kafka: five processes and a real broker. Delivery is killed in the middle of it, then the broker is;
//! afterwards the books are clean, and each platform has counted each event once.
//!
//! Where the machine has no Java the test says `SKIPPED` on standard error.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tracklayer_sandbox::{Fault, How, Platform as AdPlatform};
use tracklayer_testkit::TestKafka;
use tracklayer_tests::{Options, Platform, Processes, Role, SampleDay};

const SEED: u64 = 20_261_128;
const VISITORS: usize = 120;
const SECONDS: u32 = 24;
/// How late the platforms answer: what they have counted by then has no outcome yet when somebody is killed.
const SLOW: Duration = Duration::from_millis(200);
const PLATFORMS: [(&str, AdPlatform); 4] = [
    ("meta", AdPlatform::Meta),
    ("google", AdPlatform::DataManager),
    ("tiktok", AdPlatform::TikTok),
    ("crm-webhook", AdPlatform::Webhook),
];

fn over(broker: &TestKafka) -> Vec<(String, String)> {
    let prefix = format!("e2e-{}", uuid::Uuid::new_v4().simple());
    [
        ("JOURNAL", "kafka".to_owned()),
        ("KAFKA_BROKERS", broker.brokers()),
        ("KAFKA_PREFIX", prefix),
        ("KAFKA_REPLICATION", "1".to_owned()),
    ]
    .map(|(key, value)| (format!("TRACKLAYER_COMMON__{key}"), value))
    .to_vec()
}

/// One number from the database.
async fn number(processes: &Processes, statement: &'static str) -> i64 {
    let mut connection = PgConnection::connect(&processes.platform().addresses().database_url).await.unwrap();
    sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_over_kafka_with_delivery_and_the_broker_killed_loses_and_doubles_nothing() {
    let Some(mut broker) = tracklayer_testkit::own_kafka().await else { return };
    let options = Options { lease_ms: Some(1_000), environment: over(&broker), ..Options::default() };
    let mut processes = Platform::processes(options).await.unwrap();
    let sandbox = processes.platform().sandbox();
    for (_, platform) in PLATFORMS {
        sandbox.inject(platform, Fault::Slow(SLOW), How::Always).await.unwrap();
    }

    let mut day = SampleDay::start(processes.platform(), SEED, VISITORS, SECONDS).unwrap();
    day.until(|now| now.share() >= 0.15).await.unwrap();
    processes.kill(Role::Delivery).unwrap();
    day.until(|now| now.share() >= 0.2).await.unwrap();
    processes.start(Role::Delivery).await.unwrap();
    let before = day.until(|now| now.share() >= 0.4).await.unwrap();
    broker.kill();
    // Nothing can be acknowledged meanwhile, and the clients notice.
    day.until(|now| now.repeated_requests > before.repeated_requests).await.unwrap();
    broker.start_again().await;
    day.until(|now| now.share() >= 0.6).await.unwrap();
    processes.kill(Role::Ingest).unwrap();
    processes.start(Role::Ingest).await.unwrap();
    let day = day.end().await.unwrap();
    println!("requests that clients repeated: {}", day["repeated_requests"]);

    let balance = processes.platform().cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
    let accepted: u64 = day["counts"]["accepted"].as_object().unwrap().values().map(count).sum();
    assert!(accepted > 500, "{accepted} events are a day");
    assert_eq!(balance["received"], accepted, "stats and balance speak of the same events");
    let connections = day["counts"]["connections"].as_object().unwrap();
    for (name, platform) in PLATFORMS {
        let states = connections[name]["states"].as_array().unwrap();
        let delivered = states.iter().filter(|state| state["state"] == "delivered");
        let delivered: u64 = delivered.map(|state| count(&state["events"])).sum();
        let counted = sandbox.counted(platform).await.unwrap();
        assert_eq!(counted.len() as u64, delivered, "{name}: the ledger and the platform count the same");
        assert!(delivered > 0, "{name} has got nothing: {states:?}");
        let mut times: BTreeMap<(String, String), u32> = BTreeMap::new();
        counted.into_iter().for_each(|e| *times.entry((e.event_id, e.event_name)).or_default() += 1);
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{name} counted more than once: {twice:?}");
    }

    assert_eq!(
        number(&processes, "select count(*) from journal.received").await,
        0,
        "nothing went past Kafka"
    );
    assert_eq!(
        number(&processes, "select count(*) from delivery.resolved where payload is not null").await,
        0
    );
    let resolved = number(&processes, "select sum(event_count)::bigint from delivery.resolved").await;
    assert_eq!(resolved.cast_unsigned(), accepted);
    let generations =
        number(&processes, "select count(*) from delivery.resolve_cursor where generation <> 1").await;
    assert_eq!(generations, 0, "a restart of the broker is no change of its history");
}
