//! The firewall: record, decide, read the narrowing log, explain.
//!
//! A batch costs a constant number of round trips, whatever its size: one read; where something has to be written, a
//! transaction of at most six; one insert of receipts. What was read under the head's lock is what the batch is decided
//! with, so that the number in the answer is the state that the decisions saw.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use tracklayer_ids::{ConnectionId, SubjectKey, WorkspaceId};

use crate::{
    decide::{Case, Evaluation, Query, Subject},
    error::ConsentError,
    explain::{Explanation, explain},
    kind::Kind,
    metrics,
    policy::Policy,
    purpose::Purposes,
    reason::{Outcome, Reason},
    record::{Cause, Changes, Known, Narrowing, Said},
    signal::Signal,
    statement::{Captured, Decoder},
    store::{Batch, Entry, Receipt, Store},
};

/// Bytes of decoded strings that are kept.
const DECODED_BYTES: u64 = 64 * 1024 * 1024;
/// Workspaces whose head is known to exist.
const KNOWN_HEADS: u64 = 100_000;
/// Decisions after which other tasks of the thread get their turn.
const DECISIONS_PER_TURN: usize = 2_000;

/// A key of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectRef {
    /// The key.
    pub key: SubjectKey,
    /// Whether it stands for a person.
    pub person: bool,
    /// Linked by identity and not on the event itself: looked up and named, but nothing is filed under it.
    pub linked: bool,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its keys.
    pub subjects: Vec<SubjectRef>,
    /// What it says.
    pub captured: Captured,
    /// When it says so: never later than its receipt, nor than now.
    pub at: Timestamp,
    /// Receipt.
    pub received_at: Timestamp,
    /// Candidate places; none: unknown.
    pub places: Vec<String>,
    /// Evidence.
    pub message_id: String,
    /// Whether a person is known.
    pub person_known: bool,
    /// Erased.
    pub suppressed: bool,
}

/// A connection that asks.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Which.
    pub connection: ConnectionId,
    /// What it wants.
    pub query: Query,
}

/// The answer for one event and connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// What happens.
    pub outcome: Outcome,
    /// What is shown.
    pub reason: Option<Reason>,
    /// The place that decided.
    pub place: String,
    /// What a payload has to state.
    pub denied: Purposes,
}

/// Answers of a batch.
#[derive(Debug, Clone)]
pub struct Decided {
    /// By item, then by destination.
    pub answers: Vec<Vec<Answer>>,
    /// Newest narrowing that they saw.
    pub narrowing_seq: i64,
}

/// What was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Newest narrowing.
    pub narrowing_seq: i64,
    /// How many items narrowed something.
    pub narrowed: usize,
}

/// The service's domain. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Firewall {
    store: Store,
    decoder: Decoder,
    heads: moka::sync::Cache<WorkspaceId, ()>,
}

impl Firewall {
    /// Over the store, by the policy.
    #[must_use]
    pub fn new(store: Store, policy: Arc<Policy>) -> Self {
        let heads = moka::sync::Cache::new(KNOWN_HEADS);
        Self { store, decoder: Decoder::new(policy, DECODED_BYTES), heads }
    }

    /// The policy that decides.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        self.decoder.policy()
    }

    /// Records a batch. Answered: committed, and each narrowing item has its number.
    ///
    /// # Errors
    /// The database: some or nothing may be stored, and a repeat changes nothing twice.
    pub async fn record(&self, workspace: WorkspaceId, items: &[Item]) -> Result<Recorded, ConsentError> {
        let (_, recorded) = self.record_and_read(workspace, items, true).await?;
        Ok(recorded)
    }

    /// Decides a batch. With `record`, what the events say is recorded first, as [`Self::record`] does it.
    ///
    /// # Errors
    /// The database: the caller holds.
    pub async fn decide(
        &self,
        workspace: WorkspaceId,
        now: Timestamp,
        items: &[Item],
        destinations: &[Destination],
        record: bool,
    ) -> Result<Decided, ConsentError> {
        let (known, recorded) = self.record_and_read(workspace, items, record).await?;
        let narrowing_seq = recorded.narrowing_seq;
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            answers.push(self.decide_item(&known, now, item, destinations));
            if answers.len() * destinations.len().max(1) % DECISIONS_PER_TURN < destinations.len().max(1) {
                tokio::task::yield_now().await;
            }
        }
        metrics::decided(destinations, &answers);
        let batch = Batch {
            workspace,
            decided_at: now,
            policy: self.policy(),
            narrowing_seq,
            message_ids: items.iter().map(|item| item.message_id.as_str()).collect(),
            receipts: receipts(destinations, &answers),
        };
        if !batch.receipts.is_empty() {
            self.store.write_receipts(&batch).await?;
        }
        Ok(Decided { answers, narrowing_seq })
    }

    /// Reads the narrowing log, from the primary.
    ///
    /// # Errors
    /// The database: the caller holds.
    pub async fn read_narrowing(
        &self,
        workspace: WorkspaceId,
        after: i64,
        limit: u32,
    ) -> Result<(Vec<Entry>, i64), ConsentError> {
        Ok(self.store.read_narrowing(workspace, after, limit).await?)
    }

    /// Names subjects for a narrowing that is no signal: merge, split, erasure.
    ///
    /// # Errors
    /// The database.
    pub async fn name(
        &self,
        workspace: WorkspaceId,
        subjects: Vec<SubjectKey>,
        cause: Cause,
        evidence: String,
    ) -> Result<i64, ConsentError> {
        self.ensure_head(workspace).await?;
        let mut writing = self.store.write(workspace).await?;
        writing.number(&[Narrowing { subjects, cause, message_id: evidence }]).await?;
        Ok(writing.commit().await?)
    }

    /// Explains one decision from what is stored and given.
    ///
    /// # Errors
    /// The database.
    pub async fn explain(
        &self,
        workspace: WorkspaceId,
        now: Timestamp,
        item: &Item,
        destination: &Destination,
    ) -> Result<Explanation, ConsentError> {
        let (known, _) = self.record_and_read(workspace, std::slice::from_ref(item), false).await?;
        let signals = self.signals(&known, now, item);
        let codes: Vec<&str> = item.places.iter().map(String::as_str).collect();
        let places = self.policy().places(&codes);
        let case = Case { now, places: &places, subject: subject(item), signals: &signals };
        Ok(explain(self.policy(), &case, &destination.query))
    }

    /// Records if asked to and gives what is stored afterwards.
    async fn record_and_read(
        &self,
        workspace: WorkspaceId,
        items: &[Item],
        record: bool,
    ) -> Result<(Known, Recorded), ConsentError> {
        self.ensure_head(workspace).await?;
        let subjects: HashSet<SubjectKey> =
            items.iter().flat_map(|item| item.subjects.iter().map(|subject| subject.key)).collect();
        let read = self.store.read_signals(&self.decoder, workspace, &subjects).await?;
        let (mut known, narrowing_seq) = (self.by_our_policy(read.policy, read.known)?, read.newest_seq);
        let unchanged = Recorded { narrowing_seq, narrowed: 0 };
        if !record {
            return Ok((known, unchanged));
        }
        let said: Vec<Said> = items.iter().filter_map(|item| self.said(item)).collect();
        // Most batches repeat what is stored: those need no lock.
        if known.record(self.policy(), &said).is_empty() {
            return Ok((known, unchanged));
        }
        let mut writing = self.store.write(workspace).await?;
        let read = writing.read_signals(&self.decoder, &subjects).await?;
        let mut known = self.by_our_policy(read.policy, read.known)?;
        let Changes { rows, replaced, narrowings } = known.record(self.policy(), &said);
        writing.write_signals(&rows, &replaced).await?;
        writing.number(&narrowings).await?;
        let narrowing_seq = writing.commit().await?;
        metrics::recorded(&rows, &narrowings);
        Ok((known, Recorded { narrowing_seq, narrowed: narrowings.len() }))
    }

    /// A number that was read together with another policy's version would vouch for a decision that this policy made.
    fn by_our_policy(&self, in_force: Option<String>, known: Known) -> Result<Known, ConsentError> {
        let ours = self.policy().version();
        match in_force {
            Some(in_force) if in_force != ours => {
                Err(ConsentError::PolicyReplaced { ours: ours.to_owned(), in_force })
            }
            Some(_) | None => Ok(known),
        }
    }

    async fn ensure_head(&self, workspace: WorkspaceId) -> Result<(), ConsentError> {
        if self.heads.get(&workspace).is_none() {
            self.store.ensure_head(workspace).await?;
            self.heads.insert(workspace, ());
        }
        Ok(())
    }

    /// What an event says; `None`: nothing that could change anything, or it was erased.
    fn said(&self, item: &Item) -> Option<Said> {
        if item.suppressed {
            return None;
        }
        let own = || item.subjects.iter().filter(|subject| !subject.linked);
        let persons: Vec<SubjectKey> =
            own().filter(|subject| subject.person).map(|subject| subject.key).collect();
        let own: Vec<SubjectKey> = own().map(|subject| subject.key).collect();
        let statements = self.decoder.statements(&item.captured, item.at);
        // A device and a person together say something even in silence: what binds the one binds the other.
        let introduces = !persons.is_empty() && persons.len() < own.len();
        (!own.is_empty() && (introduces || !statements.is_empty())).then(|| Said {
            own,
            named: item.subjects.iter().map(|subject| subject.key).collect(),
            persons,
            at: item.at,
            received_at: item.received_at,
            statements,
            message_id: item.message_id.clone(),
        })
    }

    /// Stored signals of every key, and what the event itself says.
    fn signals(&self, known: &Known, now: Timestamp, item: &Item) -> Vec<Signal> {
        let mut signals: Vec<Signal> =
            item.subjects.iter().flat_map(|subject| known.signals(subject.key, now)).collect();
        let person = item.subjects.iter().any(|subject| subject.person && !subject.linked);
        let mut own: Vec<SubjectKey> =
            item.subjects.iter().filter(|subject| !subject.linked).map(|subject| subject.key).collect();
        if own.is_empty() {
            // Nobody to file it under: it still counts for this event.
            own.push(SubjectKey([0; 16]));
        }
        for statement in self.decoder.statements(&item.captured, item.at) {
            for subject in &own {
                let content = statement.content.clone();
                signals.push(Signal { subject: *subject, person, at: item.at.min(now), own: true, content });
            }
        }
        signals
    }

    fn decide_item(
        &self,
        known: &Known,
        now: Timestamp,
        item: &Item,
        destinations: &[Destination],
    ) -> Vec<Answer> {
        let signals = self.signals(known, now, item);
        let codes: Vec<&str> = item.places.iter().map(String::as_str).collect();
        let places = self.policy().places(&codes);
        let case = Case { now, places: &places, subject: subject(item), signals: &signals };
        let mut evaluation = Evaluation::new(self.policy(), case);
        destinations
            .iter()
            .map(|destination| {
                let decision = evaluation.decide(&destination.query);
                Answer {
                    outcome: decision.outcome,
                    reason: decision.reason,
                    place: decision.place.to_owned(),
                    denied: decision.denied,
                }
            })
            .collect()
    }
}

fn subject(item: &Item) -> Subject {
    Subject { person_known: item.person_known, erased: item.suppressed, known_minor: false }
}

/// One receipt for each distinct answer of each connection.
fn receipts(destinations: &[Destination], answers: &[Vec<Answer>]) -> Vec<Receipt> {
    let mut receipts: Vec<Receipt> = Vec::new();
    for (index, destination) in destinations.iter().enumerate() {
        let mut by_answer: HashMap<&Answer, usize> = HashMap::new();
        for (event, of_event) in answers.iter().enumerate() {
            let Some(answer) = of_event.get(index) else { continue };
            let receipt = *by_answer.entry(answer).or_insert_with(|| {
                receipts.push(Receipt {
                    connection: destination.connection,
                    kind: destination.query.kind.map_or("unknown", Kind::name),
                    outcome: i16::from(answer.outcome.number()),
                    reason: answer.reason.map_or("", Reason::name),
                    place: answer.place.clone(),
                    denied: i16::from(answer.denied.bits()),
                    members: vec![0; answers.len().div_ceil(8)],
                });
                receipts.len() - 1
            });
            receipts[receipt].members[event / 8] |= 1 << (event % 8);
        }
    }
    receipts
}
