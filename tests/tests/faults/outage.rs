//! Ten minutes in which no platform works. Time goes by faster, see the other file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tracklayer_sandbox::{Fault, How};
use tracklayer_tests::{Clock, Options, Platform, eventually};

use crate::bench::{Bench, KINDS, Kind};
use crate::{Hurry, order};

pub const OUTAGE: Duration = Duration::from_secs(600);
/// Orders, half of them before the outage is a minute old and half after five.
const ORDERS: u64 = 400;
/// Partitions: so many lanes each connection has.
pub const LANES: u32 = 4;
/// Most requests that a circuit lets through in ten minutes, beside the first wave of each lane: it is open for half of 1, 2, 4, 8, 16, 32
/// seconds at least, then for half a minute.
pub const TRIES: u64 = 6 + (600 - 31) / 30;
/// Requests of all lanes that are under way when the first of them fail: a webhook's lane sends four at once.
pub const UNDER_WAY: u64 = 4 * 4;
/// How long it may take until everything is delivered: until the open circuit's time has come, a minute at most, and to send what waits,
/// which takes seconds of the test's that count tenfold.
pub const RECOVERS: Duration = Duration::from_secs(240);

fn message_id(number: u64) -> String {
    format!("outage-{number:04}")
}

async fn publish(bench: &Bench, orders: std::ops::Range<u64>) {
    let events: Vec<_> =
        orders.map(|number| order(&message_id(number), SignedDuration::from_secs(60))).collect();
    bench.publish(&events).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_storms_in_an_outage_of_ten_minutes() {
    let clock = Arc::new(Clock::start().unwrap());
    let options = Options { variables: clock.variables(), lease_ms: Some(60_000), ..Options::default() };
    let bench = Bench::create(Platform::start(options).await.unwrap(), LANES).await.unwrap();
    let before = bench.counts().await.unwrap();
    for kind in KINDS {
        let fault = Fault::Status { code: 503, body: None };
        bench.sandbox().inject(kind.platform(), fault, How::Always).await.unwrap();
    }
    let began = clock.now();
    publish(&bench, 0..ORDERS / 2).await;
    let hurry = Hurry::up(Arc::clone(&clock));
    let age = || clock.now().duration_since(began).unwrap();
    while age() < OUTAGE / 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let health = bench.health().await.unwrap();
    for (kind, health) in &health {
        assert!(health.contains("503") && health.contains("the circuit is open"), "{kind:?}: {health}");
    }
    publish(&bench, ORDERS / 2..ORDERS).await;
    while age() < OUTAGE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let during = bench.counts().await.unwrap();
    for kind in KINDS {
        bench.sandbox().clear(kind.platform()).await.unwrap();
    }
    let after = bench.rest(&before, ORDERS).await;
    let recovered = age() - OUTAGE;
    drop(hurry);

    let mut attempts: BTreeMap<Kind, u64> = BTreeMap::new();
    for number in 0..ORDERS {
        let story = bench.story(&message_id(number)).await.unwrap().unwrap();
        for (kind, delivery) in story {
            *attempts.entry(kind).or_default() += u64::from(delivery.attempts);
        }
    }
    println!(
        "| connector | requests in the outage | attempts of {ORDERS} events, in all | delivered |\n| --- | ---: | ---: | ---: |"
    );
    for kind in KINDS {
        let requests = during[&kind].since(&before[&kind]).requests;
        let delivered =
            after[&kind].since(&before[&kind]).states.get(&("delivered".to_owned(), String::new())).copied();
        println!("| {} | {requests} | {} | {} |", kind.title(), attempts[&kind], delivered.unwrap_or(0));
        assert!(attempts[&kind] < 2 * ORDERS, "{kind:?}: {} attempts are a storm", attempts[&kind]);
        // It is looked for, too: not once and never again.
        assert!((8..=UNDER_WAY + TRIES).contains(&requests), "{kind:?}: {requests} requests in the outage");
        assert_eq!(delivered, Some(ORDERS), "{kind:?}: {:?}", after[&kind]);
    }
    println!("everything was delivered {recovered:?} after the outage of {OUTAGE:?}");
    assert!(recovered < RECOVERS, "it took {recovered:?} to find out and to catch up");
    eventually("every connection to be open", async || {
        let health = bench.health().await?;
        if health.values().all(|health| health == "open") {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{health:?}"))
        }
    })
    .await;
    let balance = bench.platform.cli_json(&["ledger", "balance", "--workspace", "faults"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
}
