//! Batches and single calls.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jiff::Timestamp;
use tracklayer_event::batch::{self, Batch, BodyError, MAX_BATCH_BYTES};
use tracklayer_event::{ParseContext, RejectCode, Rejection, parse_event_text};
use tracklayer_proto::event::v1::EventType;
use tracklayer_rpc::follow::Snapshot;

use super::Edge;
use super::answer::{self, Refusal};
use super::body::{self, MAX_SINGLE_BYTES, reservation};
use super::person::Person;
use crate::admission::{Admitted, Holder, for_body};
use crate::credentials::{self, Authorization};
use crate::error::IngestError;
use crate::ingest::Arrival;
use crate::metrics::{self, Wire};
use crate::outcome::{Incoming, Outcome};
use crate::source::Source;

/// A request with its body, and who is known to have sent it.
struct Received {
    person: Person,
    body: Bytes,
    received_at: Timestamp,
    started: Instant,
    authorization: Option<Authorization>,
    query_key: Option<String>,
}

/// `/v1/batch` and its other names.
pub(super) async fn batch(edge: &Edge, head: &Parts, body: Body) -> Response {
    match take_batch(edge, head, body).await {
        Ok(outcomes) => answer::batch(&outcomes),
        Err(refusal) => refuse(edge, head, &refusal).await,
    }
}

/// `/v1/track` and the like.
pub(super) async fn single(edge: &Edge, head: &Parts, body: Body, event_type: EventType) -> Response {
    match take_single(edge, head, body, event_type).await {
        Ok(Outcome::Rejected(rejection)) => answer::refused(&Refusal::of_rejection(&rejection)),
        Ok(outcome) => answer::batch(&[outcome]),
        Err(refusal) => refuse(edge, head, &refusal).await,
    }
}

/// A refusal, when it may go out.
async fn refuse(edge: &Edge, head: &Parts, refusal: &Refusal) -> Response {
    if refusal.retry_after.is_some()
        && let Some(holder) = told(edge, head, refusal)
    {
        edge.ingest.refusals.pace(holder).await;
    }
    answer::refused(refusal)
}

/// Who is told to come back, as far as that is known. None: there is no configuration, or the key is wrong.
fn told(edge: &Edge, head: &Parts, refusal: &Refusal) -> Option<Holder> {
    if let Some(workspace) = refusal.workspace {
        return Some(Holder::Workspace(workspace));
    }
    let snapshot = edge.ingest.snapshot().ok()?;
    let known = source_of_header(&snapshot, &head.headers).ok()?;
    Some(holder(known.as_ref()))
}

async fn take_batch(edge: &Edge, head: &Parts, body: Body) -> Result<Vec<Outcome>, Refusal> {
    let mut admitted = match admit(edge, head, MAX_BATCH_BYTES) {
        Ok(admitted) => admitted,
        Err(error) => {
            body::discard(body).await;
            return Err(error.into());
        }
    };
    let received = receive(edge, head, body, MAX_BATCH_BYTES, &mut admitted.room).await?;
    let workspace = admitted.known.as_ref().map(|source| source.workspace);
    let bytes = received.body.len();
    edge.ingest.work_on(workspace, bytes, take_received(edge.clone(), admitted, received)).await
}

async fn take_received(
    edge: Edge,
    mut admitted: Admission,
    received: Received,
) -> Result<Vec<Outcome>, Refusal> {
    let parsed = batch::body_text(&received.body).and_then(batch::parse_batch);
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return Err(refuse_body(&edge, admitted.known.as_ref(), &received, error).await),
    };
    let body_key = match &parsed.write_key {
        Some(key) => Some(key.clone()),
        None => parsed.events.first().and_then(|first| batch::write_key_of(first.get()).ok().flatten()),
    };
    let source = authenticate(&admitted.snapshot, &received, body_key)?;
    if admitted.known.is_none() {
        edge.ingest.tell_of(source.workspace, received.body.len());
    }
    edge.ingest.tell_of_more(source.workspace, received.body.len(), parsed.events.len());
    let taken = take_parsed(&edge, &mut admitted.room, &source, &received, &parsed).await;
    taken.map_err(|error| Refusal::from(error).to(source.workspace))
}

async fn take_parsed(
    edge: &Edge,
    room: &mut Admitted,
    source: &Source,
    received: &Received,
    parsed: &Batch<'_>,
) -> Result<Vec<Outcome>, IngestError> {
    room.belongs_to(source.holder())?;
    room.grow_to(for_body(received.body.len()) + parsed.merged_bytes())?;
    metrics::received(Wire::Http, parsed.events.len(), received.body.len());
    let incoming = parse_events(parsed, source, received);
    edge.ingest.accept(source, &received.arrival(), incoming).await
}

async fn take_single(
    edge: &Edge,
    head: &Parts,
    body: Body,
    event_type: EventType,
) -> Result<Outcome, Refusal> {
    let mut admitted = match admit(edge, head, MAX_SINGLE_BYTES) {
        Ok(admitted) => admitted,
        Err(error) => {
            body::discard(body).await;
            return Err(error.into());
        }
    };
    let received = receive(edge, head, body, MAX_SINGLE_BYTES, &mut admitted.room).await?;
    let parsed = batch::body_text(&received.body).and_then(|text| Ok((text, batch::write_key_of(text)?)));
    let (text, body_key) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return Err(refuse_body(edge, admitted.known.as_ref(), &received, error).await),
    };
    let source = authenticate(&admitted.snapshot, &received, body_key)?;
    edge.ingest.tell_of(source.workspace, received.body.len());
    let of_source = |error: IngestError| Refusal::from(error).to(source.workspace);
    admitted.room.belongs_to(source.holder()).map_err(of_source)?;
    metrics::received(Wire::Http, 1, received.body.len());
    let mut context = parse_context(&source, &received.person, received.received_at);
    context.path_type = Some(event_type);
    let incoming = parse_one(text, &context);
    let outcomes = edge.ingest.accept(&source, &received.arrival(), vec![incoming]).await;
    // One event went in, one outcome comes out.
    outcomes.map_err(of_source)?.into_iter().next().ok_or_else(|| of_source(IngestError::EmptyBatch))
}

/// A request that may be read: there is a configuration, its header names no wrong key, and there is room for it.
struct Admission {
    snapshot: Arc<Snapshot>,
    /// The source, if the header names it.
    known: Option<Source>,
    room: Admitted,
}

fn admit(edge: &Edge, head: &Parts, limit: usize) -> Result<Admission, IngestError> {
    let snapshot = edge.ingest.snapshot()?;
    let known = source_of_header(&snapshot, &head.headers)?;
    let reserved = for_body(reservation(&head.headers, limit));
    let room = edge.ingest.admission.admit(holder(known.as_ref()), reserved)?;
    Ok(Admission { snapshot, known, room })
}

fn holder(known: Option<&Source>) -> Holder {
    known.map_or(Holder::Unknown, Source::holder)
}

impl Received {
    fn arrival(&self) -> Arrival<'_> {
        Arrival {
            wire: Wire::Http,
            received_at: self.received_at,
            started: self.started,
            traceparent: &self.person.traceparent,
        }
    }
}

async fn receive(
    edge: &Edge,
    head: &Parts,
    body: Body,
    limit: usize,
    room: &mut Admitted,
) -> Result<Received, Refusal> {
    let person = Person::of(head, edge.settings.trusted_proxies);
    let authorization = authorization_of(&head.headers);
    let query_key = query_value(head.uri.query(), "writeKey");
    let body = body::read(&head.headers, body, limit, edge.settings.body_timeout, room).await?;
    Ok(Received {
        person,
        body,
        received_at: Timestamp::now(),
        started: Instant::now(),
        authorization,
        query_key,
    })
}

pub(super) fn authorization_of(headers: &HeaderMap) -> Option<Authorization> {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(credentials::authorization)
}

/// A key in the header is looked at before anything is read; it wins over every other.
fn source_of_header(snapshot: &Snapshot, headers: &HeaderMap) -> Result<Option<Source>, IngestError> {
    match authorization_of(headers) {
        Some(Authorization::WriteKey(key)) => Source::of_write_key(snapshot, &key).map(Some),
        Some(Authorization::Token(_)) | None => Ok(None),
    }
}

fn authenticate(
    snapshot: &Snapshot,
    received: &Received,
    body_key: Option<Cow<'_, str>>,
) -> Result<Source, IngestError> {
    let query_key = received.query_key.as_deref().map(Cow::Borrowed);
    let (key, mismatch) = credentials::choose(received.authorization.as_ref(), body_key, query_key);
    if mismatch {
        metrics::key_mismatch();
    }
    Source::of_write_key(snapshot, &key.ok_or(IngestError::MissingWriteKey)?)
}

/// A body that cannot be read is kept like a rejected event, if it is known whose it is.
async fn refuse_body(edge: &Edge, source: Option<&Source>, received: &Received, error: BodyError) -> Refusal {
    if let Some(source) = source {
        let code = match &error {
            BodyError::InvalidUtf8 => RejectCode::InvalidUtf8,
            BodyError::ContainsNul => RejectCode::ContainsNul,
            BodyError::NotAnObject => RejectCode::NotAnObject,
            BodyError::Member(rejection) => rejection.code,
            BodyError::InvalidJson { .. } => RejectCode::InvalidJson,
            BodyError::NoBatch
            | BodyError::EmptyBatch
            | BodyError::TooManyEvents
            | BodyError::MergedTooLarge => RejectCode::InvalidField,
        };
        let Incoming::Rejected { rejection, raw } =
            Incoming::rejected(Rejection::new(code, "", error.to_string()), &received.body)
        else {
            return Refusal::from(error);
        };
        edge.ingest.rejected.keep(source, received.received_at, &[(&rejection, &raw)]).await;
    }
    Refusal::from(error)
}

fn parse_events(parsed: &Batch<'_>, source: &Source, received: &Received) -> Vec<Incoming> {
    let mut context = parse_context(source, &received.person, received.received_at);
    context.sent_at = parsed.sent_at;
    context.batch_context = parsed.context;
    context.batch_integrations = parsed.integrations;
    let warnings: Vec<String> = parsed.warnings.iter().map(|w| w.as_str().to_owned()).collect();
    let parse = |event: &&serde_json::value::RawValue| match parse_one(event.get(), &context) {
        Incoming::Event(mut event) => {
            event.warnings.extend(warnings.iter().cloned());
            Incoming::Event(event)
        }
        rejected => rejected,
    };
    parsed.events.iter().map(parse).collect()
}

pub(super) fn parse_one(text: &str, context: &ParseContext<'_>) -> Incoming {
    match parse_event_text(text, context) {
        Ok(event) => Incoming::Event(Box::new(event)),
        Err(rejection) => Incoming::rejected(rejection, text.as_bytes()),
    }
}

pub(super) fn parse_context<'a>(
    source: &Source,
    person: &'a Person,
    received_at: Timestamp,
) -> ParseContext<'a> {
    ParseContext {
        source_id: source.id,
        source_channel: source.channel,
        banner_writes_defaults: source.banner_writes_defaults,
        connection_ip: &person.ip,
        user_agent: &person.user_agent,
        gpc_header: person.gpc,
        client_retry: person.retry,
        ..ParseContext::at(received_at)
    }
}

/// The first value of a query parameter, if it is not blank.
pub(super) fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query?.as_bytes());
    let found = pairs.into_iter().find(|(key, value)| key == name && !value.trim().is_empty());
    found.map(|(_, value)| value.into_owned())
}
