//! Microseconds that one core needs for an event on its way into a request: its JSON parsed once, its item built for each
//! platform, and the request put together. Figures are for 500 purchases of about 1 KB with people of their own.
#![allow(clippy::unwrap_used)] // a bench may stop here

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_destination::{Consent, Deliverable, Destination, Item, preview};
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::{ClickIds, Event};

// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: usize = 500;

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
        "properties": {
            "order_id": format!("o-{n}"), "revenue": 25.9, "total": 30.8, "currency": "USD", "coupon": "WELCOME",
            "products": [product(0), product(1)],
        },
        "context": {
            "ip": format!("203.0.113.{}", n % 250),
            "userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36",
            "page": { "url": format!("https://shop.example.com/p{n}?fbclid=fb{n}abcdefgh&gclid=gc{n}abcdefgh") },
            "library": { "name": "analytics.js", "version": "npm:next-1.84.3" },
            "traits": { "email": format!("person{n}@example.com"), "firstName": "Amber", "lastName": "Willow" },
            "locale": "en-US",
        },
    });
    preview::parse(event, now()).unwrap()
}

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
    ];
    documents
        .iter()
        .map(|document: &Value| {
            let opened = tracklayer_destination::open(document, &Default::default()).unwrap();
            (opened.kind().as_str(), opened)
        })
        .collect()
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
        b.iter(|| events.iter().map(deliverable).collect::<Vec<_>>());
    });
    let parsed: Vec<Deliverable> = events.iter().map(deliverable).collect();
    let token = Secret::new("token".to_owned());
    for (kind, destination) in destinations() {
        group.bench_function(format!("build for {kind}"), |b| {
            b.iter(|| {
                for event in &parsed {
                    black_box(destination.build(black_box(event), now()).unwrap());
                }
            });
        });
        let items: Vec<Item> = parsed.iter().map(|e| destination.build(e, now()).unwrap()).collect();
        let items: Vec<&Item> = items.iter().collect();
        group.bench_function(format!("assemble for {kind}"), |b| {
            b.iter(|| destination.assemble(black_box(&items), Some(&token)));
        });
    }
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
