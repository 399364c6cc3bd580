//! Events resolved in a second by one core and a local PostgreSQL server, in batches of 500: first everybody new, then a
//! usual mix (half unlinked browsers, a good third known people, one in twenty new), with browser ids on every other event. Then
//! people of 1, 25 and 100 visitor ids: back in a browser that they had, and in one that is new.
//!
//! `cargo bench -p tracklayer-identity [visitors] [batches]`
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on should stop")]

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tracklayer_identity::click_ids::{ClickKind, Clicks};
use tracklayer_identity::identifier::RawIdentifier;
use tracklayer_identity::policy::Policy;
use tracklayer_identity::resolve::{Item, Resolver};
use tracklayer_identity::store::Store;
use tracklayer_ids::{MasterKey, SourceId, WorkspaceId};

const BATCH: usize = 500;
const WORKSPACE: WorkspaceId = WorkspaceId(1);
/// Batches under way at once: four partitions.
const WORKERS: usize = 4;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let visitors = numbers.first().copied().unwrap_or(100_000);
    let batches = numbers.get(1).copied().unwrap_or(200);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(visitors, batches));
}

async fn run(visitors: usize, batches: usize) {
    let database = tracklayer_testkit::database(&[("identity", &tracklayer_identity::MIGRATOR)]).await;
    let resolver =
        Resolver::new(Store::new(database.pool.clone()), MasterKey::new([1; 32]), Policy::default());
    let fill: Vec<Vec<Item>> = (0..visitors)
        .collect::<Vec<_>>()
        .chunks(BATCH)
        .map(|chunk| chunk.iter().map(|n| person(*n)).collect())
        .collect();
    measure("everybody new", &resolver, fill).await;
    sqlx::query("vacuum analyze").execute(&database.pool).await.unwrap();

    let mut random = fastrand::Rng::with_seed(1);
    let mut next = visitors;
    let mix: Vec<Vec<Item>> = (0..batches)
        .map(|_| {
            let event = |random: &mut fastrand::Rng, next: &mut usize| match random.u8(..100) {
                0..50 => browser(random.usize(..visitors)),
                50..95 => person(random.usize(..visitors)),
                _ => {
                    *next += 1;
                    person(*next)
                }
            };
            (0..BATCH).map(|_| event(&mut random, &mut next)).collect()
        })
        .collect();
    measure("usual mix", &resolver, mix.clone()).await;
    measure("the same again, all known", &resolver, mix).await;

    for browsers in [1, 25, 100] {
        returning(&resolver, &database.pool, browsers, (visitors / 50).max(BATCH)).await;
    }
}

/// People who come back: each batch has nobody twice, so that it is a person's visit that is measured and not a batch's.
async fn returning(resolver: &Resolver, pool: &sqlx::PgPool, browsers: usize, people: usize) {
    let rounds = |first: usize, count: usize, browser: &dyn Fn(usize, usize) -> usize| -> Vec<Vec<Item>> {
        let everybody: Vec<usize> = (0..people).collect();
        let round = |round: usize| {
            let visits = everybody.chunks(BATCH).map(move |some| {
                some.iter().map(|person| visit(browsers, *person, browser(*person, round))).collect()
            });
            visits.collect::<Vec<Vec<Item>>>()
        };
        (first..first + count).flat_map(round).collect()
    };
    let named = |what: &str| format!("people of {browsers} visitor ids, {what}");
    measure(&named("as they get these"), resolver, rounds(0, browsers, &|_, round| round)).await;
    sqlx::query("vacuum analyze").execute(pool).await.unwrap();
    // The first of these reads who they are.
    measure(&named("read again"), resolver, rounds(0, 2, &|_, round| round)).await;
    let known = rounds(0, 5, &|person, round| (person * 7 + round * 31) % browsers);
    measure(&named("back in one of them"), resolver, known).await;
    measure(&named("in a new browser"), resolver, rounds(browsers, 5, &|_, round| round)).await;
}

/// A login in one of a person's browsers, with a browser id.
fn visit(browsers: usize, person: usize, browser: usize) -> Item {
    let name = format!("{browsers}-{person}");
    let mut clicks = Clicks::default();
    clicks.see(ClickKind::Fbp, &format!("fb.1.1700000000.{name}.{browser}"), Timestamp::UNIX_EPOCH);
    let identifiers = vec![
        raw("user_id", format!("r-{name}")),
        raw("anonymous_id", format!("r-{name}-{browser}")),
        raw("email", format!("r{name}@example.org")),
    ];
    Item {
        identifiers,
        clicks,
        seen_at: Timestamp::UNIX_EPOCH,
        source: SourceId(1),
        message_id: format!("m-{name}-{browser}"),
    }
}

async fn measure(what: &str, resolver: &Resolver, batches: Vec<Vec<Item>>) {
    let events: usize = batches.iter().map(Vec::len).sum();
    let resolver = Arc::new(resolver.clone());
    let started = Instant::now();
    let times = stream::iter(batches)
        .map(|batch| {
            let resolver = Arc::clone(&resolver);
            async move {
                let started = Instant::now();
                resolver.resolve(WORKSPACE, &batch).await.unwrap();
                started.elapsed()
            }
        })
        .buffer_unordered(WORKERS)
        .collect::<Vec<_>>()
        .await;
    let took = started.elapsed();
    let mut times = times;
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: {:.0} events/s, batch p50 {p50:?}, p99 {p99:?}", events as f64 / took.as_secs_f64());
}

fn raw(type_name: &str, value: String) -> RawIdentifier {
    RawIdentifier { type_name: type_name.to_owned(), value: value.into() }
}

fn person(n: usize) -> Item {
    let identifiers = vec![
        raw("user_id", format!("u-{n}")),
        raw("anonymous_id", format!("a-{n}")),
        raw("email", format!("p{n}@example.org")),
    ];
    Item { identifiers, ..browser(n) }
}

/// Half of the browsers are linked, the other half was never seen with anything else.
fn browser(n: usize) -> Item {
    let seen_at = Timestamp::UNIX_EPOCH;
    let mut clicks = Clicks::default();
    if n.is_multiple_of(2) {
        clicks.see(ClickKind::Fbp, &format!("fb.1.1700000000.{n}"), seen_at);
    }
    let name = if n.is_multiple_of(4) { format!("a-{n}") } else { format!("unlinked-{n}") };
    Item {
        identifiers: vec![raw("anonymous_id", name)],
        clicks,
        seen_at,
        source: SourceId(1),
        message_id: format!("m-{n}"),
    }
}
