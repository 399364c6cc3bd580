//! Events as identity and consent are asked about them.

use jiff::Timestamp;
use tracklayer_event::identifiers::{EventIdentifier, Level, identifiers_of};
use tracklayer_ids::{SourceId, WorkspaceId, WorkspaceKey};
use tracklayer_proto::consent::v1::{
    DecideItem, DecideRequest, DecideResponse, DestinationQuery, Place, Subject, SubjectLevel,
};
use tracklayer_proto::event::v1::Event;
use tracklayer_proto::identity::v1::{Identifier, ResolveItem, ResolveRequest, ResolvedIdentity};
use tracklayer_rpc::follow::Snapshot;

use crate::clients::Clients;

/// Most items of one call.
const MAX_ITEMS: usize = 2_500;

/// Another service could not answer: nothing is decided, nothing is sent.
#[derive(Debug, thiserror::Error)]
#[error("{service} could not answer")]
pub struct ServiceUnavailable {
    /// Which.
    pub service: &'static str,
    /// Why.
    #[source]
    pub status: Box<tonic::Status>,
}

fn unavailable(service: &'static str) -> impl Fn(tonic::Status) -> ServiceUnavailable {
    move |status| ServiceUnavailable { service, status: Box::new(status) }
}

/// An event that identity and consent are asked about, and its identifiers: found once for both.
#[derive(Debug, Clone)]
pub struct Asked<'e> {
    /// The event.
    pub event: &'e Event,
    /// Its identifiers, as its source names them.
    pub identifiers: Vec<EventIdentifier>,
}

impl<'e> Asked<'e> {
    /// Finds the identifiers.
    #[must_use]
    pub fn about(event: &'e Event, workspace: WorkspaceId, snapshot: &Snapshot) -> Self {
        Self { event, identifiers: identifiers(event, workspace, snapshot) }
    }
}

fn identifiers(event: &Event, workspace: WorkspaceId, snapshot: &Snapshot) -> Vec<EventIdentifier> {
    let source = snapshot.source(workspace, SourceId(event.source_id));
    let user_id_type = source.map_or("user_id", |s| s.user_id_type.as_str());
    identifiers_of(event, if user_id_type.is_empty() { "user_id" } else { user_id_type })
}

/// What identity says of some events.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// In the order of the events.
    pub of_events: Vec<ResolvedIdentity>,
    /// Numbers in the narrowing log of what these events changed about who belongs together.
    pub narrowings: Vec<i64>,
}

/// Asks identity about events, in their order.
///
/// # Errors
/// Identity is away.
pub async fn resolve(
    clients: &Clients,
    workspace: WorkspaceId,
    events: &[Asked<'_>],
) -> Result<Identities, ServiceUnavailable> {
    let mut identities = Identities::default();
    for chunk in events.chunks(MAX_ITEMS) {
        let items = chunk.iter().map(resolve_item).collect();
        let request = ResolveRequest { workspace_id: workspace.0, items };
        let mut identity = clients.identity.clone();
        let answer = identity.resolve(request).await.map_err(unavailable("identity"))?.into_inner();
        if answer.results.len() != chunk.len() {
            let status = tonic::Status::internal("identity answered for another number of events");
            return Err(unavailable("identity")(status));
        }
        // A later part's merge is news to an earlier part's answers; what is whole knows of its own.
        let is_whole = chunk.len() == events.len();
        identities.narrowings.extend(answer.narrowing_seqs.into_iter().filter(|_| is_whole));
        identities.of_events.extend(answer.results);
    }
    Ok(identities)
}

/// Asks identity whose identifiers (types and values) these are, each by itself: nothing is linked by that.
///
/// # Errors
/// Identity is away.
pub async fn who_has(
    clients: &Clients,
    workspace: WorkspaceId,
    identifiers: &[(&str, &str)],
) -> Result<Vec<ResolvedIdentity>, ServiceUnavailable> {
    let mut found = Vec::with_capacity(identifiers.len());
    for chunk in identifiers.chunks(MAX_ITEMS) {
        let item = |(kind, value): &(&str, &str)| ResolveItem {
            identifiers: vec![Identifier { r#type: (*kind).to_owned(), value: (*value).to_owned() }],
            ..ResolveItem::default()
        };
        let request = ResolveRequest { workspace_id: workspace.0, items: chunk.iter().map(item).collect() };
        let mut identity = clients.identity.clone();
        let answer = identity.resolve(request).await.map_err(unavailable("identity"))?.into_inner();
        if answer.results.len() != chunk.len() {
            let status = tonic::Status::internal("identity answered for another number of identifiers");
            return Err(unavailable("identity")(status));
        }
        found.extend(answer.results);
    }
    Ok(found)
}

fn resolve_item(asked: &Asked<'_>) -> ResolveItem {
    let identifiers = asked
        .identifiers
        .iter()
        .map(|id| Identifier { r#type: id.r#type.clone(), value: id.value.clone() })
        .collect();
    let event = asked.event;
    ResolveItem {
        identifiers,
        click_ids: event.click_ids.clone(),
        seen_at: event.timestamp,
        source_id: event.source_id,
        message_id: event.message_id.clone(),
        traceparent: event.traceparent.clone(),
    }
}

/// Asks consent about events whose identity is known, in their order, for some connections.
///
/// # Errors
/// Consent is away.
pub async fn decide(
    clients: &Clients,
    workspace: WorkspaceId,
    key: &WorkspaceKey,
    snapshot: &Snapshot,
    events: &[(&Asked<'_>, &ResolvedIdentity)],
    destinations: &[DestinationQuery],
    record: bool,
) -> Result<DecideResponse, ServiceUnavailable> {
    let mut all = DecideResponse::default();
    for chunk in events.chunks(MAX_ITEMS) {
        let request = DecideRequest {
            workspace_id: workspace.0,
            items: chunk
                .iter()
                .map(|(asked, identity)| decide_item(asked, identity, workspace, key, snapshot))
                .collect(),
            destinations: destinations.to_vec(),
            record,
        };
        let mut consent = clients.consent.clone();
        let answer = consent.decide(request).await.map_err(unavailable("consent"))?.into_inner();
        if answer.decisions.len() != chunk.len() {
            let status = tonic::Status::internal("consent answered for another number of events");
            return Err(unavailable("consent")(status));
        }
        // The lowest number counts: what came after it is looked at again before the send.
        all.narrowing_seq = if all.decisions.is_empty() {
            answer.narrowing_seq
        } else {
            all.narrowing_seq.min(answer.narrowing_seq)
        };
        all.decisions.extend(answer.decisions);
    }
    Ok(all)
}

/// One event as consent is asked about it.
#[must_use]
pub fn decide_item(
    asked: &Asked<'_>,
    identity: &ResolvedIdentity,
    workspace: WorkspaceId,
    key: &WorkspaceKey,
    snapshot: &Snapshot,
) -> DecideItem {
    let event = asked.event;
    let mut subjects: Vec<Subject> = asked
        .identifiers
        .iter()
        .map(|id| Subject {
            key: key.subject(&id.r#type, &id.value).0.to_vec(),
            level: match id.level {
                Level::Device => SubjectLevel::Device.into(),
                Level::Person => SubjectLevel::Person.into(),
            },
            linked: false,
        })
        .collect();
    for linked in &identity.subject_keys {
        if subjects.iter().all(|s| s.key != *linked) {
            subjects.push(Subject {
                key: linked.clone(),
                level: SubjectLevel::Unspecified.into(),
                linked: true,
            });
        }
    }
    let own_place = event.consent.as_ref().map(|c| c.place.as_str()).unwrap_or_default();
    let source = snapshot.source(workspace, SourceId(event.source_id));
    let default_place = source.map_or("", |s| s.default_place.as_str());
    let places = if own_place.is_empty() { (default_place, "source_default") } else { (own_place, "event") };
    DecideItem {
        subjects,
        signals: event.consent.clone(),
        captured_at: event.timestamp,
        received_at: event.received_at,
        places: if places.0.is_empty() {
            Vec::new()
        } else {
            vec![Place { code: places.0.to_owned(), provenance: places.1.to_owned() }]
        },
        message_id: event.message_id.clone(),
        traceparent: event.traceparent.clone(),
        person_known: identity.person_known,
        suppressed: identity.suppressed,
    }
}

/// The protobuf form of an instant.
#[must_use]
pub fn proto_time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}
