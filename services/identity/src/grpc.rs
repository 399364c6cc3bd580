//! `identity.v1` over gRPC: parse, call the domain, answer. No rules in here.

use std::time::SystemTime;

use jiff::Timestamp;
use tonic::{Request, Response, Status};
use tracklayer_ids::{SourceId, SubjectKey, WorkspaceId};
use tracklayer_proto::event::v1::ClickIds;
use tracklayer_proto::identity::v1::identity_service_server::IdentityService;
use tracklayer_proto::identity::v1::{
    Identifier, LookUpRequest, LookUpResponse, MemberIdentifier, Resolution as ProtoResolution, ResolveItem,
    ResolveRequest, ResolveResponse, ResolvedIdentity,
};
use tracklayer_rpc::status;

use crate::click_ids::{ClickKind, Clicks};
use crate::error::IdentityError;
use crate::identifier::RawIdentifier;
use crate::resolve::{Answer, Item, MAX_BATCH, Resolution, Resolved, Resolver};

/// Name of the span of one event.
const SPAN: &str = "identity.resolve";

/// The service.
#[derive(Debug, Clone)]
pub struct IdentityGrpc {
    resolver: Resolver,
}

impl IdentityGrpc {
    /// Over a resolver.
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityGrpc {
    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let started = SystemTime::now();
        let request = request.into_inner();
        let workspace = workspace(request.workspace_id).map_err(|error| status(&error))?;
        if request.items.is_empty() || request.items.len() > MAX_BATCH {
            let error =
                IdentityError::BadRequest { field: "items".to_owned(), why: "1 to 2,500 are allowed" };
            return Err(status(&error));
        }
        let now = Timestamp::try_from(started).unwrap_or_default();
        let mut received = request.items;
        let traceparents: Vec<String> =
            received.iter_mut().map(|item| std::mem::take(&mut item.traceparent)).collect();
        let items: Vec<Item> = received.into_iter().map(|item| parse_item(item, now)).collect();
        let answered = self.resolver.resolve(workspace, &items).await;
        let Resolved { answers, narrowings } =
            answered.map_err(|error| status(&IdentityError::from(error)))?;
        let ended = SystemTime::now();
        for (traceparent, answer) in traceparents.iter().zip(&answers) {
            if !traceparent.is_empty() {
                let attributes = [("resolution", answer.resolution.as_str().to_owned())];
                let _ = tracklayer_telemetry::event_span(SPAN, traceparent, started, ended, &attributes);
            }
        }
        let results = answers.into_iter().map(answer_to_proto).collect();
        Ok(Response::new(ResolveResponse { results, narrowing_seqs: narrowings }))
    }

    async fn look_up(&self, request: Request<LookUpRequest>) -> Result<Response<LookUpResponse>, Status> {
        let request = request.into_inner();
        let workspace = workspace(request.workspace_id).map_err(|error| status(&error))?;
        let identifier = request.identifier.map(parse_identifier).ok_or_else(|| {
            status(&IdentityError::BadRequest { field: "identifier".to_owned(), why: "it is required" })
        })?;
        let profile = self.resolver.look_up(workspace, &identifier).await.map_err(|error| status(&error))?;
        let members = profile.members.into_iter().map(|member| MemberIdentifier {
            r#type: member.type_name,
            key: key_to_proto(member.key),
            first_seen: member.first_seen.map(time_to_proto),
        });
        Ok(Response::new(LookUpResponse {
            canonical_key: key_to_proto(profile.key),
            members: members.collect(),
            collisions: profile.collisions,
        }))
    }
}

fn workspace(id: i64) -> Result<WorkspaceId, IdentityError> {
    if id > 0 {
        Ok(WorkspaceId(id))
    } else {
        Err(IdentityError::BadRequest { field: "workspace_id".to_owned(), why: "it is required" })
    }
}

fn parse_identifier(identifier: Identifier) -> RawIdentifier {
    RawIdentifier { type_name: identifier.r#type, value: identifier.value.into() }
}

/// An event that does not say when it happened, happened now. One that no table can hold must not fail its batch: a time
/// before 1970 is no evidence of when, and an id is kept without NUL.
fn parse_item(item: ResolveItem, now: Timestamp) -> Item {
    let seen_at = item.seen_at.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok()).unwrap_or(now);
    let seen_at = seen_at.max(Timestamp::UNIX_EPOCH);
    Item {
        identifiers: item.identifiers.into_iter().map(parse_identifier).collect(),
        clicks: item.click_ids.map(|ids| parse_clicks(&ids, seen_at)).unwrap_or_default(),
        seen_at,
        source: SourceId(item.source_id),
        message_id: if item.message_id.contains('\0') {
            item.message_id.replace('\0', "")
        } else {
            item.message_id
        },
    }
}

fn parse_clicks(ids: &ClickIds, seen_at: Timestamp) -> Clicks {
    let mut clicks = Clicks::default();
    for (kind, value) in [
        (ClickKind::Fbclid, &ids.fbclid),
        (ClickKind::Fbc, &ids.fbc),
        (ClickKind::Fbp, &ids.fbp),
        (ClickKind::Gclid, &ids.gclid),
        (ClickKind::Gbraid, &ids.gbraid),
        (ClickKind::Wbraid, &ids.wbraid),
        (ClickKind::Ttclid, &ids.ttclid),
        (ClickKind::Ttp, &ids.ttp),
        (ClickKind::GaClientId, &ids.ga_client_id),
    ] {
        clicks.see(kind, value, seen_at);
    }
    clicks
}

fn clicks_to_proto(clicks: &Clicks) -> Option<ClickIds> {
    if clicks.is_empty() {
        return None;
    }
    let value = |kind| clicks.get(kind).map(|seen| seen.value.clone()).unwrap_or_default();
    Some(ClickIds {
        fbclid: value(ClickKind::Fbclid),
        fbc: value(ClickKind::Fbc),
        fbp: value(ClickKind::Fbp),
        gclid: value(ClickKind::Gclid),
        gbraid: value(ClickKind::Gbraid),
        wbraid: value(ClickKind::Wbraid),
        ttclid: value(ClickKind::Ttclid),
        ttp: value(ClickKind::Ttp),
        ga_client_id: value(ClickKind::GaClientId),
        first_seen: clicks.first_seen().map(time_to_proto),
    })
}

fn answer_to_proto(answer: Answer) -> ResolvedIdentity {
    let resolution = match answer.resolution {
        Resolution::None => ProtoResolution::None,
        Resolution::Computed => ProtoResolution::Computed,
        Resolution::Known => ProtoResolution::Known,
        Resolution::Recorded => ProtoResolution::Recorded,
        Resolution::Contested => ProtoResolution::Contested,
    };
    ResolvedIdentity {
        canonical_key: answer.canonical_key.map(key_to_proto).unwrap_or_default(),
        subject_keys: answer.subject_keys.into_iter().map(key_to_proto).collect(),
        resolution: resolution.into(),
        click_ids: clicks_to_proto(&answer.clicks),
        suppressed: answer.suppressed,
        person_known: answer.person_known,
    }
}

fn key_to_proto(key: SubjectKey) -> Vec<u8> {
    key.0.to_vec()
}

fn time_to_proto(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}
