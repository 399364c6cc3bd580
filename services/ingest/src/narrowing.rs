//! Narrowing signals go into the consent log before their event is acknowledged, so that an opt-out in one lagging
//! partition stops a purchase in another.
//!
//! The trick is the cache: for each person and device the hash of the last statement that this process saw. A repeat (GPC is
//! on every request) is skipped only while *all* identifiers of the event last said the very same; any other statement, a
//! widening one too, takes the entry away. Entries live briefly, since another replica may have seen something in between.

use std::collections::HashMap;
use std::time::Duration;

use moka::sync::Cache;
use tracklayer_event::consent::{may_narrow, says_anything};
use tracklayer_event::identifiers::{Level, identifiers_of};
use tracklayer_ids::{MasterKey, SubjectKey, WorkspaceId};
use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;
use tracklayer_proto::consent::v1::{Place, RecordItem, RecordRequest, Subject, SubjectLevel};
use tracklayer_proto::event::v1::{ConsentSignals, Event};
use tracklayer_rpc::Channel;

use crate::error::IngestError;
use crate::metrics;
use crate::source::Source;

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
    last_statement: Cache<(WorkspaceId, SubjectKey), u64>,
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
        Self { consent: ConsentServiceClient::new(consent), master_key, timeout, last_statement }
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
        let mut statements: Vec<(SubjectKey, Option<u64>)> = Vec::new();
        let mut in_request: HashMap<SubjectKey, Option<u64>> = HashMap::new();
        for event in events {
            let Some(signals) = event.consent.as_ref().filter(|s| says_anything(s)) else { continue };
            let subjects: Vec<(SubjectKey, Level)> = identifiers_of(event, &source.user_id_type)
                .iter()
                .map(|id| (key.subject(&id.r#type, &id.value), id.level))
                .collect();
            let hash = statement_hash(signals);
            let narrows = may_narrow(signals);
            let last = |subject: &SubjectKey| {
                let cached = || self.last_statement.get(&(source.workspace, *subject));
                in_request.get(subject).copied().unwrap_or_else(cached)
            };
            if narrows
                && !subjects.is_empty()
                && !subjects.iter().all(|(subject, _)| last(subject) == Some(hash))
            {
                items.push(record_item(event, signals, &subjects, source));
            }
            for (subject, _) in subjects {
                let remembered = narrows.then_some(hash);
                in_request.insert(subject, remembered);
                statements.push((subject, remembered));
            }
        }
        // What may have widened is forgotten whatever happens next.
        for (subject, _) in statements.iter().filter(|(_, hash)| hash.is_none()) {
            self.last_statement.invalidate(&(source.workspace, *subject));
        }
        self.send(source.workspace, items).await?;
        for (subject, hash) in in_request {
            if let Some(hash) = hash {
                self.last_statement.insert((source.workspace, subject), hash);
            }
        }
        Ok(())
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

fn record_item(
    event: &Event,
    signals: &ConsentSignals,
    subjects: &[(SubjectKey, Level)],
    source: &Source,
) -> RecordItem {
    let level = |level: &Level| match level {
        Level::Device => SubjectLevel::Device.into(),
        Level::Person => SubjectLevel::Person.into(),
    };
    RecordItem {
        subjects: subjects
            .iter()
            .map(|(key, l)| Subject { key: key.0.to_vec(), level: level(l), linked: false })
            .collect(),
        signals: Some(signals.clone()),
        captured_at: event.timestamp,
        received_at: event.received_at,
        places: place(signals, source).into_iter().collect(),
        message_id: event.message_id.clone(),
        explicit: None,
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
