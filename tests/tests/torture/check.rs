//! What has to hold when everything has come to rest. Told as a list of what does not, so that one look shows all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use prost::Message as _;
use tracklayer_ids::{Generation, Offset, Position};
use tracklayer_journal::PostgresJournal;
use tracklayer_proto::delivery::v1::{
    BalanceLedgerRequest, BalanceLedgerResponse, ConnectionBalance, DeliveryStory, EventStory,
    GetStatsRequest, GetStatsResponse, ShowEventRequest,
};
use tracklayer_proto::event::v1::Event as StoredEvent;
use tracklayer_sandbox::{Counted, Platform as AdPlatform};

use crate::load::{Memory, Sent};
use crate::stage::Stage;
use crate::workspace::{PARTITIONS, Workspace};

/// Nothing waits longer than this after the last fault.
const SETTLE_LIMIT: Duration = Duration::from_secs(75);
/// Events of each sort whose whole story is read, beside those that look wrong.
const STORIES: usize = 40;
/// Of one kind of finding, so many are told.
const TOLD: usize = 5;

/// What came out.
#[derive(Debug, Default)]
pub struct Findings {
    /// What does not hold, for people.
    pub faults: Vec<String>,
    /// Acknowledged, and not at a platform, and no reason stated.
    pub lost: u64,
    /// Counted more than once by a platform.
    pub doubled: u64,
    /// First acceptances of a person that a platform got in the wrong order.
    pub out_of_order: u64,
    /// Events that were acknowledged.
    pub acknowledged: u64,
    /// Events in the journal, duplicates among them.
    pub received: u64,
    /// Duplicates in the journal.
    pub duplicates: u64,
    /// Events that are delivered, over all connections.
    pub delivered: u64,
    /// Events of people who had opted out that a platform got.
    pub leaked: u64,
    /// Events of people who opted out that were kept back, over all connections.
    pub blocked: u64,
    /// Events whose only request had no answer when their person opted out, over all connections.
    pub unknown: u64,
    /// Copies that each platform dropped.
    pub copies: BTreeMap<String, u64>,
    /// From the last fault to rest.
    pub settled_after: Duration,
}

impl Findings {
    fn tell<T: std::fmt::Display>(&mut self, what: &str, found: &[T]) {
        if !found.is_empty() {
            let some: Vec<String> = found.iter().take(TOLD).map(ToString::to_string).collect();
            self.faults.push(format!("{} {what}: {}", found.len(), some.join("; ")));
        }
    }
}

/// Waits for rest and looks at everything.
///
/// # Errors
/// Something could not be looked at.
pub async fn check(
    stage: &Stage,
    workspace: &Workspace,
    memory: &Memory,
    seed: u64,
) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let begun = Instant::now();
    if let Err(seen) = settle(stage, workspace).await {
        findings.faults.push(format!("not at rest {SETTLE_LIMIT:?} after the last fault: {seen}"));
    }
    findings.settled_after = begun.elapsed();

    let sent = memory.sent();
    let acknowledged = || sent.iter().filter(|(_, sent)| sent.acknowledged).map(|(id, _)| id);
    findings.acknowledged = acknowledged().count() as u64;
    let refused = memory.refused.lock().expect("nobody panicked").clone();
    findings.tell("batches were refused", &refused);

    let received = received(stage, workspace).await?;
    findings.received = received.values().map(|positions| positions.len() as u64).sum();
    findings.duplicates = findings.received - received.len() as u64;
    let not_stored: Vec<&String> = acknowledged().filter(|id| !received.contains_key(*id)).collect();
    findings.tell("acknowledged events are not in the journal", &not_stored);
    findings.lost += not_stored.len() as u64;
    let unknown: Vec<&String> = received.keys().filter(|id| !sent.contains_key(*id)).collect();
    findings.tell("events are in the journal that nobody sent", &unknown);
    in_journal(&mut findings, &sent, &received);

    let balance = balance(stage, workspace).await?;
    if balance.received != findings.received {
        let (ours, theirs) = (findings.received, balance.received);
        findings.faults.push(format!("the journal holds {ours} events, the ledger knows {theirs}"));
    }
    if !balance.clean {
        findings.faults.push("the ledger does not balance".to_owned());
    }

    findings.tell("ranges were committed by who had lost the lease", &stale_commits(stage, workspace).await?);

    let opted_out: BTreeSet<&str> =
        sent.values().filter(|sent| sent.denied).map(|sent| sent.event.person.as_str()).collect();
    let may_be_blocked = |id: &str| sent.get(id).is_some_and(|s| opted_out.contains(s.event.person.as_str()));
    let mut look_at: BTreeSet<String> = BTreeSet::new();
    let mut present: BTreeMap<AdPlatform, BTreeSet<String>> = BTreeMap::new();
    for (connection, platform) in &workspace.connections {
        let counted = counted(stage, *platform, &sent).await?;
        present.insert(*platform, counted.iter().map(|event| event.event_id.clone()).collect());
        let missing = at_platform(&mut findings, *platform, &counted, &sent, &received, &mut look_at);
        let (blocked, missing): (Vec<&String>, Vec<&String>) =
            missing.into_iter().partition(|id| may_be_blocked(id));
        let told: Vec<String> = missing.iter().map(|id| format!("{id} at {platform}")).collect();
        findings.tell("events were accepted and are not delivered", &told);
        findings.lost += missing.len() as u64;
        look_at.extend(missing.into_iter().cloned());
        let found = balance.connections.iter().find(|balance| balance.connection_id == *connection);
        let found = found.with_context(|| format!("no balance of {platform}"))?;
        in_ledger(&mut findings, *platform, found, counted.len() as u64, blocked.len() as u64);
    }
    findings.tell("events look wrong at a platform", &look_at.iter().collect::<Vec<_>>());

    // Those that look wrong, some of people who opted out later, since these may have ended in several ways, and some of all.
    let mut random = Rng::with_seed(seed);
    let sample = random.choose_multiple(received.keys().cloned(), STORIES);
    let before_opt_out = received.keys().filter(|id| may_be_blocked(id) && !sent[*id].denied).cloned();
    let before_opt_out = random.choose_multiple(before_opt_out, STORIES);
    let stories: BTreeSet<String> =
        look_at.iter().take(20).cloned().chain(sample).chain(before_opt_out).collect();
    for id in stories {
        let Some(sent) = sent.get(&id) else { continue };
        let story = story(stage, workspace, &id).await?;
        let first = received.get(&id).and_then(|all| all.iter().min_by_key(|p| (p.generation, p.offset)));
        let fits = |platform: AdPlatform, delivery: &DeliveryStory| {
            let is_there = present[&platform].contains(&id);
            match (delivery.state.as_str(), delivery.reason.as_str()) {
                ("delivered", _) => is_there && !sent.denied,
                ("blocked", reason) => !is_there && may_be_blocked(&id) && !reason.is_empty(),
                // Sent, without an answer, before the opt-out: nobody knows, and it may not be repeated.
                ("dead", "outcome_unknown") => may_be_blocked(&id) && !sent.denied,
                _ => false,
            }
        };
        if let Err(why) = told_well(&story, first, fits, workspace) {
            findings.faults.push(format!("{id}: {why}"));
            if look_at.contains(&id) {
                findings.faults.push(format!("its story: {}", told(&story, workspace)));
            }
        }
    }
    Ok(findings)
}

/// Waits until nothing waits and nothing is held.
async fn settle(stage: &Stage, workspace: &Workspace) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let request = GetStatsRequest { workspace_id: workspace.id.0 };
        let seen = match stage.delivery().get_stats(request).await {
            Ok(stats) => {
                let left = on_its_way(stats.get_ref());
                if left.is_empty() && stats.get_ref().connections.len() == workspace.connections.len() {
                    return Ok(());
                }
                left.join(", ")
            }
            Err(status) => status.to_string(),
        };
        if begun.elapsed() > SETTLE_LIMIT {
            return Err(seen);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn on_its_way(stats: &GetStatsResponse) -> Vec<String> {
    let mut left = Vec::new();
    for connection in &stats.connections {
        let held: u64 = connection.counts.iter().filter(|c| c.state == "held").map(|c| c.count).sum();
        if connection.waiting + held > 0 {
            let (id, waiting, health) = (connection.connection_id, connection.waiting, &connection.health);
            left.push(format!("connection {id}: {waiting} waiting, {held} held, {health}"));
        }
    }
    left
}

/// Where each message_id stands in the journal.
async fn received(stage: &Stage, workspace: &Workspace) -> anyhow::Result<BTreeMap<String, Vec<Position>>> {
    let journal = PostgresJournal::new(stage.pool.clone());
    let heads = journal.heads().await?;
    let mut found: BTreeMap<String, Vec<Position>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let head = heads.iter().find(|h| h.workspace == workspace.id && h.partition.0 == partition);
        for generation in 1..=head.map_or(0, |head| head.generation.0) {
            let mut at = Position::new(generation, partition, 0);
            loop {
                let blocks = journal.read(workspace.id, at, 64).await?;
                let Some(last) = blocks.last() else { break };
                at.offset = last.end();
                for block in &blocks {
                    for (step, bytes) in block.events()?.into_iter().enumerate() {
                        let offset = Offset(block.first.offset.0 + step as u64);
                        let event = StoredEvent::decode(bytes)?;
                        found.entry(event.message_id).or_default().push(Position { offset, ..block.first });
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Ranges of a lane whose epoch is older than that of a range before them: a paused holder woke up and committed.
async fn stale_commits(stage: &Stage, workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let stale: Vec<(i64, i32, i64, i64, i64)> = sqlx::query_as(
        "select connection_id, partition, base_offset, epoch, newest from (
             select connection_id, partition, base_offset, epoch, max(epoch) over (
                 partition by connection_id, partition order by generation, base_offset
             ) as newest
             from delivery.ledger_block where workspace_id = $1
         ) as blocks where epoch < newest order by connection_id, partition, base_offset",
    )
    .bind(workspace.id.0)
    .fetch_all(&stage.pool)
    .await?;
    let told = stale.into_iter().map(|(connection, partition, offset, epoch, newest)| {
        format!("connection {connection}, {partition}/{offset}, epoch {epoch} after {newest}")
    });
    Ok(told.collect())
}

async fn balance(stage: &Stage, workspace: &Workspace) -> anyhow::Result<BalanceLedgerResponse> {
    let request = BalanceLedgerRequest { workspace_id: workspace.id.0 };
    Ok(stage.delivery().balance_ledger(request).await?.into_inner())
}

async fn story(stage: &Stage, workspace: &Workspace, id: &str) -> anyhow::Result<Vec<EventStory>> {
    let request = ShowEventRequest { workspace_id: workspace.id.0, message_id: id.to_owned() };
    match stage.delivery().show_event(request).await {
        Ok(answer) => Ok(answer.into_inner().occurrences),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(Vec::new()),
        Err(status) => Err(status.into()),
    }
}

/// What a platform counted of this seed, in the order of arrival.
async fn counted(
    stage: &Stage,
    platform: AdPlatform,
    sent: &BTreeMap<String, Sent>,
) -> anyhow::Result<Vec<Counted>> {
    let mut counted = stage.sandbox().counted(platform).await?;
    counted.retain(|event| sent.contains_key(&event.event_id));
    Ok(counted)
}

/// A sender that waits for its acks has its order kept. A twin that was faster than the first copy is none of its events.
fn in_journal(
    findings: &mut Findings,
    sent: &BTreeMap<String, Sent>,
    received: &BTreeMap<String, Vec<Position>>,
) {
    let mut people: BTreeMap<&str, Vec<(u32, Position, &str)>> = BTreeMap::new();
    for (id, positions) in received {
        let Some(sent) = sent.get(id).filter(|sent| !sent.has_twin) else { continue };
        if let Some(first) = positions.iter().min_by_key(|p| (p.generation, p.offset)) {
            people.entry(&sent.event.person).or_default().push((sent.event.sequence, *first, id));
        }
    }
    let mut swapped = Vec::new();
    for events in people.values_mut() {
        events.sort_by_key(|(sequence, _, _)| *sequence);
        for pair in events.windows(2) {
            let [before, after] = [pair[0].1, pair[1].1];
            if before.partition != after.partition
                || (before.generation, before.offset) >= (after.generation, after.offset)
            {
                swapped.push(format!("{} before {}", pair[1].2, pair[0].2));
            }
        }
    }
    findings.tell("events were accepted out of order", &swapped);
    findings.out_of_order += swapped.len() as u64;
}

/// Each event once, each person's in the order of first acceptance, none of who had opted out. Answers what is missing.
fn at_platform<'a>(
    findings: &mut Findings,
    platform: AdPlatform,
    counted: &[Counted],
    sent: &BTreeMap<String, Sent>,
    received: &'a BTreeMap<String, Vec<Position>>,
    look_at: &mut BTreeSet<String>,
) -> Vec<&'a String> {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    let mut newest: BTreeMap<&str, (Generation, Offset, &str)> = BTreeMap::new();
    let mut swapped = Vec::new();
    let mut copies = 0;
    for event in counted {
        copies += u64::from(event.duplicates);
        let times = times.entry(&event.event_id).or_default();
        *times += 1;
        let first =
            received.get(&event.event_id).and_then(|all| all.iter().map(|p| (p.generation, p.offset)).min());
        let (1, Some((generation, offset))) = (*times, first) else { continue };
        let this = (generation, offset, event.event_id.as_str());
        let newest = newest.entry(&sent[&event.event_id].event.person).or_insert(this);
        if (this.0, this.1) < (newest.0, newest.1) {
            swapped.push(format!("{} after {} at {platform}", event.event_id, newest.2));
        } else {
            *newest = this;
        }
    }
    *findings.copies.entry(platform.to_string()).or_default() += copies;

    let doubled: Vec<String> = times
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|(id, times)| format!("{id} {times} times at {platform}"))
        .collect();
    findings.tell("events are counted more than once", &doubled);
    findings.doubled += doubled.len() as u64;
    findings.tell("events are out of order", &swapped);
    findings.out_of_order += swapped.len() as u64;

    let leaked: Vec<String> =
        times.keys().filter(|id| sent[**id].denied).map(|id| format!("{id} at {platform}")).collect();
    findings.tell("events of people who had opted out have left", &leaked);
    findings.leaked += leaked.len() as u64;
    let id_of = |text: &String| text.split(' ').next().unwrap_or_default().to_owned();
    look_at.extend(doubled.iter().chain(&leaked).map(id_of));
    received.keys().filter(|id| sent.contains_key(*id) && !times.contains_key(id.as_str())).collect()
}

/// The ledger and the platform count the same, what is missing there is blocked here, and what had no answer before an opt-out is
/// unknown. No event has another state than these or duplicate: all are good ones.
fn in_ledger(
    findings: &mut Findings,
    platform: AdPlatform,
    balance: &ConnectionBalance,
    counted: u64,
    kept_back: u64,
) {
    let (mut delivered, mut duplicates, mut blocked, mut unknown) = (0, 0, 0, 0);
    for state in &balance.states {
        match state.state.as_str() {
            "delivered" => delivered += state.count,
            "duplicate" => duplicates += state.count,
            "blocked" if !state.reason.is_empty() => blocked += state.count,
            "dead" if state.reason == "outcome_unknown" => unknown += state.count,
            other => {
                if state.count > 0 {
                    let (count, reason) = (state.count, &state.reason);
                    findings.faults.push(format!("{count} events are {other} at {platform}: {reason}"));
                }
            }
        }
    }
    findings.delivered += delivered;
    findings.blocked += blocked;
    findings.unknown += unknown;
    if balance.difference != 0 || !balance.faults.is_empty() {
        let (difference, faults) = (balance.difference, balance.faults.join("; "));
        findings.faults.push(format!("{platform}: the balance is off by {difference}: {faults}"));
    }
    // What nobody knows is either there or not.
    let there = delivered..=delivered + unknown;
    if !there.contains(&counted) || counted + kept_back != delivered + blocked + unknown {
        findings.faults.push(format!(
            "{platform} counted {counted} and {kept_back} are not there; the ledger says delivered {delivered}, blocked \
             {blocked}, unknown {unknown}"
        ));
    }
    if duplicates != findings.duplicates {
        let expected = findings.duplicates;
        findings
            .faults
            .push(format!("{platform}: {duplicates} duplicates in the ledger, {expected} expected"));
    }
}

/// One first occurrence, whose state at each connection fits what its platform has, and duplicates of it.
fn told_well(
    story: &[EventStory],
    accepted: Option<&Position>,
    fits: impl Fn(AdPlatform, &DeliveryStory) -> bool,
    workspace: &Workspace,
) -> Result<(), String> {
    let firsts: Vec<&EventStory> = story.iter().filter(|told| told.duplicate_of.is_none()).collect();
    let [first] = firsts[..] else { return Err(format!("{} first occurrences", firsts.len())) };
    let told_at = first.position.map(|p| Position::new(p.generation, p.partition, p.offset));
    if told_at.as_ref() != accepted {
        return Err(format!("accepted first at {accepted:?}, and {told_at:?} counts as the first"));
    }
    if let Some(stray) =
        story.iter().find(|told| told.duplicate_of.is_some() && told.duplicate_of != first.position)
    {
        return Err(format!("{:?} is a duplicate of {:?}", stray.position, stray.duplicate_of));
    }
    for told in story {
        for (connection, platform) in &workspace.connections {
            let at: Vec<&DeliveryStory> =
                told.deliveries.iter().filter(|delivery| delivery.connection_id == *connection).collect();
            let well = match at[..] {
                [only] if told.duplicate_of.is_some() => only.state == "duplicate",
                [only] => fits(*platform, only),
                _ => false,
            };
            if !well {
                let at: Vec<String> = at.iter().map(|d| format!("{} {}", d.state, d.reason)).collect();
                return Err(format!("{at:?} at {platform} does not fit what is there"));
            }
        }
    }
    Ok(())
}

fn told(story: &[EventStory], workspace: &Workspace) -> String {
    let mut lines = Vec::new();
    for told in story {
        let at = told.position.map(|p| format!("{}/{}/{}", p.generation, p.partition, p.offset));
        let of = told.duplicate_of.map(|p| format!("{}/{}/{}", p.generation, p.partition, p.offset));
        let states: Vec<String> = told
            .deliveries
            .iter()
            .map(|d| {
                let platform = workspace.connections.iter().find(|(id, _)| *id == d.connection_id);
                let name = platform.map_or_else(|| d.connection_id.to_string(), |(_, p)| p.to_string());
                format!("{name} {} {} ({} attempts)", d.state, d.reason, d.attempts)
            })
            .collect();
        lines.push(format!("{at:?} duplicate of {of:?}: {}", states.join(", ")));
    }
    lines.join(" | ")
}
