//! Events a second that one core parses: a track call of about 1 KB, as a browser sends it.
#![allow(clippy::unwrap_used)] // a bench may stop here

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tracklayer_event::batch::parse_batch;
use tracklayer_event::{ParseContext, parse_event_text};

const EVENT: &str = r#"{"timestamp":"2026-11-23T13:11:25.642Z","integrations":{"Segment.io":true},"event":"Order Completed","type":"track","userId":"u_1","anonymousId":"3708315a-c695-4a0c-9145-81d841e72fda","messageId":"ajs-next-1795439485483-914581d8-41e7-4fda-99ba-68089656f19e","properties":{"order_id":"o_1001","total":63.8,"revenue":54.4,"shipping":5.4,"tax":4,"currency":"EUR","products":[{"product_id":"p_1","sku":"S-1","name":"Mug","price":22.5,"quantity":2},{"product_id":"p_2","sku":"S-2","name":"Tea","price":9.4,"quantity":1}]},"context":{"page":{"path":"/p/1","referrer":"https://l.facebook.com/","title":"Shop","url":"https://shop.example/p/1?utm_source=fb&fbclid=abc"},"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","locale":"en-US","library":{"name":"analytics.js","version":"npm:next-1.84.3"},"consent":{"categoryPreferences":{"Advertising":true,"Analytics":false}},"timezone":"UTC"},"writeKey":"wk_test","sentAt":"2026-11-23T13:11:25.700Z"}"#;

fn parse(c: &mut Criterion) {
    let context = ParseContext::at("2026-11-23T13:12:00Z".parse().unwrap());
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one event", |b| b.iter(|| parse_event_text(black_box(EVENT), &context).unwrap()));
    let batch = format!("{{\"batch\":[{}]}}", vec![EVENT; 100].join(","));
    group.throughput(Throughput::Elements(100));
    group.bench_function("a batch of 100", |b| {
        b.iter(|| {
            let split = parse_batch(black_box(&batch)).unwrap();
            for event in split.events {
                black_box(parse_event_text(event.get(), &context).unwrap());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
