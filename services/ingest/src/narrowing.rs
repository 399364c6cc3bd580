//! Narrowing signals go into the consent log before their event is acknowledged, so that an opt-out in one lagging
//! partition stops a purchase in another.
//!
//! What may narrow: a refusal, a string that only consent can read, an unreadable object, and a map of categories that may
//! leave one out (see [`crate::vocabulary`]) or that nobody chose.
//!
//! The trick is the cache: for each person and device the hash of the last statement that this process saw. A repeat (GPC is
//! on every request) is skipped only while *all* identifiers of the event last said the very same; any other statement, a
//! widening one too, takes the entry away, and so do two at the same time. Entries live briefly, since another replica may have seen something in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::Entry;
use moka::ops::compute::Op;
use moka::sync::Cache;
use tracklayer_event::consent::{refuses, says_anything};
use tracklayer_event::identifiers::{EventIdentifier, Level, identifiers_of};
use tracklayer_ids::{MasterKey, WorkspaceId, WorkspaceKey};
use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;
use tracklayer_proto::consent::v1::{Place, RecordItem, RecordRequest, Subject, SubjectLevel};
use tracklayer_proto::event::v1::{ConsentSignals, Event};
use tracklayer_rpc::Channel;

use crate::error::IngestError;
use crate::metrics;
use crate::source::Source;
use crate::vocabulary::Vocabulary;

/// Most people and devices that are remembered; some 100 bytes each.
const REMEMBERED: u64 = 500_000;
/// Most items of one call.
const MAX_ITEMS: usize = 2_500;

/// Writes into the consent log. Cheap to clone.
#[derive(Clone)]
pub struct Narrowing {
    consent: ConsentServiceClient<Channel>,
    master_key: MasterKey,
    timeout: Duration,
    last_statement: Cache<(WorkspaceId, Remembered), Last>,
    statements: Arc<AtomicU64>,
    vocabulary: Arc<Vocabulary>,
}

impl std::fmt::Debug for Narrowing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Narrowing").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Narrowing {
    /// Over a channel to consent.
    #[must_use]
    pub fn new(consent: Channel, master_key: MasterKey, timeout: Duration, remember: Duration) -> Self {
        let last_statement = Cache::builder().max_capacity(REMEMBERED).time_to_live(remember).build();
        let consent = ConsentServiceClient::new(consent);
        Self {
            consent,
            master_key,
            timeout,
            last_statement,
            statements: Arc::default(),
            vocabulary: Arc::default(),
        }
    }

    /// Records what the events narrow; when it answers, the log has it. Does nothing for events that say nothing new.
    ///
    /// # Errors
    /// [`IngestError::Consent`]: the log is away, and no event of the request may be acknowledged.
    pub async fn record(&self, source: &Source, events: &[&Event]) -> Result<(), IngestError> {
        // Most events say nothing: no key is derived for them.
        if !events.iter().any(|e| e.consent.as_ref().is_some_and(says_anything)) {
            return Ok(());
        }
        let key = self.master_key.workspace(source.workspace);
        let mut items = Vec::new();
        let mut widened = Vec::new();
        let mut before: HashMap<Remembered, Option<Last>> = HashMap::new();
        let mut in_request: HashMap<Remembered, Option<u64>> = HashMap::new();
        for event in events {
            let Some(signals) = event.consent.as_ref().filter(|s| says_anything(s)) else { continue };
            let identifiers = identifiers_of(event, &source.user_id_type);
            let remembered: Vec<Remembered> = identifiers.iter().map(remembered).collect();
            let hash = statement_hash(signals);
            let narrows = self.may_narrow(source, signals);
            for who in &remembered {
                before.entry(*who).or_insert_with(|| self.last_statement.get(&(source.workspace, *who)));
            }
            let last = |who: &Remembered| {
                let cached = || before.get(who).copied().flatten().and_then(|last| last.recorded);
                in_request.get(who).copied().unwrap_or_else(cached)
            };
            if narrows && !remembered.is_empty() && !remembered.iter().all(|who| last(who) == Some(hash)) {
                items.push(record_item(event, signals, &identifiers, &key, source));
            }
            for who in remembered {
                in_request.insert(who, narrows.then_some(hash));
                if !narrows {
                    widened.push(who);
                }
            }
        }
        // What may have widened is forgotten whatever happens next.
        for who in widened {
            self.last_statement.insert((source.workspace, who), self.said(None));
        }
        self.send(source.workspace, items).await?;
        for (who, hash) in in_request {
            let Some(hash) = hash else { continue };
            // Another request may have said something else meanwhile: which one was the last is not known then.
            let unchanged = before.get(&who).copied().flatten();
            self.last_statement.entry((source.workspace, who)).and_compute_with(|now| {
                if now.map(Entry::into_value) == unchanged { Op::Put(self.said(Some(hash))) } else { Op::Nop }
            });
        }
        Ok(())
    }

    fn said(&self, recorded: Option<u64>) -> Last {
        Last { recorded, number: self.statements.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether a statement may take away what an earlier one gave. Learns in any case.
    fn may_narrow(&self, source: &Source, signals: &ConsentSignals) -> bool {
        let incomplete =
            signals.has_categories && self.vocabulary.may_lack_one(source.id, &signals.categories);
        // A map that nobody chose, after one that somebody did, grants nothing any more.
        let not_chosen = signals.has_categories && !signals.interaction;
        incomplete || not_chosen || refuses(signals)
    }

    async fn send(&self, workspace: WorkspaceId, items: Vec<RecordItem>) -> Result<(), IngestError> {
        let away = |source: Box<dyn std::error::Error + Send + Sync>| IngestError::Consent { source };
        let mut rest = items;
        while !rest.is_empty() {
            let more = rest.split_off(rest.len().min(MAX_ITEMS));
            let count = rest.len();
            let request = RecordRequest { workspace_id: workspace.0, items: rest };
            let mut consent = self.consent.clone();
            let answered = tokio::time::timeout(self.timeout, consent.record(request)).await;
            answered.map_err(|late| away(Box::new(late)))?.map_err(|status| away(Box::new(status)))?;
            metrics::narrowings_recorded(count);
            rest = more;
        }
        Ok(())
    }
}

/// What this process saw last of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    /// Hash of the statement that the log has; `None` for one that went on without it.
    recorded: Option<u64>,
    /// No two are alike, so that a change is seen also where the same is said again.
    number: u64,
}

/// An identifier in the cache: a plain hash, since most statements are repeats and a keyed one costs more than the rest.
type Remembered = u128;

fn remembered(identifier: &EventIdentifier) -> Remembered {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(identifier.r#type.as_bytes());
    hasher.update(&[0x1f]);
    hasher.update(identifier.value.as_bytes());
    hasher.digest128()
}

fn record_item(
    event: &Event,
    signals: &ConsentSignals,
    identifiers: &[EventIdentifier],
    key: &WorkspaceKey,
    source: &Source,
) -> RecordItem {
    let subject = |identifier: &EventIdentifier| Subject {
        key: key.subject(&identifier.r#type, &identifier.value).0.to_vec(),
        level: match identifier.level {
            Level::Device => SubjectLevel::Device.into(),
            Level::Person => SubjectLevel::Person.into(),
        },
        ..Subject::default()
    };
    RecordItem {
        subjects: identifiers.iter().map(subject).collect(),
        signals: Some(signals.clone()),
        captured_at: event.timestamp,
        received_at: event.received_at,
        places: place(signals, source).into_iter().collect(),
        message_id: event.message_id.clone(),
        ..RecordItem::default()
    }
}

/// The event's own place, else the source's.
fn place(signals: &ConsentSignals, source: &Source) -> Option<Place> {
    [(&signals.place, "event"), (&source.default_place, "source_default")]
        .into_iter()
        .find(|(code, _)| !code.is_empty())
        .map(|(code, provenance)| Place { code: code.clone(), provenance: provenance.to_owned() })
}

fn statement_hash(signals: &ConsentSignals) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&prost::Message::encode_to_vec(signals))
}
