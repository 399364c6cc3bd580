//! Microseconds that one core needs for an event on its way into a request: its JSON parsed once, its person and products read
//! and normalised once for all platforms, its item built for each kind of connection on top of that, and the request put together.
//! Figures are for 500 purchases of about 1 KB with people of their own, who tell their e-mail, telephone number, name and address.
//!
//! `cargo bench -p tracklayer-destination --bench requests` ends with a table of what has a limit, and whether all is within it. It
//! only tells: a machine that does something else meanwhile is no fault of the code.
#![allow(clippy::unwrap_used)] // a bench may stop here

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_destination::{Consent, Deliverable, Destination, Item, Kind, preview};
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::{ClickIds, Event};

// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: usize = 500;
/// Most microseconds that what is normalised once may cost an event, and each kind's payload on top of it.
const LIMIT: f64 = 5.0;

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn purchase(n: usize) -> Event {
    let product = |i: usize| {
        json!({
            "product_id": format!("p-{n}-{i}"), "sku": format!("SKU{n}"), "name": format!("harbour wool maple {i}"),
            "price": 12.5, "quantity": 1 + i, "category": "linen",
        })
    };
    let event = json!({
        "type": "track", "event": "Order Completed", "messageId": format!("message-{n}-0123456789abcdef"),
        "anonymousId": format!("anonymous-{n}-0123456789"), "userId": format!("u-{n}"),
        "timestamp": "2026-11-23T11:59:00Z",
        "integrations": { "Google Analytics 4": { "clientId": format!("{n:010}.1700000000") } },
        "properties": {
            "order_id": format!("o-{n}"), "revenue": 25.9, "total": 30.8, "currency": "USD", "coupon": "WELCOME",
            "products": [product(0), product(1)],
        },
        "context": {
            "ip": format!("203.0.113.{}", n % 250),
            "userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36",
            "page": { "url": format!("https://shop.example.com/p{n}?fbclid=fb{n}abcdefgh&gclid=gc{n}abcdefgh") },
            "library": { "name": "analytics.js", "version": "npm:next-1.84.3" },
            "traits": {
                "email": format!("Person{n}@Example.com"), "phone": format!("(650) 253-{n:04}"),
                "firstName": "Amber", "lastName": "O'Willow",
                "address": {
                    "street": "1600 Harbour Lane", "city": "Mountain View", "state": "California", "postalCode": "94043",
                    "country": "US",
                },
            },
            "locale": "en-US",
        },
    });
    preview::parse(event, now()).unwrap()
}

/// A connection of every kind. Each sends all that it may say of a person.
fn destinations() -> Vec<(&'static str, Box<dyn Destination>)> {
    let documents = [
        json!({
            "kind": "meta_capi", "mode": "live",
            "settings": { "dataset_id": "1234567890123456", "access_token": "t" },
        }),
        json!({
            "kind": "google_data_manager", "mode": "live",
            "settings": {
                "operating_account": { "account_id": "1234567890" }, "conversion_action_id": "987654321",
                "oauth": { "client_id": "c", "client_secret": "s", "refresh_token": "r" },
            },
        }),
        json!({
            "kind": "google_ads", "mode": "live",
            "settings": {
                "customer_id": "1234567890", "conversion_action_id": "987654321",
                "oauth": { "client_id": "c", "client_secret": "s", "refresh_token": "r" },
            },
        }),
        json!({
            "kind": "tiktok_events", "mode": "live",
            "settings": { "event_source_id": "C0123456789", "access_token": "t" },
        }),
        json!({
            "kind": "ga4_mp", "mode": "live",
            "settings": { "measurement_id": "G-ABCDEF0123", "api_secret": "s", "send_user_data": true },
        }),
        json!({
            "kind": "webhook", "mode": "live",
            "settings": { "url": "https://hooks.example.com/events", "secret": "s" },
        }),
        json!({
            "kind": "warehouse", "mode": "live",
            "settings": {
                "url": "s3://northline-lake/events", "access_key_id": "k", "secret_access_key": "s",
            },
        }),
    ];
    assert_eq!(documents.len(), Kind::ALL.len(), "every kind is measured");
    documents
        .iter()
        .map(|document: &Value| {
            let opened = tracklayer_destination::open(document, &Default::default()).unwrap();
            (opened.kind().as_str(), opened)
        })
        .collect()
}

/// A connection that takes its value, its order ids and a custom field from expressions.
fn mapped() -> Box<dyn Destination> {
    let document = json!({
        "kind": "meta_capi", "mode": "live",
        "settings": { "dataset_id": "1234567890123456", "access_token": "t" },
        "fields": {
            "value": "round(properties.revenue * 0.35, 2)",
            "order_id": "\"shop-\" + properties.order_id",
            "custom_data.basket": "properties.products.map(p, p.price * p.quantity).sum() > 20 ? \"large\" : \"small\"",
        },
    });
    tracklayer_destination::open(&document, &Default::default()).unwrap()
}

/// A connection with a filter, which says yes.
fn filtered() -> Box<dyn Destination> {
    let document = json!({
        "kind": "meta_capi", "mode": "live",
        "settings": { "dataset_id": "1234567890123456", "access_token": "t" },
        "filter": "type == \"track\" && properties.currency in [\"EUR\", \"USD\"] && properties.revenue > 10",
    });
    tracklayer_destination::open(&document, &Default::default()).unwrap()
}

fn deliverable(event: &Event) -> Deliverable {
    Deliverable::new(
        event.clone(),
        ClickIds::default(),
        "00112233445566778899aabbccddeeff",
        Consent::Allow,
        None,
    )
}

fn requests(c: &mut Criterion) {
    let events: Vec<Event> = (0..EVENTS).map(purchase).collect();
    let mut group = c.benchmark_group("500 events");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("parse", |b| {
        b.iter_with_large_drop(|| events.iter().map(deliverable).collect::<Vec<_>>());
    });
    let parsed: Vec<Deliverable> = events.iter().map(deliverable).collect();
    let token = Secret::new("token".to_owned());
    for (kind, destination) in destinations() {
        // Nobody has read the event before: what is read and normalised for all is part of this.
        group.bench_function(format!("first build, for {kind}"), |b| {
            b.iter_batched_ref(
                || events.iter().map(deliverable).collect::<Vec<_>>(),
                |events| {
                    for event in events {
                        black_box(destination.build(black_box(event), now()).unwrap());
                    }
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("build for {kind}"), |b| {
            b.iter(|| {
                for event in &parsed {
                    black_box(destination.build(black_box(event), now()).unwrap());
                }
            });
        });
        let items: Vec<Item> = parsed.iter().map(|e| destination.build(e, now()).unwrap()).collect();
        // A file is not put together here but by its lane.
        if destination.files().is_some() {
            continue;
        }
        let items: Vec<&Item> = items.iter().collect();
        let most = destination.limits().max_events;
        group.bench_function(format!("assemble for {kind}"), |b| {
            b.iter(|| {
                for request in items.chunks(most) {
                    black_box(destination.assemble(black_box(request), Some(&token)));
                }
            });
        });
    }
    group.finish();
}

/// Rounds of which the quickest counts: what else the machine does only ever adds time.
const ROUNDS: usize = 600;
/// Events of a round: a core's own cache holds them, so that a figure tells of the work and not of what others do to the memory.
const OF_A_ROUND: usize = 50;

/// The quickest of several rounds, in microseconds per event.
fn quickest(mut round: impl FnMut() -> Duration) -> f64 {
    per_event((0..ROUNDS).map(|_| round()).min().unwrap())
}

fn per_event(round: Duration) -> f64 {
    round.as_secs_f64() * 1e6 / OF_A_ROUND as f64
}

fn time<T>(act: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    black_box(act());
    begun.elapsed()
}

fn build_all(destination: &dyn Destination, events: &[Deliverable]) {
    // Reading the clock's text is no part of it.
    let now = now();
    for event in events {
        black_box(destination.build(black_box(event), now).unwrap());
    }
}

/// A row that has no limit of its own.
fn row(what: &str, microseconds: f64) {
    println!("{what:<58} {microseconds:>6.2}");
}

/// A row that has one; answers whether it is within it.
fn limited(what: &str, microseconds: f64) -> bool {
    println!("{what:<58} {microseconds:>6.2} {LIMIT:>6.2}");
    microseconds <= LIMIT
}

/// What one purchase costs: what is read and normalised once for every kind, which the first builds of an event have on top of any
/// later ones, and each kind's payload on top of that. Each platform's forms of a person are normalised once for all of its connections,
/// those that are the same at another platform only there.
fn report() {
    let events: Vec<Event> = (0..OF_A_ROUND).map(purchase).collect();
    let fresh = || events.iter().map(deliverable).collect::<Vec<_>>();
    let all = destinations();
    let read = fresh();
    all.iter().for_each(|(_, destination)| build_all(&**destination, &read));
    println!("\nmicroseconds for one purchase on one core, the quickest of {ROUNDS} rounds of {OF_A_ROUND}:");
    row("JSON parsed, once", quickest(|| time(fresh)));
    for (kind, destination) in &all {
        let first = quickest(|| {
            let events = fresh();
            time(|| build_all(&**destination, &events))
        });
        let later = quickest(|| time(|| build_all(&**destination, &read)));
        row(&format!("read and normalised, were {kind} alone"), (first - later).max(0.0));
    }
    let (mapped, filtered) = (mapped(), filtered());
    build_all(&*mapped, &read);
    row("payload for meta_capi, three expressions", quickest(|| time(|| build_all(&*mapped, &read))));
    let ask = |destination: &dyn Destination| {
        quickest(|| {
            time(|| read.iter().for_each(|event| assert!(destination.wants(black_box(event)).is_ok())))
        })
    };
    let plain = ask(&*all[0].1);
    row("whether meta_capi wants it", plain);
    row("a filter of three terms on top", ask(&*filtered) - plain);
    // One kind after the other on the same events: what an earlier one has read is there for a later one. Each builds once more at once,
    // so that a machine that is slower for a while is so for both.
    let (mut firsts, mut laters) = (vec![Duration::MAX; all.len()], vec![Duration::MAX; all.len()]);
    for _ in 0..ROUNDS {
        let events = fresh();
        for (index, (_, destination)) in all.iter().enumerate() {
            firsts[index] = firsts[index].min(time(|| build_all(&**destination, &events)));
            laters[index] = laters[index].min(time(|| build_all(&**destination, &events)));
        }
    }
    let first = firsts.into_iter().map(per_event).sum::<f64>();
    let payloads: Vec<f64> = laters.into_iter().map(per_event).collect();
    row(&format!("all of it for {} kinds, parsing apart", all.len()), first);

    println!("\n{:<58} {:>6} {:>6}", "what has a limit, us per event", "us", "limit");
    let shared = format!("read and normalised once, shared by all {} kinds", all.len());
    let mut over = Vec::new();
    if !limited(&shared, first - payloads.iter().sum::<f64>()) {
        over.push(shared);
    }
    for ((kind, destination), took) in all.iter().zip(payloads) {
        let payload = match destination.files() {
            Some(_) => format!("row for {kind} on top"),
            None => format!("payload for {kind} on top"),
        };
        if !limited(&payload, took) {
            over.push(payload);
        }
    }
    match over.as_slice() {
        [] => println!("all {} within {LIMIT:.0} us", all.len() + 1),
        over => println!("{} of {} over {LIMIT:.0} us: {}", over.len(), all.len() + 1, over.join("; ")),
    }
}

criterion_group!(benches, requests);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    report();
}
