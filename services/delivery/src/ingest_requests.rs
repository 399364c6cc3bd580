//! What a platform says later about requests that it took at once (Google's Data Manager: half an hour later, in counts). Each request is
//! asked about, further and further apart, until its verdict is there, and the verdict is kept beside the connection: how many events
//! failed for which reason, and how many were taken with a warning.
//!
//! The verdict names no event. So the events stay what the ledger has them as: delivered, with the mark "unconfirmed" and the request's
//! id, by which the story of an event finds the verdict. Only where none of the request's events was taken it
//! is about each of them: then they are dead, in the transaction that writes the verdict down
//! ([`crate::store::refused_requests`]).
//!
//! Every process of delivery asks. A request is claimed before it is asked about, for longer than that takes; who was away for longer
//! writes nothing any more. What keeps a process from asking (a token, the way to the platform, its quota) does not count as a look; the
//! whole connection is left alone then, twice as long each time.
//!
//! No connection waits for another: each claim takes a few requests of everyone who has some, and several connections are asked at the
//! same time, each for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracklayer_destination::Answer;
use tracklayer_destination::data_manager::{
    Conclusion, FIRST_STATUS, Fate, MOST_LOOKS, Verdict, fate_of, next_look, read_status,
};
use tracklayer_ids::{ConnectionId, Position, WorkspaceId};

use crate::clock::Clock;
use crate::connections::Connections;
use crate::entry::Entry;
use crate::http::{SendError, Sender};
use crate::ledger::State;
use crate::oauth::Tokens;
use crate::quota::Quota;
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::ingest_requests::{Claimed, IngestRequestStore, Reasons, RequestedAt, ToldStatus};
use crate::store::refused_requests::{Moved, RequestedEvent};
use crate::store::resolved::ResolvedStore;

/// How often it is looked whether a request is due.
const EVERY: Duration = Duration::from_secs(10);
/// Requests that are claimed at once.
const AT_ONCE: i64 = 40;
/// Of one connection.
const EACH: i64 = 10;
/// Connections that are asked at the same time.
const CONNECTIONS: usize = 8;
/// Rounds of claims in a row, and how long they go on, after which narrower work has its turn.
const ROUNDS: usize = 50;
const ROUND: Duration = Duration::from_secs(5 * 60);
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a question may wait for a token.
const TOKEN_WAIT: Duration = Duration::from_secs(10);
/// How long a question may wait for the connection's quota, in which it stands in line with the lanes: first come, first served.
const QUOTA_WAIT: Duration = Duration::from_secs(15);
/// How long one connection is asked in a row.
const BUDGET: Duration = Duration::from_secs(60);
/// How long a claim holds, and after how much of it nothing more is asked: a question whose token is renewed takes a minute and a half
/// at most, and what it tells has to be written down.
const CLAIMED_FOR: Duration = Duration::from_secs(10 * 60);
const ASKING: Duration = Duration::from_secs(7 * 60);
/// After so long nobody asks any more, whatever kept us from asking.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long a verdict is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a connection is left alone at least that cannot be asked, at most (unless the platform asks for longer), and how often that
/// doubles.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST_AWAY: Duration = Duration::from_secs(8 * 3_600);
const MOST_DOUBLED: u32 = 10;
/// So long after it could have been asked again, a connection's troubles are forgotten.
const FORGIVEN: SignedDuration = SignedDuration::from_hours(24);

/// The platform never told.
pub const UNKNOWN: &str = "UNKNOWN";

/// Asks for verdicts. Cheap to clone.
#[derive(Clone)]
pub struct VerdictPoller {
    /// Rows.
    pub store: IngestRequestStore,
    /// The copies of events that a verdict kills.
    pub resolved: ResolvedStore,
    /// Whose requests they are.
    pub connections: Connections,
    /// Asks.
    pub sender: Sender,
    /// As lanes have them.
    pub tokens: Tokens,
    /// As lanes have it.
    pub quota: Quota,
    /// Whom it leaves alone.
    pub away: Away,
}

/// What comes of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// It is told, for good, and its events stay what they are.
    Told(ToldStatus),
    /// It is told, for good: none of its events was taken.
    Refused {
        /// What was told.
        told: ToldStatus,
        /// The reason, or the most frequent one.
        code: String,
    },
    /// Not yet: ask again after this. It counts as a look.
    Later(Duration, String),
    /// It could not be asked: again after this, if it is the first time.
    Unasked(Duration, String),
}

impl VerdictPoller {
    /// Asks until `shutdown`.
    pub async fn run(self, clock: Clock, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let round = shutdown.run_until_cancelled(self.round(&clock)).await;
            match round {
                None => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(error = %error_chain(&error), "verdicts about requests were not asked for");
                }
            }
        }
    }

    /// Asks about what is due, of several connections at the same time, and forgets what is old. Answers of how many requests it had
    /// the claim.
    ///
    /// # Errors
    /// The database. What was not done is by the next round.
    pub async fn round(&self, clock: &Clock) -> Result<u64, StoreError> {
        let mut had = 0;
        let over = Instant::now() + ROUND;
        // Slow ones: not again in this round.
        let mut slow: Vec<ConnectionId> = Vec::new();
        for _ in 0..ROUNDS {
            let now = clock.now();
            let stop = Instant::now() + ASKING;
            let but = [self.away.at(now), slow.clone()].concat();
            let claimed = self.store.claim(now, later(now, CLAIMED_FOR), EACH, AT_ONCE, &but).await?;
            if claimed.is_empty() {
                break;
            }
            let mut by_connection: BTreeMap<ConnectionId, Vec<Claimed>> = BTreeMap::new();
            for request in claimed {
                had += 1;
                by_connection.entry(request.connection).or_default().push(request);
            }
            let asking: Vec<_> =
                by_connection.into_values().map(|requests| self.ask_all(clock, requests, stop)).collect();
            let asking = futures::stream::iter(asking).buffer_unordered(CONNECTIONS);
            let spent: Vec<Option<ConnectionId>> = asking.collect().await;
            slow.extend(spent.into_iter().flatten());
            if Instant::now() >= over {
                break;
            }
        }
        let now = clock.now();
        self.store.forget(now.checked_sub(KEPT).unwrap_or(Timestamp::UNIX_EPOCH)).await?;
        Ok(had)
    }

    /// Asks about requests of one connection, one after another. Answers the connection if its time was over before they were
    /// asked about; the rest is due again when its claim has lapsed.
    async fn ask_all(&self, clock: &Clock, requests: Vec<Claimed>, stop: Instant) -> Option<ConnectionId> {
        let stop = stop.min(Instant::now() + BUDGET);
        // Once it cannot be asked, the others are put off with it.
        let mut away: Option<(Duration, String)> = None;
        for request in &requests {
            let next = if let Some((wait, why)) = away.clone() {
                Next::Unasked(wait, why)
            } else if Instant::now() >= stop {
                return Some(request.connection);
            } else {
                match self.ask(request).await {
                    Next::Unasked(first, why) => {
                        let wait = self.away.put_off(request.connection, first, clock.now());
                        away = Some((wait, why.clone()));
                        Next::Unasked(wait, why)
                    }
                    next => {
                        self.away.is_back(request.connection);
                        next
                    }
                }
            };
            // What cannot be written of one request keeps nobody from the others: it is due again when its claim has lapsed.
            if let Err(error) = self.write(request, next, clock.now()).await {
                tracing::warn!(
                    workspace = request.workspace.0, connection = request.connection.0,
                    request = %request.request_id, error = %error_chain(&error),
                    "what was said of a request was not written down",
                );
            }
        }
        None
    }

    async fn write(&self, claimed: &Claimed, next: Next, now: Timestamp) -> Result<(), StoreError> {
        let is_late = now.duration_since(claimed.sent_at) > LONGEST;
        let told = match next {
            // What has kept its events from being moved for so long will go on to.
            Next::Refused { told, .. } if is_late => told,
            Next::Refused { told, code } => return self.refuse(claimed, &told, &code, now).await,
            Next::Told(told) => told,
            Next::Later(..) | Next::Unasked(..) if is_late => never(next_words(&next)),
            Next::Later(wait, why) => {
                return self.store.put_off(claimed, claimed.looks, later(now, wait), &why).await;
            }
            Next::Unasked(wait, why) => {
                let looks = claimed.looks.saturating_sub(1);
                return self.store.put_off(claimed, looks, later(now, wait), &why).await;
            }
        };
        if self.store.tell(claimed, &told, now).await? {
            tell_of(claimed, &told);
        }
        Ok(())
    }

    /// Writes down a verdict about a whole request and moves its events, as far as the journal still has
    /// them.
    async fn refuse(
        &self,
        claimed: &Claimed,
        told: &ToldStatus,
        code: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let positions = self.store.positions(claimed).await?;
        let events = requested(&self.resolved, claimed.workspace, &positions).await?;
        let not_retained = positions.len().saturating_sub(events.len()) as u64;
        if let Some(moved) = self.store.refuse(claimed, told, code, events, now).await? {
            tell_of(claimed, told);
            tell_of_moved(claimed, moved, not_retained);
        }
        Ok(())
    }

    async fn ask(&self, claimed: &Claimed) -> Next {
        let unasked = |why: String| Next::Unasked(FIRST_STATUS, why);
        let Some(connection) = self.connections.one(claimed.workspace, claimed.connection) else {
            return match self.connections.all() {
                None => unasked("there is no configuration yet".to_owned()),
                Some(_) => Next::Told(never("the connection is not there any more".to_owned())),
            };
        };
        let destination = match connection.destination.as_deref() {
            Ok(destination) => destination,
            Err(why) => return unasked(format!("the connection cannot be opened: {why}")),
        };
        let Some(settings) = destination.oauth() else {
            return Next::Told(never("the connection leads elsewhere by now".to_owned()));
        };
        let mut is_renewed = false;
        loop {
            let asked = self.tokens.get(connection.id, connection.revision, settings);
            let token = match timeout(TOKEN_WAIT, asked).await {
                Ok(Ok(token)) => token,
                Ok(Err(error)) => {
                    let wait = error.after().map_or(FIRST_STATUS, |asked| asked.max(SHORTEST));
                    return Next::Unasked(wait, error.to_string());
                }
                Err(_) => {
                    return unasked(format!("there was no access token within {} s", TOKEN_WAIT.as_secs()));
                }
            };
            let Some(request) = destination.status_request(&claimed.request_id, &token) else {
                return Next::Told(never("the connection leads elsewhere by now".to_owned()));
            };
            let admitted = self.quota.admit(connection.id, destination.limits());
            let _admission = match timeout(QUOTA_WAIT, admitted).await {
                Ok(Ok(admission)) => admission,
                Ok(Err(used_up)) => return unasked(used_up.to_string()),
                Err(_) => return unasked("the connection's quota had no room beside its lanes".to_owned()),
            };
            match self.sender.send(&request, TIMEOUT).await {
                Ok(answer) if answer.status == 401 && is_renewed => {
                    return unasked("the access token was refused, and a new one as well".to_owned());
                }
                // As a lane does: a token that is not accepted any more is renewed, once.
                Ok(answer) if answer.status == 401 => {
                    let forgotten = self.tokens.forget(connection.id, connection.revision, &token);
                    if timeout(TOKEN_WAIT, forgotten).await.is_err() {
                        return unasked("the access token was refused".to_owned());
                    }
                    is_renewed = true;
                }
                Ok(answer) => return read(&answer, claimed.looks, claimed.events),
                Err(SendError::NotSent(why) | SendError::Unknown(why)) => return unasked(why),
            }
        }
    }
}

/// Connections that could not be asked, and are left alone for a while: twice as long each time, whatever they have due. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct Away(Arc<Mutex<HashMap<ConnectionId, Gone>>>);

#[derive(Debug, Clone, Copy)]
struct Gone {
    until: Timestamp,
    times: u32,
}

impl Away {
    /// Those that are left alone now.
    fn at(&self, now: Timestamp) -> Vec<ConnectionId> {
        let mut gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gone.retain(|_, gone| now.duration_since(gone.until) < FORGIVEN);
        gone.iter().filter(|(_, gone)| gone.until > now).map(|(connection, _)| *connection).collect()
    }

    /// One more time it could not be asked. Answers for how long it is left alone: `first`, if it is the first time.
    fn put_off(&self, connection: ConnectionId, first: Duration, now: Timestamp) -> Duration {
        let mut gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = gone.get(&connection).map_or(0, |gone| gone.times);
        let wait = first.saturating_mul(1 << times.min(MOST_DOUBLED)).min(LONGEST_AWAY.max(first));
        let until = later(now, wait);
        gone.insert(connection, Gone { until, times: times.saturating_add(1) });
        wait
    }

    fn is_back(&self, connection: ConnectionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
    }
}

/// The events at these positions, which are in order, without those that the journal has given back or that
/// are not what was written. A block is read once, and let go before the next.
async fn requested(
    resolved: &ResolvedStore,
    workspace: WorkspaceId,
    positions: &[RequestedAt],
) -> Result<Vec<RequestedEvent>, StoreError> {
    let mut found = Vec::with_capacity(positions.len());
    let mut block: Option<ReadBlock> = None;
    for requested in positions {
        let at = requested.position;
        if !block.as_ref().is_some_and(|block| holds(block, at)) {
            // Before the next one is in memory.
            drop(block.take());
            block = match resolved.read(workspace, at, 1).await {
                Err(StoreError::Trimmed | StoreError::Corrupt { .. }) => None,
                read => read?.first().and_then(|read| Some((read.first, read.events().ok()?))),
            };
        }
        let Some((first, events)) = block.as_ref().filter(|block| holds(block, at)) else { continue };
        let step = usize::try_from(at.offset.0 - first.offset.0).unwrap_or(usize::MAX);
        found.extend(events.get(step).and_then(|bytes| requested_event(*requested, bytes.clone())));
    }
    Ok(found)
}

/// Where a block of the resolved journal begins, and what it holds.
type ReadBlock = (Position, Vec<Bytes>);

fn holds((first, events): &ReadBlock, at: Position) -> bool {
    let end = first.offset.0 + events.len() as u64;
    first.generation == at.generation && (first.offset.0..end).contains(&at.offset.0)
}

/// None of what was erased since, of which nobody knows any more how it was counted.
fn requested_event(at: RequestedAt, bytes: Bytes) -> Option<RequestedEvent> {
    let entry = Entry::decode(at.position, bytes);
    entry.poisoned.is_none().then(|| RequestedEvent {
        at,
        source: entry.source,
        received_ms: entry.received_ms,
        resolved: entry.raw.to_vec(),
        message_id: entry.message_id,
    })
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    now.checked_add(wait).unwrap_or(now)
}

/// What an answer means after so many looks, this one included. `events`: those of the request, more than which no count says.
fn read(answer: &Answer, looks: u32, events: u64) -> Next {
    if matches!(answer.status, 403 | 408 | 429 | 500..) {
        let wait = answer.retry_after().map_or(FIRST_STATUS, |asked| asked.max(SHORTEST));
        return Next::Unasked(wait, format!("HTTP {}", answer.status));
    }
    let verdict = read_status(answer);
    let conclusion = verdict.conclude(events);
    let why = match verdict {
        Verdict::Told { status, failed, total, codes, warnings } => {
            let bounded = |mut reasons: Reasons| {
                for count in reasons.values_mut() {
                    *count = (*count).min(events);
                }
                reasons
            };
            let (failed, detail) = match (status.as_str(), failed, total) {
                ("FAILED", 0, 0) => (events, "the platform gave no reasons"),
                ("FAILED", 0, total) => (total, "the platform gave no reasons"),
                _ => (failed, ""),
            };
            let told = ToldStatus {
                status,
                failed: failed.min(events),
                reasons: bounded(codes),
                warnings: bounded(warnings),
                detail: detail.to_owned(),
            };
            return match conclusion {
                Conclusion::AllFailed { code } => Next::Refused { told, code },
                Conclusion::Confirmed
                | Conclusion::SomeFailed { .. }
                | Conclusion::Later(_)
                | Conclusion::Unreadable => Next::Told(told),
            };
        }
        Verdict::Processing(_) => "the platform is at it".to_owned(),
        Verdict::Unreadable => format!("an answer that tells no verdict (HTTP {})", answer.status),
    };
    match next_look(looks) {
        Some(wait) => Next::Later(wait, why),
        None => Next::Told(never(format!("{why}, after {MOST_LOOKS} looks"))),
    }
}

fn never(detail: String) -> ToldStatus {
    ToldStatus { status: UNKNOWN.to_owned(), detail, ..ToldStatus::default() }
}

fn next_words(next: &Next) -> String {
    match next {
        Next::Later(_, why) | Next::Unasked(_, why) => why.clone(),
        Next::Told(told) | Next::Refused { told, .. } => told.detail.clone(),
    }
}

/// Metrics and a log line. Labels are from closed sets: of reasons only what they mean.
fn tell_of(claimed: &Claimed, told: &ToldStatus) {
    let status = match told.status.as_str() {
        "SUCCESS" => "success",
        "PARTIAL_SUCCESS" => "partial_success",
        "FAILED" => "failed",
        _ => "unknown",
    };
    metrics::counter!("tracklayer_delivery_verdicts_total", "status" => status).increment(1);
    for (reason, events) in &told.reasons {
        let means = match fate_of(reason) {
            Fate::Before => "before",
            Fate::Again => "again",
            Fate::Dead => "dead",
            Fate::Connection => "connection",
        };
        metrics::counter!("tracklayer_delivery_verdict_events_total", "means" => means).increment(*events);
    }
    let warned: u64 = told.warnings.values().sum();
    metrics::counter!("tracklayer_delivery_verdict_events_total", "means" => "warning").increment(warned);
    if status != "success" {
        tracing::warn!(
            workspace = claimed.workspace.0, connection = claimed.connection.0, request = %claimed.request_id,
            status, failed = told.failed, reasons = %in_words(&told.reasons), detail = %told.detail,
            "a platform has judged a request",
        );
    }
}

/// The same of what a verdict about a whole request did to its events. Those that the journal has given back
/// stay what they are.
fn tell_of_moved(claimed: &Claimed, moved: Moved, not_retained: u64) {
    let Moved { dead, elsewhere } = moved;
    metrics::counter!("tracklayer_delivery_events_total", "state" => State::Dead.as_str()).increment(dead);
    for (what, events) in [("dead", dead), ("elsewhere", elsewhere), ("not_retained", not_retained)] {
        metrics::counter!("tracklayer_delivery_verdict_moves_total", "what" => what).increment(events);
    }
    tracing::warn!(
        workspace = claimed.workspace.0, connection = claimed.connection.0, request = %claimed.request_id,
        dead, elsewhere, not_retained, "none of a request's events was taken after all",
    );
}

/// `INVALID_GCLID 2, NO_CONSENT 1`: reasons without the prefix that they all have.
#[must_use]
pub fn in_words(reasons: &Reasons) -> String {
    let short = |reason: &str| {
        let prefixes = ["PROCESSING_ERROR_REASON_", "PROCESSING_WARNING_REASON_"];
        let stripped = prefixes.into_iter().find_map(|prefix| reason.strip_prefix(prefix));
        stripped.unwrap_or(reason).to_owned()
    };
    reasons
        .iter()
        .map(|(reason, events)| format!("{} {events}", short(reason)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The verdict in a few words, for the story of an event of the request.
#[must_use]
pub fn told_in_words(told: &ToldStatus) -> String {
    match (told.status.as_str(), told.reasons.is_empty()) {
        ("", _) => "no verdict about it yet".to_owned(),
        (UNKNOWN, _) => format!("no verdict about it: {}", told.detail),
        (status, true) => format!("verdict about the request: {status}"),
        (status, false) => format!("verdict about the request: {status} ({})", in_words(&told.reasons)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: &str, errors: serde_json::Value) -> Answer {
        let row = json!({
            "requestStatus": status, "errorInfo": { "errorCounts": errors },
            "eventsIngestionStatus": { "recordCount": "3" },
        });
        Answer::new(200, json!({ "requestStatusPerDestination": [row] }).to_string())
    }

    #[test]
    fn a_verdict_is_kept_as_it_is_told() {
        let errors = json!([{ "recordCount": "2", "reason": "PROCESSING_ERROR_REASON_INVALID_GCLID" }]);
        let Next::Told(told) = read(&answer("PARTIAL_SUCCESS", errors), 1, 3) else { panic!("it is told") };
        assert_eq!((told.status.as_str(), told.failed), ("PARTIAL_SUCCESS", 2));
        assert_eq!(told_in_words(&told), "verdict about the request: PARTIAL_SUCCESS (INVALID_GCLID 2)");
    }

    #[test]
    fn no_count_is_above_the_events_of_the_request_and_a_failure_without_counts_is_one_of_all() {
        let most = u64::MAX.to_string();
        let errors = json!([{ "recordCount": most, "reason": "A" }, { "recordCount": most, "reason": "B" }]);
        let Next::Refused { told, .. } = read(&answer("FAILED", errors), 1, 3) else { panic!("it is told") };
        let reasons = BTreeMap::from([("A".to_owned(), 3), ("B".to_owned(), 3)]);
        assert_eq!((told.failed, told.reasons), (3, reasons));
        let Next::Told(told) = read(&answer("FAILED", json!([])), 1, 5) else { panic!("it is told") };
        assert_eq!((told.failed, told.detail.as_str()), (3, "the platform gave no reasons"));
    }

    #[test]
    fn only_what_failed_as_a_whole_is_refused_and_for_its_most_frequent_reason() {
        let counts = |counts: &[(&str, u64)]| {
            let each = |(reason, events): &(&str, u64)| json!({ "recordCount": events, "reason": reason });
            json!(counts.iter().map(each).collect::<Vec<_>>())
        };
        let all = counts(&[("INVALID_GCLID", 1), ("NO_CONSENT", 2)]);
        let next = read(&answer("FAILED", all.clone()), 1, 3);
        assert!(matches!(next, Next::Refused { ref code, .. } if code == "NO_CONSENT"), "{next:?}");
        // Of two events of it the ledger knows only by now.
        assert!(matches!(read(&answer("FAILED", all.clone()), 1, 5), Next::Told(_)));
        assert!(matches!(read(&answer("PARTIAL_SUCCESS", all), 1, 3), Next::Told(_)));
        for errors in [&[("NO_CONSENT", 2)][..], &[("DUPLICATE_GCLID", 3)], &[]] {
            assert!(matches!(read(&answer("FAILED", counts(errors)), 1, 3), Next::Told(_)), "{errors:?}");
        }
    }

    #[test]
    fn who_cannot_be_asked_is_left_alone_for_longer_each_time_until_it_can() {
        let (away, one, now) = (Away::default(), ConnectionId(7), Timestamp::UNIX_EPOCH);
        let minutes = |first: Duration| away.put_off(one, first, now).as_secs() / 60;
        let waits: Vec<u64> = (0..6).map(|_| minutes(FIRST_STATUS)).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 480]);
        assert_eq!(minutes(LONGEST_AWAY * 3), 24 * 60, "as long as the platform asks for");
        let until = later(now, LONGEST_AWAY * 3);
        assert_eq!((away.at(later(now, LONGEST_AWAY)), away.at(until)), (vec![one], vec![]));
        away.is_back(one);
        let waits: Vec<u64> = (0..12).map(|_| minutes(SHORTEST)).collect();
        assert_eq!((waits[..4].to_vec(), waits[11]), (vec![1, 2, 4, 8], 480), "Retry-After: 1");
    }

    #[test]
    fn what_is_not_told_is_asked_again_and_not_for_ever() {
        let processing = answer("PROCESSING", json!([]));
        let wait = |looks| match read(&processing, looks, 3) {
            Next::Later(wait, _) => wait.as_secs() / 60,
            other => panic!("{other:?}"),
        };
        assert_eq!((1..MOST_LOOKS).map(wait).collect::<Vec<_>>(), [30, 60, 120, 240, 480, 480, 480]);
        let Next::Told(told) = read(&processing, MOST_LOOKS, 3) else { panic!("nobody asks any more") };
        assert_eq!(told.status, UNKNOWN);
        assert!(
            matches!(read(&Answer::new(400, "{}"), 1, 3), Next::Later(..)),
            "the platform knows no such request"
        );
    }

    #[test]
    fn what_keeps_us_from_asking_is_no_look() {
        for status in [403, 429, 500, 503] {
            assert!(matches!(read(&Answer::new(status, ""), MOST_LOOKS, 3), Next::Unasked(..)), "{status}");
        }
        let mut busy = Answer::new(429, "");
        busy.headers.insert("retry-after", http::HeaderValue::from_static("90"));
        assert!(matches!(read(&busy, 1, 3), Next::Unasked(wait, _) if wait == Duration::from_secs(90)));
    }
}
