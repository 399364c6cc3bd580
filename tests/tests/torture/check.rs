//! What has to hold when everything has come to rest. Told as a list of what does not, so that one look shows all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use fastrand::Rng;
use tracklayer_ids::{Generation, Offset, Partition, Position};
use tracklayer_proto::delivery::v1 as pb;
use tracklayer_proto::delivery::v1::{
    BalanceLedgerRequest, BalanceLedgerResponse, ConnectionBalance, DeliveryStory, EventStory,
    GetStatsRequest, GetStatsResponse, ShowEventRequest,
};
use tracklayer_sandbox::{Counted, Platform as AdPlatform};

use crate::faults::Scene;
use crate::load::Sent;
use crate::plan::CLAIM_HOURS;
use crate::stage::Stage;
use crate::stop::Stopped;
use crate::workspace::Workspace;

/// Nothing waits longer than this after the last fault.
const SETTLE_LIMIT: Duration = Duration::from_secs(75);
/// Of a wait that is longer it is told what it is for.
const LONG_WAIT: Duration = Duration::from_secs(15);
/// Events of each sort whose whole story is read, beside those that look wrong.
const STORIES: usize = 40;
/// Of what a platform's age limit is, so much is left for an event's way there.
const ON_ITS_WAY: Duration = Duration::from_secs(120);
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
    /// Events whose only request had no answer when their person opted out or everything stopped, over all connections.
    pub unknown: u64,
    /// Events that were too old for their platform after a stop, over all connections.
    pub expired: u64,
    /// Repeats that came after the life of their claim, and so are events of their own.
    pub anew: u64,
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
pub async fn check(scene: &Scene, seed: u64) -> anyhow::Result<Findings> {
    let Scene { stage, workspace, memory, .. } = scene;
    let mut findings = Findings::default();
    // Before it rests, too: what is resolved may be trimmed after a while.
    scene.reading.lock().await.go_on().await?;
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

    let stopped = memory.stopped();
    let mut reading = scene.reading.lock().await;
    reading.go_on().await?;
    let received = &reading.found;
    findings.received = received.values().map(|positions| positions.len() as u64).sum();
    let firsts: BTreeMap<&str, Vec<Position>> =
        received.iter().map(|(id, all)| (id.as_str(), firsts_of(all, stopped.as_ref()))).collect();
    let winners: u64 = firsts.values().map(|firsts| firsts.len() as u64).sum();
    findings.anew = winners - received.len() as u64;
    findings.duplicates = findings.received - winners;
    let not_stored: Vec<&String> = acknowledged().filter(|id| !received.contains_key(*id)).collect();
    findings.tell("acknowledged events are not in the journal", &not_stored);
    findings.lost += not_stored.len() as u64;
    let unknown: Vec<&String> = received.keys().filter(|id| !sent.contains_key(*id)).collect();
    findings.tell("events are in the journal that nobody sent", &unknown);
    in_journal(&mut findings, &sent, received);

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
    let dead = dead_letters(stage, workspace).await?;
    let may_be_blocked = |id: &str| sent.get(id).is_some_and(|s| opted_out.contains(s.event.person.as_str()));
    let mut look_at: BTreeSet<String> = BTreeSet::new();
    let mut present: BTreeMap<AdPlatform, BTreeSet<String>> = BTreeMap::new();
    for (connection, platform) in &workspace.connections {
        let counted = counted(stage, *platform, &sent).await?;
        present.insert(*platform, counted.iter().map(|event| event.event_id.clone()).collect());
        let rules = Rules::of(*platform);
        let mut wrongly = Vec::new();
        for ((_, position), letter) in
            dead.range((*connection, FIRST)..).take_while(|(at, _)| at.0 == *connection)
        {
            let id = letter.message_id.as_str();
            let Some(sent) = sent.get(id) else { continue };
            let well = match letter.code.as_str() {
                "event_too_old" => rules.is_too_old(sent.event.at, letter.died_at),
                // Sent without an answer, and the person opts out, or the platform would not know a repeat any more.
                "outcome_unknown" => {
                    let open = |stopped: &Stopped| stopped.open.contains(&(*connection, *position));
                    may_be_blocked(id) && !sent.denied
                        || stopped.as_ref().is_some_and(|s| open(s) && rules.forgets_within(s.hours))
                }
                _ => false,
            };
            if !well {
                wrongly.push(format!("{id} at {platform}: {}", letter.code));
                look_at.insert(id.to_owned());
            }
        }
        findings.tell("events are dead that should not be", &wrongly);
        let is_dead = |id: &str| firsts[id].iter().any(|first| dead.contains_key(&(*connection, *first)));
        let won = |id: &str| delivered_at(&firsts[id], |at| dead.get(&(*connection, at)));
        let missing = at_platform(&mut findings, *platform, &counted, &sent, &firsts, won, &mut look_at);
        let missing: Vec<&str> =
            missing.into_iter().filter(|id| !may_be_blocked(id) && !is_dead(id)).collect();
        let told: Vec<String> = missing.iter().map(|id| format!("{id} at {platform}")).collect();
        findings.tell("events were accepted and are not delivered", &told);
        findings.lost += missing.len() as u64;
        look_at.extend(missing.into_iter().map(str::to_owned));
        let found = balance.connections.iter().find(|balance| balance.connection_id == *connection);
        let found = found.with_context(|| format!("no balance of {platform}"))?;
        in_ledger(&mut findings, *platform, found, counted.len() as u64, winners);
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
        let first = firsts.get(id.as_str()).cloned().unwrap_or_default();
        let fits = |platform: AdPlatform, at: Option<Position>, delivery: &DeliveryStory| {
            // What comes again after its claim's life may have another end than it had at first.
            let is_there = present[&platform].contains(&id);
            let is_missing = !is_there || first.len() > 1;
            let letter = at.and_then(|at| dead.get(&(delivery.connection_id, at)));
            match (delivery.state.as_str(), delivery.reason.as_str()) {
                ("delivered", _) => is_there && !sent.denied,
                ("blocked", reason) => is_missing && may_be_blocked(&id) && !reason.is_empty(),
                // Whether each is so rightly was looked at above.
                ("dead", "event_too_old") => is_missing && letter.is_some_and(|l| l.code == "event_too_old"),
                ("dead", "outcome_unknown") => letter.is_some_and(|l| l.code == "outcome_unknown"),
                _ => false,
            }
        };
        if let Err(why) = told_well(&story, &first, fits, workspace) {
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
    let mut to_be_told = LONG_WAIT;
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
        if begun.elapsed() > to_be_told {
            println!("  not at rest after {to_be_told:?}: {seen}");
            to_be_told += LONG_WAIT;
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

/// The least position of all.
const FIRST: Position = Position { generation: Generation(0), partition: Partition(0), offset: Offset(0) };

/// What a platform documents of time. Sources: those of `libs/destination`; 2026-11.
struct Rules {
    max_age: Option<Duration>,
    dedup_window: Duration,
}

impl Rules {
    fn of(platform: AdPlatform) -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3_600);
        let (max_age, dedup_window) = match platform {
            AdPlatform::Meta | AdPlatform::TikTok => (Some(days(7)), days(2)),
            AdPlatform::DataManager => (Some(days(90)), days(54)),
            _ => (None, days(1)),
        };
        Self { max_age, dedup_window }
    }

    fn is_too_old(&self, at: SystemTime, now: SystemTime) -> bool {
        let most = self.max_age.map(|most| most - ON_ITS_WAY);
        most.is_some_and(|most| now.duration_since(at).is_ok_and(|age| age > most))
    }

    fn forgets_within(&self, hours: u64) -> bool {
        Duration::from_secs(hours * 3_600) >= self.dedup_window
    }
}

/// Which of these positions of a message_id are events of their own: the first, and, where the claim of that one has run out
/// during a stop, the first that was resolved after it.
fn firsts_of(positions: &BTreeSet<Position>, stopped: Option<&Stopped>) -> Vec<Position> {
    let Some(stopped) = stopped.filter(|stopped| stopped.hours > CLAIM_HOURS) else {
        return in_order(positions).into_iter().take(1).collect();
    };
    let (before, after) = positions.iter().partition(|position| stopped.was_resolved(position));
    [before, after].iter().filter_map(|of| in_order(of).first().copied()).collect()
}

/// As which of its first positions a platform may have got an event: that which is not dead; and one that is dead because nobody
/// knows whether it arrived, too.
fn delivered_at<'a>(firsts: &[Position], letter: impl Fn(Position) -> Option<&'a Letter>) -> Vec<Position> {
    let mut may_be = Vec::new();
    for first in firsts {
        match letter(*first) {
            None => {
                may_be.push(*first);
                break;
            }
            Some(letter) if letter.code == "outcome_unknown" => may_be.push(*first),
            Some(_) => {}
        }
    }
    may_be
}

fn in_order(positions: &BTreeSet<Position>) -> Vec<Position> {
    let mut positions: Vec<Position> = positions.iter().copied().collect();
    positions.sort_by_key(|position| (position.generation, position.offset));
    positions
}

/// An event that is not delivered, with the reason.
struct Letter {
    message_id: String,
    code: String,
    died_at: SystemTime,
}

/// All of them, by connection and position.
async fn dead_letters(
    stage: &Stage,
    workspace: &Workspace,
) -> anyhow::Result<BTreeMap<(i64, Position), Letter>> {
    let rows: Vec<(i64, i32, i32, i64, String, String, f64)> = sqlx::query_as(
        "select connection_id, partition, generation, event_offset, message_id, code, extract(epoch from died_at)::float8
         from delivery.dead_letter where workspace_id = $1",
    )
    .bind(workspace.id.0)
    .fetch_all(&stage.pool)
    .await?;
    let letters =
        rows.into_iter().map(|(connection, partition, generation, offset, message_id, code, died)| {
            let at =
                Position::new(generation.cast_unsigned(), partition.cast_unsigned(), offset.cast_unsigned());
            let died_at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(died);
            ((connection, at), Letter { message_id, code, died_at })
        });
    Ok(letters.collect())
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
    received: &BTreeMap<String, BTreeSet<Position>>,
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
            // The layout before may have had the person in another partition.
            let moved = before.partition != after.partition && before.generation == after.generation;
            if moved || (before.generation, before.offset) >= (after.generation, after.offset) {
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
    firsts: &BTreeMap<&'a str, Vec<Position>>,
    won: impl Fn(&str) -> Vec<Position>,
    look_at: &mut BTreeSet<String>,
) -> Vec<&'a str> {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    let mut newest: BTreeMap<&str, (Position, &str)> = BTreeMap::new();
    let mut swapped = Vec::new();
    let mut copies = 0;
    for event in counted {
        copies += u64::from(event.duplicates);
        let times = times.entry(&event.event_id).or_default();
        *times += 1;
        // What is counted and not in the journal was told of already.
        if *times > 1 || !firsts.contains_key(event.event_id.as_str()) {
            continue;
        }
        let newest = newest.entry(&sent[&event.event_id].event.person).or_insert((FIRST, ""));
        let may_be = won(&event.event_id);
        // The earliest that keeps the order: what comes later has the most room then.
        let keeps = |at: &&Position| (at.generation, at.offset) >= (newest.0.generation, newest.0.offset);
        match may_be.iter().find(keeps) {
            Some(at) => *newest = (*at, event.event_id.as_str()),
            None => {
                swapped.push(format!("{} at {may_be:?} after {} at {platform}", event.event_id, newest.1));
            }
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
    firsts.keys().filter(|id| sent.contains_key(**id) && !times.contains_key(**id)).copied().collect()
}

/// The ledger and the platform count the same, and every first occurrence has an end: delivered, blocked, or one of the two that
/// [`check`] looks at event by event. No event has another state than these or duplicate: all are good ones.
fn in_ledger(
    findings: &mut Findings,
    platform: AdPlatform,
    balance: &ConnectionBalance,
    counted: u64,
    winners: u64,
) {
    let (mut delivered, mut duplicates, mut blocked, mut unknown, mut expired) = (0, 0, 0, 0, 0);
    for state in &balance.states {
        match state.state.as_str() {
            "delivered" => delivered += state.count,
            "duplicate" => duplicates += state.count,
            "blocked" if !state.reason.is_empty() => blocked += state.count,
            "dead" if state.reason == "outcome_unknown" => unknown += state.count,
            "dead" if state.reason == "event_too_old" => expired += state.count,
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
    findings.expired += expired;
    if balance.difference != 0 || !balance.faults.is_empty() {
        let (difference, faults) = (balance.difference, balance.faults.join("; "));
        findings.faults.push(format!("{platform}: the balance is off by {difference}: {faults}"));
    }
    // What nobody knows is either there or not; of what came again after its claim's life the platform dropped a copy.
    let there = delivered.saturating_sub(findings.anew)..=delivered + unknown;
    if !there.contains(&counted) || winners != delivered + blocked + unknown + expired {
        findings.faults.push(format!(
            "{platform} counted {counted} of {winners}; the ledger says delivered {delivered}, blocked {blocked}, unknown \
             {unknown}, expired {expired}"
        ));
    }
    if duplicates != findings.duplicates {
        let expected = findings.duplicates;
        findings
            .faults
            .push(format!("{platform}: {duplicates} duplicates in the ledger, {expected} expected"));
    }
}

/// The first occurrences, whose states at each connection fit what its platform has, and duplicates of them.
fn told_well(
    story: &[EventStory],
    accepted: &[Position],
    fits: impl Fn(AdPlatform, Option<Position>, &DeliveryStory) -> bool,
    workspace: &Workspace,
) -> Result<(), String> {
    let position = |of: Option<pb::Position>| of.map(|p| Position::new(p.generation, p.partition, p.offset));
    // Of what was resolved longer ago than claims live the ledger alone remembers what it was.
    let is_duplicate = |told: &EventStory| {
        let states = &mut told.deliveries.iter().map(|delivery| delivery.state.as_str());
        told.duplicate_of.is_some() || states.len() > 0 && states.all(|state| state == "duplicate")
    };
    let firsts: BTreeSet<Position> =
        story.iter().filter(|told| !is_duplicate(told)).filter_map(|told| position(told.position)).collect();
    if !firsts.iter().eq(accepted.iter().collect::<BTreeSet<_>>()) {
        return Err(format!("accepted first at {accepted:?}, and {firsts:?} count as the first"));
    }
    let of_none = |told: &&EventStory| position(told.duplicate_of).is_some_and(|of| !firsts.contains(&of));
    if let Some(stray) = story.iter().find(of_none) {
        return Err(format!("{:?} is a duplicate of {:?}", stray.position, stray.duplicate_of));
    }
    for told in story {
        for (connection, platform) in &workspace.connections {
            let at: Vec<&DeliveryStory> =
                told.deliveries.iter().filter(|delivery| delivery.connection_id == *connection).collect();
            let well = match at[..] {
                [only] if is_duplicate(told) => only.state == "duplicate",
                [only] => fits(*platform, position(told.position), only),
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
