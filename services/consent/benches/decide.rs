//! How many decisions one core makes: 500 events times 10 connections, strings decoded once, two stored keys each.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach benches")]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use tracklayer_consent::{
    decide::{Case, Evaluation, Query, Subject},
    kind::Kind,
    policy::Policy,
    signal::Signal,
    statement::{Captured, Decoder},
};
use tracklayer_ids::SubjectKey;

const EVENTS: u64 = 500;
const TCF: &str =
    "CQtDjkAQtDjkAEsAHBENCjFsAP_AAEPAAAYgHtQBQAtgLzAYyAyQB7QHtQBQAtgLzAYyAyQB7QAA.IHtQBQAtgLzAYyAyQB7Q";

fn captured(event: u64) -> Captured {
    let categories =
        Some(vec![("Advertising".to_owned(), !event.is_multiple_of(3)), ("Analytics".to_owned(), true)]);
    Captured {
        gpc: event.is_multiple_of(5).then(|| "sec_gpc_header".to_owned()),
        categories,
        interaction: true,
        tc_string: if event.is_multiple_of(2) { TCF.to_owned() } else { String::new() },
        gpp_string: "DBAChsw~BUUAAACA.YA~BVoAACA~BVUAAIA.YA~BVUAAAIA.YA".to_owned(),
        ..Captured::default()
    }
}

fn decisions(c: &mut Criterion) {
    let policy = Arc::new(Policy::compiled_in().unwrap());
    let decoder = Decoder::new(Arc::clone(&policy), 1 << 24);
    let now = Timestamp::now();
    let kinds: Vec<Query> = Kind::ALL.iter().cycle().take(10).map(|kind| Query::of(*kind)).collect();
    let mut group = c.benchmark_group("decide");
    group.throughput(Throughput::Elements(EVENTS * kinds.len() as u64));
    group.bench_function("500 events, 10 connections", |b| {
        b.iter(|| {
            for event in 0..EVENTS {
                let at = now - SignedDuration::from_secs(event as i64);
                let statements = decoder.statements(&captured(event), at);
                let signals: Vec<Signal> = [(1, false), (2, false), (1, true)]
                    .into_iter()
                    .flat_map(|(key, own)| {
                        statements.iter().map(move |statement| Signal {
                            subject: SubjectKey([key; 16]),
                            person: key == 2,
                            at,
                            own,
                            content: statement.content.clone(),
                        })
                    })
                    .collect();
                let places = policy.places(&[if event.is_multiple_of(2) { "DE" } else { "US-CA" }]);
                let subject = Subject { person_known: true, ..Subject::default() };
                let case = Case { now, places: &places, subject, signals: &signals };
                let mut evaluation = Evaluation::new(&policy, case);
                for query in &kinds {
                    black_box(evaluation.decide(query));
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
