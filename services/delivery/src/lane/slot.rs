//! One event in the hands of a lane, from its plan to its verdict.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tracklayer_destination::{Consent, Deliverable, Item, Key, KeySet, Note, OrderEffect};
use tracklayer_ids::{ConnectionId, SubjectKey};

use super::plan::{LOST, RETENTION};
use crate::entry::Entry;
use crate::ledger::{State, Verdict};
use crate::match_keys::Kept;
use crate::replay::judge::ERASED;
use crate::store::dead_letters::Whose;
use crate::store::ledger::{DeadRow, RetryRow, Settled};
use crate::store::replay_events::{Ended, Mark};

/// Most characters of what a platform said that the ledger keeps.
const MAX_DETAIL_CHARS: usize = 500;
/// How old a decision may be at the request: whom a person is linked to may have changed since, and a narrowing names only
/// those who are linked when it comes.
const MAX_DECISION_AGE: SignedDuration = SignedDuration::from_secs(10);

/// A text of somebody else as PostgreSQL takes it: without NUL, and not longer than that many characters.
#[must_use]
pub fn storable(text: &str, max_chars: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(max_chars).collect()
}

/// An event and how far the lane has come with it.
pub struct Slot {
    /// The event.
    pub entry: Arc<Entry>,
    /// The event with this connection's decision and order.
    pub deliverable: Option<Deliverable>,
    /// What would go into a request.
    pub item: Option<Box<Item>>,
    /// Newest narrowing that the decision saw.
    pub decided_at: i64,
    /// When consent was asked; for a decision of resolve, the event's receipt, which is earlier.
    pub decided_on: Timestamp,
    /// Which change of the connection consent was asked for.
    pub decided_for: u64,
    /// Whom a narrowing entry may name: everybody that the person was linked to when consent was asked.
    pub subject_keys: Arc<[SubjectKey]>,
    /// Requests that carried it; what the ledger tells.
    pub attempts: u32,
    /// How often the platform asked to try this very event again later.
    pub tries: u32,
    /// How often a request with it was answered by trouble of the platform.
    pub transient_holds: u32,
    /// When a request first carried it and its outcome stayed unknown.
    pub unknown_since: Option<Timestamp>,
    /// What became of it; none while the lane works on it.
    pub verdict: Option<Verdict>,
    /// Not before, for a retry.
    pub retry_at: Option<Timestamp>,
    /// Request and answer of a dead letter.
    pub evidence: Option<Evidence>,
    /// Field to blame for a refusal.
    pub field: String,
    /// What was left out of the event when it was built last; taken once it is counted.
    pub notes: Vec<Note>,
    /// Whether what was left out of it is counted.
    pub notes_counted: bool,
    /// Whether it comes from a retry row, not from the range.
    pub is_retry: bool,
    /// What it was before a replay took it; none: none has.
    pub replayed: Option<Mark>,
    /// When its last request was begun, for the trace.
    pub sent_at: Option<std::time::SystemTime>,
    /// What its delivery does to an order; kept when the item is let go.
    pub order: Option<OrderEffect>,
    /// Whether the platform had it already, or another one in its place, which it keeps.
    pub there_before: bool,
    /// What its person could be matched by; kept when the item is let go.
    pub matched: Option<Matched>,
    /// Match keys of which it had a value that was of no use when it was built last, and why.
    pub keys_left_out: Vec<(Key, &'static str)>,
    /// What it waits under if it waits: its visitor's key, or its order's.
    pub key: u64,
    /// What its retry row waited under.
    pub came_under: u64,
    /// Key of the order that it changes, if it changes one.
    pub order_wait: Option<u64>,
    /// How long it has waited for its order, holds apart; none: it did not have to.
    pub waited: Option<SignedDuration>,
    /// What it takes over from the sale that it changes.
    pub borrowed: Option<Box<Borrowed>>,
}

/// What the person of an event could be matched by as it went out, or would have.
pub struct Matched {
    /// The platform's name of the event.
    pub name: String,
    /// The keys.
    pub keys: KeySet,
}

/// What a sale was matched by, lent to a change of it that knows nobody.
pub struct Borrowed {
    /// The sale's order.
    pub order: String,
    /// What is kept of it: consent is asked about its person as well.
    pub kept: Kept,
}

/// The last request and its answer, masked and shortened.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The request.
    pub request: String,
    /// The answer.
    pub answer: String,
}

impl Slot {
    /// A slot at its beginning.
    #[must_use]
    pub fn new(entry: Arc<Entry>) -> Self {
        Self {
            decided_at: entry.narrowing_seq,
            decided_on: Timestamp::from_millisecond(entry.received_ms).unwrap_or_default(),
            decided_for: 0,
            subject_keys: Arc::clone(&entry.subject_keys),
            key: entry.order_key,
            came_under: entry.order_key,
            entry,
            deliverable: None,
            item: None,
            attempts: 0,
            tries: 0,
            transient_holds: 0,
            unknown_since: None,
            verdict: None,
            retry_at: None,
            evidence: None,
            field: String::new(),
            notes: Vec::new(),
            notes_counted: false,
            is_retry: false,
            replayed: None,
            sent_at: None,
            order: None,
            there_before: false,
            matched: None,
            keys_left_out: Vec::new(),
            order_wait: None,
            waited: None,
            borrowed: None,
        }
    }

    /// Puts resolve's decision for the connection into the deliverable, unless there is a newer one.
    pub fn take_decision_of_resolve(&mut self, connection: ConnectionId) {
        if self.deliverable.is_some() {
            return;
        }
        let decision = self.entry.decision(connection);
        self.decided_for = decision.map_or(0, |d| d.connection_revision);
        let consent = Consent::of_resolve(decision);
        self.deliverable = self.entry.deliverable.as_ref().map(|d| d.for_connection(consent, None));
    }

    /// Whether consent has to be asked again: the connection is another than was asked for, or too much time has passed for
    /// the links between people to be the same.
    #[must_use]
    pub fn decision_is_stale(&self, revision: u64, now: Timestamp) -> bool {
        self.decided_for != revision || now.duration_since(self.decided_on) > MAX_DECISION_AGE
    }

    /// Closes the slot.
    pub fn settle(&mut self, state: State, reason: impl Into<String>, detail: &str, now: Timestamp) {
        let latency = now.as_millisecond().saturating_sub(self.entry.received_ms).max(0);
        self.verdict = Some(Verdict {
            state,
            reason: storable(&reason.into(), MAX_DETAIL_CHARS),
            detail: storable(detail, MAX_DETAIL_CHARS),
            attempts: self.attempts,
            latency_ms: u32::try_from(latency).unwrap_or(u32::MAX),
            consent: self.consent_word(),
        });
        self.order = None;
        if let Some(item) = self.item.take() {
            let Item { name, keys, order, .. } = *item;
            self.matched = keys.map(|keys| Matched { name, keys });
            self.order = order.filter(|_| state == State::Delivered);
        }
    }

    /// What its delivery does to an order.
    #[must_use]
    pub fn order_effect(&self) -> Option<OrderEffect> {
        self.order.clone().filter(|_| !self.is_sale_there_before())
    }

    /// What it says of an order that the platform had before: whether that was this sale or another, nobody knows.
    #[must_use]
    pub fn sale_there_before(&self) -> Option<OrderEffect> {
        self.order.clone().filter(|_| self.is_sale_there_before())
    }

    fn is_sale_there_before(&self) -> bool {
        self.there_before && matches!(self.order, Some(OrderEffect::Sold { .. }))
    }

    fn consent_word(&self) -> String {
        match self.deliverable.as_ref().map(|d| &d.decision) {
            None => String::new(),
            Some(Consent::Allow | Consent::AllowInPart { .. } | Consent::AllowUnstated) => "allow".to_owned(),
            Some(Consent::Restricted { place, .. }) => format!("restricted in {place}"),
            Some(Consent::Deny { reason }) => format!("deny: {reason}"),
        }
    }

    /// The minute of its receipt, by which it is counted.
    #[must_use]
    pub fn minute(&self) -> i64 {
        self.entry.received_ms.div_euclid(60_000)
    }

    /// As the ledger takes it; none while it has no verdict.
    #[must_use]
    pub fn settled(&self) -> Option<Settled> {
        Some(Settled {
            position: self.entry.position,
            source: self.entry.source,
            minute: self.minute(),
            verdict: self.verdict.clone()?,
        })
    }

    /// Its retry row, if it waits.
    #[must_use]
    pub fn retry_row(&self) -> Option<RetryRow> {
        let verdict = self.verdict.as_ref().filter(|v| v.state == State::Held)?;
        Some(RetryRow {
            position: self.entry.position,
            order_key: self.key,
            attempts: self.attempts,
            tries: self.tries,
            transient_holds: self.transient_holds,
            next_at: self.retry_at.unwrap_or_default(),
            first_sent_at: self.unknown_since,
            waited: self.waited,
            reason: verdict.reason.clone(),
            resolved: self.entry.raw.to_vec(),
        })
    }

    /// How its replay ended, if one had taken it.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let before = self.replayed.as_ref()?;
        let verdict = self.verdict.as_ref().filter(|v| v.state != State::Held)?;
        Some(Ended {
            position: self.entry.position,
            state: verdict.state,
            reason: verdict.reason.clone(),
            was_delivered: before.state == State::Delivered,
        })
    }

    /// Its dead letter, if it is dead. Of what was given up for its room there is none: the copies would take as much. Nor is there one
    /// of what was lost, of which there is no copy, or of somebody who was erased, of whom nothing is kept.
    #[must_use]
    pub fn dead_row(&self) -> Option<DeadRow> {
        let is_letter = |v: &&Verdict| {
            v.state == State::Dead
                && ![RETENTION, LOST].contains(&v.reason.as_str())
                && !self.is_of_somebody_erased()
        };
        let verdict = self.verdict.as_ref().filter(is_letter)?;
        let evidence = self.evidence.clone().unwrap_or_default();
        Some(DeadRow {
            position: self.entry.position,
            message_id: storable(&self.entry.message_id, usize::MAX),
            code: verdict.reason.clone(),
            field: storable(&self.field, MAX_DETAIL_CHARS),
            detail: verdict.detail.clone(),
            request: evidence.request,
            answer: evidence.answer,
            resolved: self.entry.raw.to_vec(),
            whose: Some(Whose { subject_keys: self.subject_keys.to_vec(), decided_at: self.decided_at }),
        })
    }

    fn is_of_somebody_erased(&self) -> bool {
        let decision = self.deliverable.as_ref().map(|deliverable| &deliverable.decision);
        matches!(decision, Some(Consent::Deny { reason }) if reason == ERASED)
    }
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::Position;
    use tracklayer_proto::event::v1::{ConnectionDecision, ResolvedEvent};

    use super::*;

    fn slot(revision: u64, received_ms: i64) -> Slot {
        use prost::Message as _;
        let resolved = ResolvedEvent {
            decisions: vec![ConnectionDecision {
                connection_id: 7,
                outcome: 1,
                connection_revision: revision,
                ..ConnectionDecision::default()
            }],
            received_at: Some(prost_types::Timestamp { seconds: received_ms / 1_000, nanos: 0 }),
            ..ResolvedEvent::default()
        };
        let entry = Entry::decode(Position::new(1, 0, 0), resolved.encode_to_vec().into());
        let mut slot = Slot::new(Arc::new(entry));
        slot.take_decision_of_resolve(ConnectionId(7));
        slot
    }

    #[test]
    fn a_decision_is_good_for_its_own_connection_and_for_ten_seconds() {
        let received: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let slot = slot(3, received.as_millisecond());
        let after = |seconds: i64| received + SignedDuration::from_secs(seconds);
        assert!(!slot.decision_is_stale(3, after(10)));
        assert!(slot.decision_is_stale(3, after(11)), "links may have changed");
        assert!(slot.decision_is_stale(4, after(0)), "the connection may want less by now");
        assert!(!slot.decision_is_stale(3, after(-60)), "a clock that runs ahead is no age");
    }

    #[test]
    fn of_somebody_who_was_erased_no_letter_is_kept() {
        let letter_of = |reason: &str| {
            let mut slot = slot(1, 0);
            let deliverable = slot.deliverable.as_mut().unwrap();
            deliverable.decision = Consent::Deny { reason: reason.to_owned() };
            slot.settle(State::Dead, "outcome_unknown", "", Timestamp::UNIX_EPOCH);
            slot.dead_row()
        };
        assert!(letter_of("erased").is_none());
        assert!(letter_of("withdrawn").is_some());
    }

    #[test]
    fn what_somebody_else_said_is_stored_without_nul_and_cut() {
        assert_eq!(storable("a\0b\0", 10), "ab");
        assert_eq!(storable("\0äöü", 2), "äö");
    }

    #[test]
    fn no_text_of_a_verdict_or_a_dead_letter_holds_a_nul() {
        let mut slot = slot(1, 0);
        slot.field = "properties.\0".to_owned();
        slot.settle(State::Dead, "rejected_by_platform", "bad \0 byte", Timestamp::UNIX_EPOCH);
        let dead = slot.dead_row().unwrap();
        assert_eq!((dead.detail.as_str(), dead.field.as_str()), ("bad  byte", "properties."));
    }
}
