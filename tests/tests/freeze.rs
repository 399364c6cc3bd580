//! A freeze of an hour: what it holds is foretold, goes out in order and at its pace when it ends, and holds up nobody else.
//!
//! The hour goes by at once: every process is shown a clock that is moved. `FREEZE_EVENTS` is how many events the freeze holds (2,000
//! where it is not set), `FREEZE_PACE` how many a second are released (500).

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracklayer_sandbox::{Counted, Platform as AdPlatform};
use tracklayer_tests::batches::{in_state, publish};
use tracklayer_tests::{Clock, Options, Platform, Running, eventually, eventually_within};

/// People whose orders they are.
const VISITORS: u64 = 97;
/// Orders in one request.
const BATCH: usize = 100;
/// One order of so many happened so long ago that Meta takes it before the hour and not after it.
const ONE_OLD_OF: u64 = 100;
/// Meta takes an event for so long. Source: Meta, Conversions API, "Server Event Parameters"; 2026-11.
const META_TAKES: SignedDuration = SignedDuration::from_hours(7 * 24);
const HOUR: Duration = Duration::from_secs(3_600);

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn message_id(number: u64) -> String {
    format!("freeze-{number:07}")
}

fn is_old(number: u64) -> bool {
    number % ONE_OLD_OF == 7
}

fn order(number: u64, now: Timestamp) -> Value {
    let visitor = number % VISITORS;
    // The old ones expire in the middle of the freeze.
    let age = if is_old(number) {
        META_TAKES - SignedDuration::from_mins(30)
    } else {
        SignedDuration::from_secs(60)
    };
    json!({
        "type": "track", "event": "Order Completed", "messageId": message_id(number),
        "anonymousId": format!("freeze-visitor-{visitor}"), "userId": format!("freeze-cust-{visitor}"),
        "timestamp": (now - age).to_string(),
        "properties": { "order_id": format!("F-{number}"), "revenue": 20, "currency": "USD" },
        "context": {
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
            "ip": "203.0.113.7", "page": { "url": "https://shop.northline.example/thank-you" },
            "traits": { "email": format!("freeze{visitor}@example.com") },
        },
    })
}

fn orders(count: u64, now: Timestamp) -> Vec<Value> {
    (0..count).map(|number| order(number, now)).collect()
}

/// What `connections held` says of Meta.
async fn forecast(platform: &Running) -> Value {
    platform.cli_json(&["connections", "held", "meta"]).await.unwrap()[0].clone()
}

/// Numbers of each visitor's orders, in the order in which Meta got them.
fn by_visitor(counted: &[Counted]) -> BTreeMap<u64, Vec<u64>> {
    let mut orders: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for event in counted {
        let number: u64 = event.event_id.strip_prefix("freeze-").unwrap().parse().unwrap();
        orders.entry(number % VISITORS).or_default().push(number);
    }
    orders
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_freeze_is_foretold_and_released_in_order_at_its_pace() {
    let (events, pace) = (from_environment("FREEZE_EVENTS", 2_000), from_environment("FREEZE_PACE", 500));
    let clock = Clock::start().unwrap();
    let options = Options { variables: clock.variables(), ..Options::default() };
    let platform = Platform::start(options).await.unwrap();
    let sandbox = platform.sandbox();
    platform.cli(&["connections", "pace", "meta", "--events-per-second", &pace.to_string()]).await.unwrap();

    // From five minutes ago on, for an hour from now.
    let now = Timestamp::now();
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let on_clocks = |after: SignedDuration| {
        (now + after).to_zoned(berlin.clone()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
    };
    let (from, to) = (on_clocks(SignedDuration::from_mins(-5)), on_clocks(SignedDuration::from_hours(1)));
    let window =
        ["--time-zone", "Europe/Berlin", "--from", &from, "--to", &to, "--reason", "peak of the year"];
    let added =
        platform.cli_json(&[&["connections", "freeze", "add", "meta"][..], &window].concat()).await.unwrap();
    eventually("Meta to be frozen", async || {
        let meta = platform.cli_json(&["stats"]).await?["connections"]["meta"].clone();
        let frozen = meta["health"].as_str().unwrap_or_default().starts_with("frozen: until ");
        if frozen { Ok(()) } else { Err(anyhow::anyhow!("{meta:#}")) }
    })
    .await;

    publish(&platform, &orders(events, now), BATCH).await.unwrap();
    let patience = Duration::from_secs(60 + events / 200);
    eventually_within(patience, "the webhook, which is not frozen, to have everything", async || {
        let hook = platform.cli_json(&["stats"]).await?["connections"]["crm-webhook"].clone();
        if in_state(&hook, "delivered") == events { Ok(()) } else { Err(anyhow::anyhow!("{hook:#}")) }
    })
    .await;

    // Foretold, while it holds.
    let told = forecast(&platform).await;
    let expected: BTreeSet<String> = (0..events).filter(|number| is_old(*number)).map(message_id).collect();
    let named: BTreeSet<String> = told["expiring_events"]
        .as_array()
        .unwrap()
        .iter()
        .inspect(|event| assert_eq!(event["code"], "event_too_old"))
        .map(|event| event["message_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        (&told["hold"], &told["waiting"], &told["not_resolved"]),
        (&json!("frozen"), &json!(events), &json!(0))
    );
    assert_eq!(told["expiring"], json!(expected.len()));
    assert_eq!(named, expected, "those that will be too old are named");
    let ends: Timestamp = told["freeze_ends"].as_str().unwrap().parse().unwrap();
    assert!((ends.as_second() - (now + SignedDuration::from_hours(1)).as_second()).abs() <= 1);
    assert!(sandbox.counted(AdPlatform::Meta).await.unwrap().is_empty(), "nothing went out");
    let story = platform.story(&message_id(1)).await.unwrap();
    let meta = story.first().at("meta");
    assert_eq!((meta.state.as_str(), meta.reason.as_str()), ("held", "frozen"), "{meta:#?}");
    assert!(meta.detail.contains("peak of the year"), "{}", meta.detail);
    let balance = platform.cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");

    // An hour later.
    let released = Instant::now();
    clock.advance(HOUR).unwrap();
    let sent = events - expected.len() as u64;
    let patience = Duration::from_secs(120 + 2 * events / pace);
    eventually_within(patience, "everything to be released", async || {
        let meta = platform.cli_json(&["stats"]).await?["connections"]["meta"].clone();
        let done = in_state(&meta, "delivered") == sent && meta["waiting"] == 0;
        if done { Ok(()) } else { Err(anyhow::anyhow!("{meta:#}")) }
    })
    .await;
    let took = released.elapsed();

    let counted = sandbox.counted(AdPlatform::Meta).await.unwrap();
    let ids: BTreeSet<String> = counted.iter().map(|event| event.event_id.clone()).collect();
    let wanted: BTreeSet<String> = (0..events).filter(|number| !is_old(*number)).map(message_id).collect();
    assert_eq!(counted.len() as u64, sent);
    assert!(ids == wanted, "each that is not too old, once");
    for (visitor, numbers) in by_visitor(&counted) {
        assert!(numbers.is_sorted(), "the orders of visitor {visitor} came as {numbers:?}");
    }
    // A second's worth may go at once at the beginning, and lanes that have caught up leave their part unused.
    let arrivals: Vec<i64> = counted.iter().map(|event| event.arrived_at_ms).collect();
    let busiest = (0..arrivals.len())
        .map(|place| arrivals[place..].iter().take_while(|at| **at - arrivals[place] < 1_000).count());
    let busiest = busiest.max().unwrap() as u64;
    let span = Duration::from_millis((arrivals.iter().max().unwrap() - arrivals[0]).cast_unsigned());
    let least = Duration::from_millis(sent.saturating_sub(2 * pace) * 1_000 / pace);
    assert!(busiest <= 2 * pace + pace / 4, "{busiest} within a second, at a pace of {pace}");
    assert!(span >= least, "{sent} events within {span:?}, at {pace} a second");

    // The others are dead for what was foretold.
    let meta = platform.cli_json(&["stats"]).await.unwrap()["connections"]["meta"].clone();
    assert_eq!(in_state(&meta, "dead"), expected.len() as u64);
    let too_old =
        meta["states"].as_array().unwrap().iter().filter(|state| state["reason"] == "event_too_old");
    assert_eq!(too_old.map(|state| state["events"].as_u64().unwrap()).sum::<u64>(), expected.len() as u64);
    let old = expected.first().unwrap();
    assert_eq!(platform.story(old).await.unwrap().first().at("meta").reason, "event_too_old");
    let balance = platform.cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
    println!(
        "{events} events held for an hour, window {}: {} named beforehand and dead, {sent} released in order in {span:?} \
         ({took:?} with the wait for the look), at most {busiest} within a second at a pace of {pace}",
        added[0]["freeze_id"],
        expected.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_a_connection_and_resumes_it() {
    /// The first of the orders, of which none is old.
    const FRESH: u64 = 7;
    let platform = Platform::start(Options::default()).await.unwrap();
    platform.cli(&["connections", "pause", "tiktok", "--reason", "a new pixel"]).await.unwrap();
    eventually("TikTok to be paused", async || {
        let health = platform.cli_json(&["stats"]).await?["connections"]["tiktok"]["health"].clone();
        let paused = health.as_str().unwrap_or_default().starts_with("paused: by operator `");
        if paused { Ok(()) } else { Err(anyhow::anyhow!("{health}")) }
    })
    .await;
    publish(&platform, &orders(FRESH, Timestamp::now()), BATCH).await.unwrap();
    eventually("Meta, which is not paused, to have everything", async || {
        let meta = platform.cli_json(&["stats"]).await?["connections"]["meta"].clone();
        if in_state(&meta, "delivered") == FRESH { Ok(()) } else { Err(anyhow::anyhow!("{meta:#}")) }
    })
    .await;
    let held = platform.cli_json(&["connections", "held"]).await.unwrap();
    let tiktok = held.as_array().unwrap().iter().find(|held| held["connection"] == "tiktok").unwrap();
    assert_eq!(
        (&tiktok["hold"], &tiktok["waiting"], &tiktok["expiring"]),
        (&json!("paused"), &json!(FRESH), &json!(0))
    );
    let table = platform.cli(&["connections", "held", "tiktok"]).await.unwrap();
    assert!(table.contains("paused, by operator `"), "{table}");
    // In a month even what is fresh now would be too old.
    let in_a_month = (Timestamp::now() + SignedDuration::from_hours(30 * 24)).to_string();
    let late = platform.cli_json(&["connections", "held", "tiktok", "--until", &in_a_month]).await.unwrap();
    assert_eq!(late[0]["expiring"], late[0]["to_send"], "{late:#}");

    platform.cli(&["connections", "resume", "tiktok"]).await.unwrap();
    platform.settled().await;
    let pauses = platform.cli_json(&["connections", "pauses", "tiktok"]).await.unwrap();
    assert_eq!(pauses[0]["reason"], "a new pixel");
    assert_ne!(pauses[0]["resumed_by"], "", "{pauses:#}");
}
