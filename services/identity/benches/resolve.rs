//! Events resolved in a second by one core and a local PostgreSQL server, in batches of 500: first everybody new, then a
//! usual mix (half unlinked browsers, a good third known people, one in twenty new), with browser ids on every other event.
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
const WORKERS: usize = 1;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let visitors = numbers.first().copied().unwrap_or(100_000);
    let batches = numbers.get(1).copied().unwrap_or(200);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(visitors, batches));
}

async fn run(visitors: usize, batches: usize) {
    let database = tracklayer_testkit::database(&[("identity", &tracklayer_identity::MIGRATOR)]).await;
    use tracing_subscriber::layer::SubscriberExt as _;
    let stats = Stats::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(stats.clone())).unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_with(database.url.parse().unwrap())
        .await
        .unwrap();
    let resolver = Resolver::new(Store::new(pool.clone()), MasterKey::new([1; 32]), Policy::default());
    let fill: Vec<Vec<Item>> = (0..visitors)
        .collect::<Vec<_>>()
        .chunks(BATCH)
        .map(|chunk| chunk.iter().map(|n| person(*n)).collect())
        .collect();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&pool).await.unwrap(); PID.set(pid).unwrap();
    measure("everybody new", &resolver, fill).await;
    stats.print();
    sqlx::query("vacuum analyze").execute(&database.pool).await.unwrap();

    explain(&pool, visitors).await;
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
    stats.print();
    measure("the same again, all known", &resolver, mix).await;
}

fn cpu(pid: i32) -> f64 {
    let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let f: Vec<&str> = s.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
static PID: std::sync::OnceLock<i32> = std::sync::OnceLock::new();
async fn measure(what: &str, resolver: &Resolver, batches: Vec<Vec<Item>>) {
    let n = batches.len() as f64;
    let me = std::process::id() as i32; let (c0, p0) = (cpu(me), cpu(*PID.get().unwrap()));
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
    println!("cpu per batch: client {:.1} ms, backend {:.1} ms", (cpu(me)-c0)*1000.0/n, (cpu(*PID.get().unwrap())-p0)*1000.0/n);
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

type Row = (u64, f64);
#[derive(Clone, Default)]
struct Stats(Arc<std::sync::Mutex<std::collections::BTreeMap<String, Row>>>);
impl Stats {
    fn print(&self) {
        for (k, (n, t)) in std::mem::take(&mut *self.0.lock().unwrap()) {
            println!(
                "{n:6} x {:8.3} ms  {}",
                t * 1000.0 / n as f64,
                k.replace('\n', " ").chars().take(90).collect::<String>()
            );
        }
    }
}
#[derive(Default)]
struct V {
    summary: String,
    secs: f64,
}
impl tracing::field::Visit for V {
    fn record_str(&mut self, f: &tracing::field::Field, v: &str) {
        if f.name() == "summary" {
            self.summary = v.to_owned();
        }
    }
    fn record_f64(&mut self, f: &tracing::field::Field, v: f64) {
        if f.name() == "elapsed_secs" {
            self.secs = v;
        }
    }
    fn record_debug(&mut self, _f: &tracing::field::Field, _v: &dyn std::fmt::Debug) {}
}
impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Stats {
    fn on_event(&self, e: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if e.metadata().target() == "sqlx::query" {
            let mut v = V::default();
            e.record(&mut v);
            let mut m = self.0.lock().unwrap();
            let r = m.entry(v.summary).or_default();
            r.0 += 1;
            r.1 += v.secs;
        }
    }
}

async fn explain(pool: &sqlx::PgPool, visitors: usize) {
    let mut random = fastrand::Rng::with_seed(9);
    let mut hasher = tracklayer_identity::identifier::Hasher::new(MasterKey::new([1; 32]).workspace(WORKSPACE), Arc::new(Policy::default()));
    let items: Vec<Item> = (0..BATCH).map(|_| if random.bool() { browser(random.usize(..visitors)) } else { person(random.usize(..visitors)) }).collect();
    let seen: Vec<Vec<_>> = items.iter().map(|i| hasher.observe(&i.identifiers)).collect();
    let macs: std::collections::BTreeMap<[u8;32], bool> = seen.iter().zip(&items).flat_map(|(s,it)| s.iter().map(|i| (i.mac.0, !it.clicks.is_empty()))).collect();
    let (macs, brings): (Vec<_>, Vec<_>) = macs.into_iter().unzip();
    let (mut a, mut b, mut s, mut t) = (vec![], vec![], vec![], vec![]);
    for e in &seen { for i in 0..e.len() { for j in i+1..e.len() { let (x,y) = (e[i].mac.0.min(e[j].mac.0), e[i].mac.0.max(e[j].mac.0)); a.push(x); b.push(y); s.push(1i64); t.push(jiff_sqlx::ToSqlx::to_sqlx(Timestamp::UNIX_EPOCH)); } } }
    let hour = sqlx::postgres::types::PgInterval { months: 0, days: 0, microseconds: 3_600_000_000 };
    let mut c = pool.acquire().await.unwrap();
    let text: &'static str = Box::leak(format!("explain (analyze) {}", include_str!("../src/store/lookup.sql").lines().filter(|l| !l.starts_with("--")).collect::<Vec<_>>().join("\n")).into_boxed_str());
    let plain: &'static str = include_str!("../src/store/lookup.sql");
    let mut best: (f64, Vec<String>) = (1e9, vec![]);
    let mut quick = 1e9f64;
    for n in 0..60 {
        let with = n % 2 == 0;
        let (pa, pb, ps, pt) = if with { (a.clone(), b.clone(), s.clone(), t.clone()) } else { (vec![], vec![], vec![], vec![]) };
        let rows: Vec<String> = sqlx::query_scalar(text).bind(1i64).bind(&macs).bind(&brings).bind(&pa).bind(&pb).bind(&ps).bind(&pt).bind(&pt).bind(1000i64).bind(hour.clone()).fetch_all(&mut *c).await.unwrap();
        let ms: f64 = rows.last().unwrap().split_whitespace().nth(2).unwrap().parse().unwrap();
        if with && ms < best.0 { best = (ms, rows); }
        let clock = Instant::now();
        let r = sqlx::query(plain).bind(1i64).bind(&macs).bind(&brings).bind(&pa).bind(&pb).bind(&ps).bind(&pt).bind(&pt).bind(1000i64).bind(hour.clone()).fetch_all(&mut *c).await.unwrap();
        if with { quick = quick.min(clock.elapsed().as_secs_f64()*1000.0); }
        if n < 2 { println!("rows {} with pairs {with}", r.len()); }
    }
    println!("best explain {} ms; best plain {quick} ms", best.0);
    for r in best.1 { println!("{r}"); }
}
