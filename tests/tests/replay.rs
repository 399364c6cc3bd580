//! Replays: dead letters after a mend, with the delivery process killed in the middle; what was delivered; and the past of a connection
//! that began late. Each event is counted once at the platform, under the id that it always had, and the books balance.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracklayer_sandbox::{Fault, How, Platform as AdPlatform};
use tracklayer_tests::{Clock, Options, Platform, Role, Running, eventually, eventually_within};

/// Orders that die, of as many visitors.
const ORDERS: u64 = 240;
/// One order of so many is nearly as old as Meta takes.
const ONE_OLD_OF: u64 = 40;
/// Whose browser opts out before the replay.
const OPTED_OUT: u64 = 5;
/// Meta takes an event for so long. Source: Meta, Conversions API, "Server Event Parameters"; 2026-11.
const META_TAKES: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What a purchase is worth by a setting that no event of these has.
const WRONG: &str = "wholesale_price";

fn message_id(number: u64) -> String {
    format!("replay-{number:05}")
}

fn is_old(number: u64) -> bool {
    number % ONE_OLD_OF == 7
}

fn order(id: &str, visitor: &str, timestamp: Timestamp) -> Value {
    json!({
        "type": "track", "event": "Order Completed", "messageId": id, "anonymousId": visitor,
        "timestamp": timestamp.to_string(),
        "properties": { "order_id": format!("O-{id}"), "revenue": 20, "currency": "USD" },
        "context": {
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
            "ip": "203.0.113.7", "page": { "url": "https://shop.northline.example/thank-you" },
            "traits": { "email": format!("{visitor}@example.com") },
        },
    })
}

async fn publish(platform: &Running, events: &[Value], gpc: bool) {
    let http = reqwest::Client::new();
    for batch in events.chunks(60) {
        let mut request = http
            .post(format!("{}/v1/batch", platform.addresses().ingest_http))
            .basic_auth(platform.write_key("web-us"), Some(""))
            .json(&json!({ "batch": batch }));
        if gpc {
            request = request.header("Sec-GPC", "1");
        }
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer, json!({ "success": true }));
    }
}

/// Puts a connection's document.
async fn put(platform: &Running, name: &str, document: &Value) {
    let file = platform.data_dir().join(format!("{name}.json"));
    std::fs::write(&file, document.to_string()).unwrap();
    platform.cli(&["connections", "put", name, file.to_str().unwrap()]).await.unwrap();
}

async fn document_of(platform: &Running, name: &str) -> Value {
    let connections = platform.cli_json(&["connections", "list"]).await.unwrap();
    let one = connections.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    one["document"].clone()
}

/// Sends orders until one is what is wanted of them at Meta: from then on every lane goes by the connection's new state.
async fn meta_says(platform: &Running, state: &str) -> u64 {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let mut sent = 0;
    loop {
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("probe-{number}");
        publish(platform, &[order(&id, &id, Timestamp::now())], false).await;
        sent += 1;
        if platform.settled_story(&id).await.first().at("meta").state == state {
            return sent;
        }
        assert!(sent < 50, "Meta never says {state}");
    }
}

fn in_state(stats: &Value, connection: &str, state: &str) -> u64 {
    let states = stats["connections"][connection]["states"].as_array().unwrap();
    states.iter().filter(|s| s["state"] == state).map(|s| s["events"].as_u64().unwrap()).sum()
}

async fn balances(platform: &Running) {
    let balance = platform.cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
}

fn told(replay: &Value, list: &str, key: &str, word: &str) -> u64 {
    let rows = replay[list].as_array().unwrap();
    rows.iter().filter(|row| row[key] == word).map(|row| row["events"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_mended_planned_and_delivered_once_though_delivery_is_killed_in_the_middle() {
    let clock = Clock::start().unwrap();
    let options = Options { variables: clock.variables(), lease_ms: Some(2_000), ..Options::default() };
    let mut processes = Platform::processes(options).await.unwrap();
    let sandbox = processes.platform().sandbox();

    // Meta's purchases are worth what no event says.
    let right = document_of(processes.platform(), "meta").await;
    let mut wrong = right.clone();
    wrong["value_from"] = json!([WRONG]);
    put(processes.platform(), "meta", &wrong).await;
    meta_says(processes.platform(), "dead").await;
    let now = Timestamp::now();
    let events: Vec<Value> = (0..ORDERS)
        .map(|number| {
            let age = if is_old(number) {
                META_TAKES - SignedDuration::from_mins(30)
            } else {
                SignedDuration::from_mins(1)
            };
            order(&message_id(number), &format!("visitor-{number}"), now - age)
        })
        .collect();
    publish(processes.platform(), &events, false).await;
    processes.platform().settled().await;
    let before = processes.platform().cli_json(&["stats"]).await.unwrap();
    let dead = in_state(&before, "meta", "dead");
    let delivered = in_state(&before, "meta", "delivered");
    assert!(dead > ORDERS, "{before:#}");

    // Meanwhile somebody opts out, and an hour passes.
    let opts_out = order("opts-out", &format!("visitor-{OPTED_OUT}"), Timestamp::now());
    publish(processes.platform(), &[opts_out], true).await;
    processes.platform().settled_story("opts-out").await;
    clock.advance(Duration::from_secs(3_600)).unwrap();

    // Not mended, a plan says so; mended, it says what will be.
    let planning = ["replay", "plan", "meta", "--dead-letters"];
    let unmended = processes.platform().cli_json(&planning).await.unwrap();
    assert_eq!(unmended["counts"]["eligible"], 0, "{unmended:#}");
    put(processes.platform(), "meta", &right).await;
    let old: BTreeSet<String> = (0..ORDERS).filter(|number| is_old(*number)).map(message_id).collect();
    let eligible = dead - 1 - old.len() as u64;
    let planned = eventually("the plan to know of the mend", async || {
        let plan = processes.platform().cli_json(&planning).await?;
        if plan["counts"]["eligible"] == eligible { Ok(plan) } else { Err(anyhow::anyhow!("{plan:#}")) }
    })
    .await;
    assert_eq!(planned["counts"]["expired"], old.len(), "{planned:#}");
    assert_eq!(planned["counts"]["consent_withdrawn"], 1, "{planned:#}");
    let named: BTreeSet<String> = planned["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["what"] == "expired")
        .map(|event| event["message_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, old, "who is too old is named");
    let dry = ["replay", "start", "meta", "--dead-letters", "--dry-run"];
    processes.platform().cli(&dry).await.unwrap();
    let nobody = ["replay", "start", "meta", "--dead-letters"];
    let refused = processes.platform().cli(&nobody).await.unwrap_err().to_string();
    assert!(refused.contains("add --yes"), "{refused}");
    let listed = processes.platform().cli_json(&["replay", "list"]).await.unwrap();
    assert_eq!(listed, json!([]), "nothing was started");

    // Killed while requests are on the wire.
    sandbox.inject(AdPlatform::Meta, Fault::Slow(Duration::from_secs(600)), How::Always).await.unwrap();
    let start = ["replay", "start", "meta", "--dead-letters", "--code", "missing_value", "--yes", "--detach"];
    let started = processes.platform().cli_json(&start).await.unwrap();
    let number = started["replay_id"].to_string();
    let had = sandbox.counted(AdPlatform::Meta).await.unwrap().len();
    eventually("requests of the replay at Meta", async || {
        let counted = sandbox.counted(AdPlatform::Meta).await?.len();
        if counted > had { Ok(()) } else { Err(anyhow::anyhow!("{counted}")) }
    })
    .await;
    processes.kill(Role::Delivery).unwrap();
    sandbox.clear(AdPlatform::Meta).await.unwrap();
    processes.start(Role::Delivery).await.unwrap();
    let status = ["replay", "status", &number];
    let done = eventually_within(Duration::from_secs(90), "the replay's end", async || {
        let replay = processes.platform().cli_json(&status).await?;
        if replay["state"] == "done" { Ok(replay) } else { Err(anyhow::anyhow!("{replay:#}")) }
    })
    .await;
    assert_eq!(told(&done, "found", "what", "eligible"), eligible, "{done:#}");
    assert_eq!(told(&done, "found", "what", "expired"), old.len() as u64, "{done:#}");
    assert_eq!(told(&done, "found", "what", "consent_withdrawn"), 1, "{done:#}");
    assert_eq!(told(&done, "ended", "state", "delivered"), eligible, "{done:#}");
    assert_ne!(done["asked_by"], "", "{done:#}");

    let platform = processes.platform();
    let counted = sandbox.counted(AdPlatform::Meta).await.unwrap();
    let ids: BTreeSet<&str> = counted.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!(ids.len(), counted.len(), "each is counted once");
    assert_eq!(counted.len() as u64, delivered + eligible);
    for number in 0..ORDERS {
        let sent = !is_old(number) && number != OPTED_OUT;
        assert_eq!(ids.contains(message_id(number).as_str()), sent, "{number}");
    }
    let again: u32 = counted.iter().map(|event| event.duplicates).sum();
    assert!(again > 0, "what was on the wire went out again under its id");
    let stats = platform.cli_json(&["stats"]).await.unwrap();
    assert_eq!(in_state(&stats, "meta", "delivered"), delivered + eligible, "{stats:#}");
    assert_eq!(in_state(&stats, "meta", "dead"), dead - eligible, "{stats:#}");
    balances(platform).await;
    let shown = platform.cli_json(&["events", "show", &message_id(1)]).await.unwrap();
    let deliveries = shown["occurrences"][0]["deliveries"].as_array().unwrap();
    let meta = deliveries.iter().find(|delivery| delivery["connection"] == "meta").unwrap();
    assert_eq!((&meta["state"], &meta["replays"][0]["state_before"]), (&json!("delivered"), &json!("dead")));
    assert_eq!(meta["replays"][0]["reason_before"], "missing_value", "{meta:#}");

    // Two days later Meta would not know them again.
    clock.advance(Duration::from_secs(50 * 3_600)).unwrap();
    let id = message_id(1);
    let again = ["replay", "start", "meta", "--journal", "--message-id", &id, "--yes"];
    let nothing = platform.cli_json(&again).await.unwrap();
    assert_eq!(nothing["counts"]["already_delivered"], 1, "{nothing:#}");
    let forced = platform.cli(&[&again[..], &["--force"]].concat()).await.unwrap_err().to_string();
    assert!(forced.contains("--force-past-dedup-window sends them all the same"), "{forced}");
    let past = platform.cli(&[&again[..], &["--force", "--force-past-dedup-window"]].concat()).await.unwrap();
    assert!(past.contains("done"), "{past}");
    balances(platform).await;

    // What nobody will send any more is closed, and stays dead in the books.
    let listing = ["dead-letters", "list", "--connection", "meta", "--limit", "1000"];
    let listed = platform.cli_json(&listing).await.unwrap().as_array().unwrap().len();
    assert!(listed > 1, "the expired ones at least");
    let close = ["dead-letters", "close", "meta", "--code", "missing_value"];
    let counted_first = platform.cli_json(&close).await.unwrap();
    assert_eq!(counted_first, json!({ "selected": listed, "closed": 0 }));
    assert_eq!(platform.cli_json(&listing).await.unwrap().as_array().unwrap().len(), listed, "only counted");
    let other = ["dead-letters", "close", "meta", "--code", "no_such_code", "--yes"];
    assert_eq!(platform.cli_json(&other).await.unwrap(), json!({ "selected": 0, "closed": 0 }));
    let closed = platform.cli_json(&[&close[..], &["--yes"]].concat()).await.unwrap();
    assert_eq!(closed, json!({ "selected": listed, "closed": listed }));
    assert_eq!(platform.cli_json(&listing).await.unwrap(), json!([]));
    let stats = platform.cli_json(&["stats"]).await.unwrap();
    assert_eq!(in_state(&stats, "meta", "dead"), dead - eligible, "{stats:#}");
    balances(platform).await;
    println!(
        "{dead} dead letters: {eligible} delivered once (of which {again} copies more were recognised by Meta after the kill), {} \
         expired, 1 withdrawn",
        old.len(),
        again = counted.iter().map(|event| event.duplicates).sum::<u32>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_began_late_gets_its_past_once() {
    const EVENTS: u64 = 150;
    let platform = Platform::start(Options::default()).await.unwrap();
    let events: Vec<Value> = (0..EVENTS)
        .map(|number| order(&message_id(number), &format!("visitor-{number}"), Timestamp::now()))
        .collect();
    publish(&platform, &events, false).await;
    platform.settled().await;
    let mut late = document_of(&platform, "crm-webhook").await;
    late["settings"]["url"] = json!(format!("{}/webhook/late", platform.addresses().sandbox));
    late["settings"]["secret"] = json!(tracklayer_sandbox::options::WEBHOOK_SECRET);
    put(&platform, "late", &late).await;
    let planned = eventually("delivery to know the new connection", async || {
        let plan = platform.cli_json(&["replay", "plan", "late", "--journal"]).await?;
        if plan["before_start"] == EVENTS { Ok(plan) } else { Err(anyhow::anyhow!("{plan:#}")) }
    })
    .await;
    assert_eq!(planned["counts"]["eligible"], 0, "{planned:#}");
    let backfill = ["replay", "start", "late", "--journal", "--before-start", "--yes"];
    let done = platform.cli_json(&backfill).await.unwrap();
    assert_eq!(told(&done, "ended", "state", "delivered"), EVENTS, "{done:#}");
    let counted = platform.sandbox().counted(AdPlatform::Webhook).await.unwrap();
    let late: Vec<_> = counted.iter().filter(|event| event.identity == "late").collect();
    let ids: BTreeSet<&str> = late.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!((late.len() as u64, ids.len() as u64), (EVENTS, EVENTS), "each once");
    assert_eq!(late.iter().map(|event| event.duplicates).sum::<u32>(), 0);
    let stats = platform.cli_json(&["stats"]).await.unwrap();
    assert_eq!(in_state(&stats, "late", "delivered"), EVENTS);
    balances(&platform).await;
    // What comes from now on goes the usual way.
    publish(&platform, &[order("afterwards", "somebody", Timestamp::now())], false).await;
    let story = platform.settled_story("afterwards").await;
    assert_eq!(story.first().at("late").state, "delivered");
    balances(&platform).await;
}
