//! One platform in trouble for minutes: the others do not notice, and afterwards it has everything, once.
//!
//! `OUTAGE_SECONDS` is the length of the outage; 20 where it is not set.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracklayer_sandbox::{Fault, How, Platform as AdPlatform};
use tracklayer_tests::batches::{in_state, publish};
use tracklayer_tests::{Options, Platform, eventually_within};

/// Orders of as many visitors.
const ORDERS: u64 = 400;
/// Orders in one request.
const BATCH: usize = 50;
/// Partitions of the workspace: Meta has a lane in each.
const LANES: u64 = 4;
/// The longest pause of a lane between two requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Everybody else is done well before a short outage ends.
const ON_TIME: Duration = Duration::from_secs(15);

fn outage() -> Duration {
    let seconds =
        std::env::var("OUTAGE_SECONDS").map_or(20, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

fn message_id(number: u64) -> String {
    format!("outage-{number}")
}

fn order(number: u64) -> Value {
    json!({
        "type": "track", "event": "Order Completed", "messageId": message_id(number),
        "anonymousId": format!("visitor-{number}"), "userId": format!("cust-{number}"),
        "properties": { "order_id": format!("O-{number}"), "revenue": 20, "currency": "USD" },
        "context": {
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
            "ip": "203.0.113.7", "page": { "url": "https://shop.northline.example/thank-you?ttclid=E.C.P.o" },
            "traits": { "email": format!("outage{number}@example.com") },
        },
    })
}

/// Most requests that four lanes with backoff can make in that time: the pauses double from 100 ms to [`LONGEST_PAUSE`], and
/// chance may shorten each to a tenth.
fn most_requests(time: Duration) -> u64 {
    let (mut spent, mut pause, mut requests) = (Duration::ZERO, Duration::from_millis(100), 1);
    while spent < time {
        spent += pause / 10;
        pause = (pause * 2).min(LONGEST_PAUSE);
        requests += 1;
    }
    requests * LANES
}

#[tokio::test]
async fn a_platform_in_trouble_holds_up_nobody_and_has_everything_once_afterwards() {
    let outage = outage();
    let platform = Platform::start(Options::default()).await.unwrap();
    let sandbox = platform.sandbox();
    let fault = Fault::Status { code: 500, body: None };
    let began = Instant::now();
    sandbox.inject(AdPlatform::Meta, fault, How::For(outage)).await.unwrap();
    let orders: Vec<Value> = (0..ORDERS).map(order).collect();
    publish(&platform, &orders, BATCH).await.unwrap();

    // The others, while Meta is in trouble.
    let others = ["google", "tiktok", "crm-webhook"];
    let stats = eventually_within(ON_TIME, "the other platforms to have everything", async || {
        let stats = platform.cli_json(&["stats"]).await?;
        let done = |name: &&str| in_state(&stats["connections"][name], "delivered") == ORDERS;
        if others.iter().all(done) { Ok(stats) } else { Err(anyhow::anyhow!("{stats:#}")) }
    })
    .await;
    let others_took = began.elapsed();
    assert!(
        others_took < outage,
        "the others were done after {others_took:?}, when the outage was over already"
    );
    let meta = &stats["connections"]["meta"];
    assert_eq!(in_state(meta, "delivered"), 0, "{meta:#}");
    assert_eq!(meta["waiting"].as_u64().unwrap() + in_state(meta, "held"), ORDERS, "{meta:#}");
    let health = meta["health"].as_str().unwrap();
    assert!(health.contains("transient"), "why it waits is told: {health}");

    // Meta, afterwards: the longest pause of a lane may only just have begun when the outage ends.
    let patience = outage + LONGEST_PAUSE + ON_TIME;
    eventually_within(patience, "Meta to have everything", async || {
        let stats = platform.cli_json(&["stats"]).await?;
        let meta = &stats["connections"]["meta"];
        let done = in_state(meta, "delivered") == ORDERS && meta["waiting"] == 0 && meta["health"] == "open";
        if done { Ok(()) } else { Err(anyhow::anyhow!("{meta:#}")) }
    })
    .await;
    let meta_took = began.elapsed();

    for ad_platform in [AdPlatform::Meta, AdPlatform::DataManager, AdPlatform::TikTok, AdPlatform::Webhook] {
        let counted = sandbox.counted(ad_platform).await.unwrap();
        let ids: BTreeSet<&str> = counted.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!((counted.len() as u64, ids.len() as u64), (ORDERS, ORDERS), "each once at {ad_platform}");
        let copies: u32 = counted.iter().map(|event| event.duplicates).sum();
        assert_eq!(copies, 0, "nothing went out twice to {ad_platform}");
    }
    let totals = &sandbox.totals().await.unwrap()[&AdPlatform::Meta];
    let (refused, bound) = (totals.faulted_requests, most_requests(outage));
    assert!((LANES..=bound).contains(&refused), "{refused} requests in the outage, bound {bound}");
    assert!(refused < ORDERS, "{refused} requests in the outage are a storm");
    println!(
        "outage {outage:?}: the others done after {others_took:?}, Meta after {meta_took:?}; \
         {refused} requests refused in between (bound {bound}), {} taken",
        totals.requests - refused
    );

    // One that was in a request of the outage: the circuit opens before every event was in one.
    let refused = sandbox.requests(usize::MAX).await.unwrap();
    let refused =
        refused.iter().find(|seen| seen.platform == AdPlatform::Meta && seen.fault.is_some()).unwrap();
    let carried = (0..ORDERS).map(message_id).find(|id| refused.body.contains(&format!("\"{id}\""))).unwrap();
    let story = platform.settled_story(&carried).await;
    let first = story.first();
    let attempts = first.at("meta").attempts;
    assert!(attempts >= 2, "the attempts are counted: {first:#?}");
    assert_eq!((first.at("meta").state.as_str(), first.at("tiktok").attempts), ("delivered", 1));
    let balance = platform.cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
}
