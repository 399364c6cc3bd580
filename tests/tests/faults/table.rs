//! The table, row by row: every connector meets the fault at the same time, each with its own platform.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tracklayer_sandbox::SeenRequest;
use tracklayer_tests::{Clock, NoHandshake, Options, Platform, eventually};

use crate::bench::{Bench, Count, KINDS, Kind};
use crate::cells::{ASKED, Cell, ROWS, Row};
use crate::{Hurry, keep_table, order};

/// Handshakes until the circuit of a connection has surely been open, and how many there may be by then.
const HANDSHAKES: (u64, u64) = (4, 8);
/// Meta's limit on age, and beyond it.
const EIGHT_DAYS: SignedDuration = SignedDuration::from_hours(8 * 24);

/// Longer bodies are kept in part, so that their events cannot be counted.
const WHOLE_BODY: usize = 16 * 1024;

fn message_id(row: usize, number: u64) -> String {
    format!("{}{number:03}-end", mark_of(row))
}

fn mark_of(row: usize) -> String {
    format!("fault-{row}-")
}

/// What a cell came to.
struct Seen {
    row: Row,
    kind: Kind,
    cell: Cell,
    count: Count,
    handshakes: u64,
    /// Its requests, in words.
    requests: String,
}

/// How many events each request had and how it was answered, as far as the platform kept them.
fn in_words(place: usize, kind: Kind, count: &Count, requests: &[SeenRequest]) -> String {
    let of_kind: Vec<&SeenRequest> =
        requests.iter().filter(|seen| seen.platform == kind.platform()).collect();
    let steps = of_kind.iter().map(|seen| {
        let mark = mark_of(place);
        let ids =
            seen.body.match_indices(&mark).map(|(at, _)| seen.body.get(at + mark.len()..at + mark.len() + 3));
        let events = match seen.body_bytes {
            0 => "unread".to_owned(),
            1..=WHOLE_BODY => ids.collect::<BTreeSet<_>>().len().to_string(),
            _ => "many".to_owned(),
        };
        let answer = seen.status.map_or("no answer".to_owned(), |status| status.to_string());
        format!("{events} → {answer}")
    });
    let kept = of_kind.len() as u64 == count.requests;
    let first = (!kept).then(|| "…".to_owned());
    first.into_iter().chain(runs(steps)).collect::<Vec<_>>().join(", ")
}

/// Steps that follow each other and are the same, as one.
pub fn runs(steps: impl Iterator<Item = String>) -> Vec<String> {
    let mut runs: Vec<(String, u64)> = Vec::new();
    for step in steps {
        match runs.last_mut() {
            Some((last, times)) if *last == step => *times += 1,
            _ => runs.push((step, 1)),
        }
    }
    runs.into_iter()
        .map(|(step, times)| if times > 1 { format!("{step} (×{times})") } else { step })
        .collect()
}

impl Seen {
    /// What differs from what was expected.
    fn faults(&self) -> Vec<String> {
        let Cell { requests, counted, delivered, before, dead, .. } = self.cell;
        let mut states: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut expect = |state: &str, reason: &str, count: u64| {
            if count > 0 {
                states.insert((state.to_owned(), reason.to_owned()), count);
            }
        };
        expect("delivered", "", delivered - before);
        expect("delivered", "delivered_before", before);
        if let Some((reason, count)) = dead {
            expect("dead", reason, count);
        }
        let expected = Count { requests, counted, states };
        let mut faults = Vec::new();
        if self.count != expected {
            faults.push(format!(
                "{}, {}: {:?} instead of {expected:?}",
                self.row.title(),
                self.kind.title(),
                self.count
            ));
        }
        let (least, most) = HANDSHAKES;
        if self.row == Row::Tls && !(least..=most).contains(&self.handshakes) {
            faults.push(format!("{}: {} handshakes", self.kind.title(), self.handshakes));
        }
        faults
    }

    fn line(&self) -> String {
        let states = ledger(&self.count);
        let fault = match (self.row, &self.cell.fault) {
            (Row::Tls, _) | (_, Some(_)) => "",
            (_, None) => "no such fault: ",
        };
        let handshakes = if self.row == Row::Tls {
            format!(" after {} handshakes", self.handshakes)
        } else {
            String::new()
        };
        format!(
            "| {} | {} | {fault}{}: {} | {}{handshakes} | {} | {} |",
            self.kind.title(),
            self.row.title(),
            self.cell.does,
            self.requests,
            self.count.requests,
            states,
            self.count.counted,
        )
    }
}

/// What the ledger says, in words.
pub fn ledger(count: &Count) -> String {
    let states = count.states.iter().map(|((state, reason), count)| match reason.as_str() {
        "" => format!("{count} {state}"),
        reason => format!("{count} {state}: {reason}"),
    });
    states.collect::<Vec<_>>().join(", ")
}

async fn put_up(bench: &Bench, row: Row, cells: &BTreeMap<Kind, Cell>) -> BTreeMap<Kind, NoHandshake> {
    let mut servers = BTreeMap::new();
    for (kind, cell) in cells {
        if row == Row::Tls {
            let server = NoHandshake::start().await.unwrap();
            bench.put(*kind, &server.url()).await.unwrap();
            servers.insert(*kind, server);
        } else if let Some((fault, how)) = &cell.fault {
            bench.sandbox().inject(kind.platform(), fault.clone(), *how).await.unwrap();
        }
    }
    servers
}

/// Waits until every connection has failed often enough to have opened its circuit, and mends the addresses.
async fn mend_addresses(bench: &Bench, servers: &BTreeMap<Kind, NoHandshake>) {
    eventually("every connection to fail and to try again", async || {
        let waiting: Vec<String> = servers
            .iter()
            .filter(|(_, server)| server.begun() < HANDSHAKES.0)
            .map(|(kind, server)| format!("{}: {}", kind.title(), server.begun()))
            .collect();
        if waiting.is_empty() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{waiting:?} {:?}", bench.health().await?))
        }
    })
    .await;
    let sandbox = bench.platform.addresses().sandbox.clone();
    for kind in servers.keys() {
        bench.put(*kind, &sandbox).await.unwrap();
    }
}

async fn meet(bench: &Bench, clock: &Arc<Clock>, place: usize, row: Row) -> Vec<Seen> {
    let ids: Vec<String> = (0..row.events()).map(|number| message_id(place, number)).collect();
    let bad_id = row.bad().map(|bad| ids[bad as usize].clone()).unwrap_or_default();
    let cells: BTreeMap<Kind, Cell> = KINDS.into_iter().map(|kind| (kind, row.cell(kind, &bad_id))).collect();
    bench.pause().await.unwrap();
    let events: Vec<_> = ids.iter().map(|id| order(id, SignedDuration::from_secs(60))).collect();
    bench.publish(&events).await.unwrap();
    let before = bench.counts().await.unwrap();
    let last = bench.sandbox().requests(1).await.unwrap().last().map_or(0, |seen| seen.order);
    let servers = put_up(bench, row, &cells).await;
    bench.resume().await.unwrap();
    // Meta is left alone for a minute after it has said that there is too much.
    let hurry =
        matches!(row, Row::Throttled | Row::ThrottledInOwnWords).then(|| Hurry::up(Arc::clone(clock)));
    if row == Row::Tls {
        mend_addresses(bench, &servers).await;
    }
    let after = bench.rest(&before, row.events()).await;
    drop(hurry);
    for kind in KINDS {
        bench.sandbox().clear(kind.platform()).await.unwrap();
    }
    let mut requests = bench.sandbox().requests(usize::MAX).await.unwrap();
    requests.retain(|seen| seen.order > last);
    cells
        .into_iter()
        .map(|(kind, cell)| {
            let count = after[&kind].since(&before[&kind]);
            Seen {
                row,
                kind,
                cell,
                handshakes: servers.get(&kind).map_or(0, NoHandshake::begun),
                requests: in_words(place, kind, &count, &requests),
                count,
            }
        })
        .collect()
}

/// The time between the request that was told to wait and the next one, per platform.
async fn waited(bench: &Bench) -> BTreeMap<Kind, Option<Duration>> {
    let requests = bench.sandbox().requests(usize::MAX).await.unwrap();
    let after_the_fault = |kind: Kind| {
        let of_kind: Vec<&SeenRequest> =
            requests.iter().filter(|seen| seen.platform == kind.platform()).collect();
        let told = of_kind.iter().rposition(|seen| seen.fault.as_deref() == Some("too_many_requests"))?;
        // Where each event is a request, others were sent together with it.
        let together = if kind.batches() { 0 } else { 500 };
        let next =
            of_kind.get(told + 1..)?.iter().find(|seen| seen.at_ms > of_kind[told].at_ms + together)?;
        Some(Duration::from_millis((next.at_ms - of_kind[told].at_ms).cast_unsigned()))
    };
    KINDS.into_iter().map(|kind| (kind, after_the_fault(kind))).collect()
}

/// A table of such lines.
pub fn markdown(lines: impl Iterator<Item = String>) -> String {
    let mut text =
        "| connector | fault | what the lane did: events → answer of each request | requests | ledger | counted by the platform |\n\
                    | --- | --- | --- | ---: | --- | ---: |\n"
            .to_owned();
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// One event of 8 days beside 999 fresh ones.
async fn one_is_too_old(bench: &Bench) {
    const EVENTS: u64 = 1_000;
    const OLD: u64 = 500;
    let id = |number: u64| format!("age-{number:04}");
    let age = |number| if number == OLD { EIGHT_DAYS } else { SignedDuration::from_secs(60) };
    bench.pause().await.unwrap();
    let events: Vec<_> = (0..EVENTS).map(|number| order(&id(number), age(number))).collect();
    bench.publish(&events).await.unwrap();
    let before = bench.counts().await.unwrap();
    bench.resume().await.unwrap();
    let after = bench.rest(&before, EVENTS).await;
    let meta = after[&Kind::Meta].since(&before[&Kind::Meta]);
    assert_eq!((meta.requests, meta.counted), (1, EVENTS - 1), "{meta:?}");
    let state = |state: &str, reason: &str| meta.states.get(&(state.to_owned(), reason.to_owned())).copied();
    assert_eq!(
        (state("delivered", ""), state("dead", "event_too_old")),
        (Some(EVENTS - 1), Some(1)),
        "{meta:?}"
    );
    let story = bench.story(&id(OLD)).await.unwrap().unwrap();
    let old = &story[&Kind::Meta];
    assert_eq!(
        (old.state.as_str(), old.reason.as_str(), old.attempts),
        ("dead", "event_too_old", 0),
        "{old:?}"
    );
    println!(
        "one event of 8 days beside 999: Meta got {} request, 999 delivered, one {}: {}",
        meta.requests, old.reason, old.detail
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_costs_what_it_has_to_and_the_ledger_tells_the_truth() {
    let clock = Arc::new(Clock::start().unwrap());
    let options = Options { variables: clock.variables(), lease_ms: Some(60_000), ..Options::default() };
    let bench = Bench::create(Platform::start(options).await.unwrap(), 1).await.unwrap();
    one_is_too_old(&bench).await;
    let only = std::env::var("FAULTS_ONLY").unwrap_or_default();
    let mut seen = Vec::new();
    for (place, row) in ROWS.into_iter().enumerate() {
        if !row.title().contains(&only) {
            continue;
        }
        let began = std::time::Instant::now();
        seen.extend(meet(&bench, &clock, place, row).await);
        eprintln!("{}: {:?}", row.title(), began.elapsed());
        if row == Row::ThrottledUntil {
            for (kind, wait) in waited(&bench).await {
                let wait = wait.unwrap_or_else(|| panic!("{} was not told to wait", kind.title()));
                assert!(wait >= Duration::from_secs(ASKED), "{} came back after {wait:?}", kind.title());
            }
        }
    }
    seen.sort_by_key(|seen| seen.kind);
    keep_table(0, &markdown(seen.iter().map(Seen::line)));
    let faults: Vec<String> = seen.iter().flat_map(Seen::faults).collect();
    assert!(faults.is_empty(), "{} of {} cells:\n{}", faults.len(), seen.len(), faults.join("\n"));
    let balance = bench.platform.cli_json(&["ledger", "balance", "--workspace", "faults"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
}
