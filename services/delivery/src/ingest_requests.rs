//! What a platform says later about requests that it took at once (Google's Data Manager: half an hour later, in counts). Each request is
//! asked about, further and further apart, until its verdict is there, and the verdict is kept beside the connection: how many events
//! failed for which reason, and how many were taken with a warning.
//!
//! The verdict names no event. So the events stay what the ledger has them as: delivered, with the mark "unconfirmed" and the request's
//! id, by which the story of an event finds the verdict.
//!
//! Every process of delivery asks. A request is claimed before it is asked about, for longer than that takes; who was away for longer
//! writes nothing any more. What keeps a process from asking (a token, the way to the platform, its quota) does not count as a look.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracklayer_destination::Answer;
use tracklayer_destination::data_manager::{
    FIRST_STATUS, Fate, MOST_LOOKS, Verdict, fate_of, next_look, read_status,
};
use tracklayer_ids::ConnectionId;

use crate::clock::Clock;
use crate::connections::Connections;
use crate::http::{SendError, Sender};
use crate::oauth::Tokens;
use crate::quota::Quota;
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::ingest_requests::{Claimed, IngestRequestStore, Reasons, ToldStatus};

/// How often it is looked whether a request is due.
const EVERY: Duration = Duration::from_secs(10);
/// Requests that are claimed at once.
const AT_ONCE: i64 = 20;
/// Rounds of claims in a row, after which narrower work has its turn.
const ROUNDS: usize = 50;
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a claim holds: all of [`AT_ONCE`] may take [`TIMEOUT`] each, and wait for the quota.
const CLAIMED_FOR: SignedDuration = SignedDuration::from_mins(10);
/// How long a question may wait for the connection's quota: lanes go first where it is scarce.
const QUOTA_WAIT: Duration = Duration::from_secs(15);
/// After so long nobody asks any more, whatever kept us from asking.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long a verdict is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A refused token is renewed, and the question asked again after this.
const RENEWED: Duration = Duration::from_secs(60);

/// The platform never told.
pub const UNKNOWN: &str = "UNKNOWN";

/// Asks for verdicts. Cheap to clone.
#[derive(Clone)]
pub struct VerdictPoller {
    /// Rows.
    pub store: IngestRequestStore,
    /// Whose requests they are.
    pub connections: Connections,
    /// Asks.
    pub sender: Sender,
    /// As lanes have them.
    pub tokens: Tokens,
    /// As lanes have it.
    pub quota: Quota,
}

/// What comes of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// It is told, for good.
    Told(ToldStatus),
    /// Not yet: ask again after this. It counts as a look.
    Later(Duration, String),
    /// It could not be asked: again after this.
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

    /// Asks about everything that is due, and forgets what is old. Answers how many requests were asked about.
    ///
    /// # Errors
    /// The database. What was not done is by the next round.
    pub async fn round(&self, clock: &Clock) -> Result<u64, StoreError> {
        let mut asked = 0;
        // A platform that gave no answer is not asked again in this round.
        let mut away = HashSet::new();
        for _ in 0..ROUNDS {
            let now = clock.now();
            let until = now.checked_add(CLAIMED_FOR).unwrap_or(now);
            let claimed = self.store.claim(now, until, AT_ONCE).await?;
            if claimed.is_empty() {
                break;
            }
            for request in claimed {
                let next = self.ask(&request, &mut away).await;
                asked += 1;
                self.write(&request, next, clock.now()).await?;
            }
        }
        let now = clock.now();
        self.store.forget(now.checked_sub(KEPT).unwrap_or(Timestamp::UNIX_EPOCH)).await?;
        Ok(asked)
    }

    async fn write(&self, claimed: &Claimed, next: Next, now: Timestamp) -> Result<(), StoreError> {
        let is_late = now.duration_since(claimed.sent_at) > LONGEST;
        let at = |wait: Duration| {
            let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
            now.checked_add(wait).unwrap_or(now)
        };
        let told = match next {
            Next::Told(told) => told,
            Next::Later(..) | Next::Unasked(..) if is_late => never(next_words(&next)),
            Next::Later(wait, why) => {
                return self.store.put_off(claimed, claimed.looks, at(wait), &why).await;
            }
            Next::Unasked(wait, why) => {
                let looks = claimed.looks.saturating_sub(1);
                return self.store.put_off(claimed, looks, at(wait), &why).await;
            }
        };
        if self.store.tell(claimed, &told, now).await? {
            tell_of(claimed, &told);
        }
        Ok(())
    }

    async fn ask(&self, claimed: &Claimed, away: &mut HashSet<ConnectionId>) -> Next {
        let Some(connection) = self.connections.one(claimed.workspace, claimed.connection) else {
            return match self.connections.all() {
                None => Next::Unasked(FIRST_STATUS, "there is no configuration yet".to_owned()),
                Some(_) => Next::Told(never("the connection is not there any more".to_owned())),
            };
        };
        let destination = match connection.destination.as_deref() {
            Ok(destination) => destination,
            Err(why) => {
                return Next::Unasked(FIRST_STATUS, format!("the connection cannot be opened: {why}"));
            }
        };
        if away.contains(&connection.id) {
            return Next::Unasked(FIRST_STATUS, "the platform gave no answer".to_owned());
        }
        let Some(settings) = destination.oauth() else {
            return Next::Told(never("the connection leads elsewhere by now".to_owned()));
        };
        let token = match self.tokens.get(connection.id, connection.revision, settings).await {
            Ok(token) => token,
            Err(error) => {
                away.insert(connection.id);
                return Next::Unasked(FIRST_STATUS, error.to_string());
            }
        };
        let Some(request) = destination.status_request(&claimed.request_id, &token) else {
            return Next::Told(never("the connection leads elsewhere by now".to_owned()));
        };
        let admitted = self.quota.admit(connection.id, destination.limits());
        let Ok(_admission) = tokio::time::timeout(QUOTA_WAIT, admitted).await else {
            away.insert(connection.id);
            return Next::Unasked(
                FIRST_STATUS,
                "the connection's quota had no room beside its lanes".to_owned(),
            );
        };
        match self.sender.send(&request, TIMEOUT).await {
            Ok(answer) if answer.status == 401 => {
                self.tokens.forget(connection.id, connection.revision, &token).await;
                away.insert(connection.id);
                Next::Unasked(RENEWED, "the access token was refused".to_owned())
            }
            Ok(answer) => {
                if answer.status == 429 {
                    away.insert(connection.id);
                }
                read(&answer, claimed.looks)
            }
            Err(SendError::NotSent(why) | SendError::Unknown(why)) => {
                away.insert(connection.id);
                Next::Unasked(FIRST_STATUS, why)
            }
        }
    }
}

/// What an answer means after so many looks, this one included.
fn read(answer: &Answer, looks: u32) -> Next {
    if matches!(answer.status, 403 | 408 | 429 | 500..) {
        let wait = answer.retry_after().map_or(FIRST_STATUS, |asked| asked.max(RENEWED));
        return Next::Unasked(wait, format!("HTTP {}", answer.status));
    }
    let verdict = read_status(answer);
    let why = match verdict {
        Verdict::Told { status, failed, codes, warnings, .. } => {
            let detail = String::new();
            return Next::Told(ToldStatus { status, failed, reasons: codes, warnings, detail });
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
        Next::Told(told) => told.detail.clone(),
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
        let Next::Told(told) = read(&answer("PARTIAL_SUCCESS", errors), 1) else { panic!("it is told") };
        assert_eq!((told.status.as_str(), told.failed), ("PARTIAL_SUCCESS", 2));
        assert_eq!(told_in_words(&told), "verdict about the request: PARTIAL_SUCCESS (INVALID_GCLID 2)");
    }

    #[test]
    fn what_is_not_told_is_asked_again_and_not_for_ever() {
        let processing = answer("PROCESSING", json!([]));
        let wait = |looks| match read(&processing, looks) {
            Next::Later(wait, _) => wait.as_secs() / 60,
            other => panic!("{other:?}"),
        };
        assert_eq!((1..MOST_LOOKS).map(wait).collect::<Vec<_>>(), [30, 60, 120, 240, 480, 480, 480]);
        let Next::Told(told) = read(&processing, MOST_LOOKS) else { panic!("nobody asks any more") };
        assert_eq!(told.status, UNKNOWN);
        assert!(
            matches!(read(&Answer::new(400, "{}"), 1), Next::Later(..)),
            "the platform knows no such request"
        );
    }

    #[test]
    fn what_keeps_us_from_asking_is_no_look() {
        for status in [403, 429, 500, 503] {
            assert!(matches!(read(&Answer::new(status, ""), MOST_LOOKS), Next::Unasked(..)), "{status}");
        }
        let mut busy = Answer::new(429, "");
        busy.headers.insert("retry-after", http::HeaderValue::from_static("90"));
        assert!(matches!(read(&busy, 1), Next::Unasked(wait, _) if wait == Duration::from_secs(90)));
    }
}
