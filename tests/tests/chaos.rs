//! The sample day over five processes, each of which is killed in the middle of it and started again: what became of every
//! event is what becomes of it on a quiet day.
//!
//! `CHAOS_SEED` makes another day.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracklayer_sandbox::{Fault, How, Platform as AdPlatform, SandboxClient};
use tracklayer_tests::{Options, Platform, Processes, Role, SampleDay, eventually};

const VISITORS: usize = 160;
/// The platforms that the sample workspace sends to, with the name of the connection.
const PLATFORMS: [(&str, AdPlatform); 4] = [
    ("meta", AdPlatform::Meta),
    ("google", AdPlatform::DataManager),
    ("tiktok", AdPlatform::TikTok),
    ("crm-webhook", AdPlatform::Webhook),
];
/// Who is killed, after which share of the day. Delivery and ingest twice: they hold work in their hands.
const KILLS: [(f64, Role); 7] = [
    (0.08, Role::Delivery),
    (0.20, Role::Ingest),
    (0.30, Role::Consent),
    (0.42, Role::Identity),
    (0.54, Role::Control),
    (0.66, Role::Ingest),
    (0.76, Role::Delivery),
];
/// The share of the day that passes before it is started again.
const AWAY: f64 = 0.04;

/// How long the visitors of the disturbed day take to come, so that there is a middle to kill somebody in.
const SECONDS: u32 = 6;
/// How late the platforms answer on the disturbed day: what they have counted by then has no outcome yet.
const SLOW: Duration = Duration::from_millis(300);

fn seed() -> u64 {
    std::env::var("CHAOS_SEED").map_or(20_261_127, |text| text.parse().expect("a number"))
}

/// What became of a day.
#[derive(Debug)]
struct Outcome {
    /// Accepted over all sources.
    received: u64,
    /// Events per connection, state and reason; duplicates apart.
    states: BTreeMap<(String, String, String), u64>,
    /// Duplicates per connection.
    duplicates: BTreeMap<String, u64>,
    /// What each platform counted after its own dedup: id, name, value and currency, and how often.
    counted: BTreeMap<(String, String, String, String), u32>,
    /// Copies that the platforms dropped.
    copies: u64,
}

async fn start() -> Processes {
    Platform::processes(Options { lease_ms: Some(1_000), ..Options::default() }).await.unwrap()
}

async fn outcome(processes: &Processes, day: &Value) -> Outcome {
    let balance = processes.platform().cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
    let counts = &day["counts"];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {value}"));
    let mut outcome = Outcome {
        received: counts["accepted"].as_object().unwrap().values().map(number).sum(),
        states: BTreeMap::new(),
        duplicates: BTreeMap::new(),
        counted: BTreeMap::new(),
        copies: 0,
    };
    assert_eq!(balance["received"], outcome.received, "stats and balance speak of the same events");
    for (name, connection) in counts["connections"].as_object().unwrap() {
        for state in connection["states"].as_array().unwrap() {
            let word = |key: &str| state[key].as_str().unwrap().to_owned();
            let events = number(&state["events"]);
            match word("state").as_str() {
                "duplicate" => *outcome.duplicates.entry(name.clone()).or_default() += events,
                _ => drop(outcome.states.insert((name.clone(), word("state"), word("reason")), events)),
            }
        }
    }
    let sandbox = processes.platform().sandbox();
    for (name, platform) in PLATFORMS {
        let counted = sandbox.counted(platform).await.unwrap();
        let delivered: u64 = outcome
            .states
            .iter()
            .filter(|((c, s, _), _)| c == name && s == "delivered")
            .map(|(_, n)| n)
            .sum();
        assert_eq!(counted.len() as u64, delivered, "{name}: the ledger and the platform count the same");
        for event in counted {
            let value = format!("{} {}", event.value.unwrap_or_default(), event.currency.unwrap_or_default());
            let key = (name.to_owned(), event.event_id, event.event_name, value);
            *outcome.counted.entry(key).or_default() += 1;
            outcome.copies += u64::from(event.duplicates);
        }
    }
    let twice: Vec<_> = outcome.counted.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "counted more than once: {twice:?}");
    outcome
}

async fn quiet_day() -> Outcome {
    let processes = start().await;
    let day = SampleDay::start(processes.platform(), seed(), VISITORS, 0).unwrap();
    let counts = day.end().await.unwrap();
    outcome(&processes, &counts).await
}

async fn disturbed_day() -> Outcome {
    let mut processes = start().await;
    let sandbox = processes.platform().sandbox();
    for (_, platform) in PLATFORMS {
        sandbox.inject(platform, Fault::Slow(SLOW), How::Always).await.unwrap();
    }
    let mut day = SampleDay::start(processes.platform(), seed(), VISITORS, SECONDS).unwrap();
    for (share, role) in KILLS {
        let at = day.until(|now| now.share() >= share).await.unwrap();
        if role == Role::Delivery {
            a_request_is_under_way(&sandbox).await;
        }
        processes.kill(role).unwrap();
        // The day goes on without the role until somebody would notice.
        let back = day
            .until(|now| match role {
                Role::Ingest => now.repeated_requests > at.repeated_requests,
                _ => now.share() >= at.share() + AWAY,
            })
            .await
            .unwrap();
        processes.start(role).await.unwrap();
        let name = role.as_str();
        println!("killed {name} at {} of {} events, started it at {}", at.sent, at.planned, back.sent);
    }
    let counts = day.end().await.unwrap();
    println!("requests that clients repeated: {}", counts["repeated_requests"]);
    let outcome = outcome(&processes, &counts).await;
    assert!(
        counts["repeated_requests"].as_u64() > Some(0),
        "the clients noticed nothing: the kills hit nobody"
    );
    outcome
}

/// Waits until a platform has just counted something, whose answer is on its way for [`SLOW`] yet.
async fn a_request_is_under_way(sandbox: &SandboxClient) {
    let received = async || {
        let totals = sandbox.totals().await?;
        anyhow::Ok(totals.values().map(|platform| platform.events_received).sum::<u64>())
    };
    let before = received().await.unwrap();
    eventually("a request", async || match received().await? {
        now if now > before => Ok(()),
        now => Err(anyhow::anyhow!("{now} events received")),
    })
    .await;
}

/// Lines of one that the other does not have.
fn only_in<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) -> Vec<String> {
    one.iter().filter(|(key, value)| other.get(key) != Some(value)).map(|line| format!("{line:?}")).collect()
}

#[tokio::test]
async fn a_day_in_which_every_role_is_killed_ends_like_a_quiet_one() {
    let began = Instant::now();
    let quiet = quiet_day().await;
    let disturbed = disturbed_day().await;
    println!("received {} on the quiet day, {} on the disturbed one", quiet.received, disturbed.received);
    println!("copies that platforms dropped: {} and {}", quiet.copies, disturbed.copies);
    for ((connection, state, reason), events) in &disturbed.states {
        println!("{connection:12} {state:10} {reason:30} {events:6}");
    }

    let states = [only_in(&quiet.states, &disturbed.states), only_in(&disturbed.states, &quiet.states)];
    let counted = [only_in(&quiet.counted, &disturbed.counted), only_in(&disturbed.counted, &quiet.counted)];
    assert!(
        states.iter().chain(&counted).all(Vec::is_empty),
        "only on the quiet day, only on the disturbed one: {states:#?}\nat the platforms: {counted:#?}"
    );
    for (name, duplicates) in &disturbed.duplicates {
        let more = disturbed.received as i64 - quiet.received as i64;
        let expected = quiet.duplicates[name] as i64 + more;
        assert_eq!(*duplicates as i64, expected, "{name}: received and duplicates differ by the same number");
    }
    assert!(began.elapsed() < Duration::from_secs(600), "both days took {:?}", began.elapsed());
}
