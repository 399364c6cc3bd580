//! `ingest.v1`: parse, call [`Ingest`], answer. No rules in here.
//!
//! What is published is not decoded by the server's library, which would have every message in memory, and decoded, before
//! anybody asks who sends it and whether there is room. Here the key is asked for first, then how long the message is; its bytes are
//! read when there is room for them ([`messages`]), and decoded when it is known how many events they are ([`outline`]).

mod messages;
mod outline;

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codec::{BufferSettings, EncodeBody, SingleMessageCompressionOverride};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;
use tracklayer_event::batch::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS};
use tracklayer_event::time::{ClientTime, from_proto, to_proto};
use tracklayer_event::{ParseContext, publish_event};
use tracklayer_ids::{MasterKey, WorkspaceId};
use tracklayer_proto::ingest::v1::ingest_service_server::SERVICE_NAME;
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;
use tracklayer_proto::ingest::v1::{
    Accepted, BatchRefused, Duplicate, EventResult, GetStatusRequest, GetStatusResponse, ListRejectedRequest,
    ListRejectedResponse, PublishEvent, PublishRequest, PublishResponse, PublishStreamRequest,
    PublishStreamResponse, Rejected, RejectedEvent, event_result,
};
use tracklayer_rpc::{RpcError as _, ServiceToken, bearer, require_service_token, status};

use self::messages::{Messages, check_encoding, undecodable};
use crate::admission::{Admitted, for_body};
use crate::credentials::{self, Authorization};
use crate::error::IngestError;
use crate::ingest::{Arrival, Ingest};
use crate::metrics::{self, Wire};
use crate::outcome::{Incoming, Outcome};
use crate::source::Source;

/// Rejected events of one answer, if the caller does not say.
const DEFAULT_LISTED: u32 = 100;
const MAX_LISTED: u32 = 1_000;

/// Longest message of a stream that is read over when it cannot be taken; a longer one ends its stream.
const MAX_SKIPPED_BYTES: usize = 2 * MAX_BATCH_BYTES;
/// Longest wait for the rest of a message that is refused anyhow.
const SKIP_PATIENCE: Duration = Duration::from_secs(1);
/// What a message of a stream has beside its batch, at most: sequence, keys and length.
const STREAM_OVERHEAD_BYTES: usize = 32;
/// What an event occupies at least while it is worked on, however few bytes it came in.
const LEAST_EVENT_BYTES: usize = 1_024;

/// What can be chosen.
#[derive(Debug, Clone, Copy)]
pub struct GrpcSettings {
    /// Batches of one stream that may wait for their acks.
    pub stream_window: u32,
    /// Longest time for the bytes of one message, once the first were there.
    pub body_timeout: Duration,
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct IngestGrpc {
    ingest: Arc<Ingest>,
    stream_window: usize,
    body_timeout: Duration,
    service_token: ServiceToken,
    shutdown: CancellationToken,
}

impl NamedService for IngestGrpc {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for IngestGrpc
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        let method = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        match method {
            Some((SERVICE_NAME, "Publish")) => Box::pin(async move {
                Ok(service.publish(request).await.map_or_else(Status::into_http, |answer| {
                    answered::<PublishResponse>(tokio_stream::once(Ok(answer)))
                }))
            }),
            Some((SERVICE_NAME, "PublishStream")) => Box::pin(async move {
                Ok(service.publish_stream(request).map_or_else(Status::into_http, answered))
            }),
            Some((SERVICE_NAME, "ListRejected")) => Box::pin(async move {
                let list = tower::service_fn(move |request| service.clone().list_rejected(request));
                Ok(Grpc::new(ProstCodec::default()).unary(list, request).await)
            }),
            Some((SERVICE_NAME, "GetStatus")) => Box::pin(async move {
                let ask = tower::service_fn(move |request| std::future::ready(service.get_status(&request)));
                Ok(Grpc::new(ProstCodec::default()).unary(ask, request).await)
            }),
            _ => Box::pin(async { Ok(Status::unimplemented("there is no such method").into_http()) }),
        }
    }
}

/// Messages, and then the end, as an answer.
fn answered<M: prost::Message + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
) -> http::Response<Body> {
    let encoder = ProstCodec::<M, ()>::raw_encoder(BufferSettings::default());
    let uncompressed = SingleMessageCompressionOverride::Disable;
    let mut response =
        http::Response::new(Body::new(EncodeBody::new_server(encoder, messages, None, uncompressed, None)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// Bytes of a message with the room that they hold.
struct Message {
    bytes: Bytes,
    room: Admitted,
}

/// One message of a stream.
enum Received {
    Message(Message),
    /// It was read over.
    Refused {
        sequence: u64,
        why: IngestError,
    },
}

impl IngestGrpc {
    /// As a service for [`tracklayer_rpc::GrpcServer`].
    #[must_use]
    pub fn service(
        ingest: Arc<Ingest>,
        settings: GrpcSettings,
        master_key: &MasterKey,
        shutdown: CancellationToken,
    ) -> Self {
        let service_token = require_service_token(&master_key.service_token());
        let stream_window = settings.stream_window.max(1) as usize;
        Self { ingest, stream_window, body_timeout: settings.body_timeout, service_token, shutdown }
    }

    fn source(&self, metadata: &MetadataMap) -> Result<Source, IngestError> {
        let snapshot = self.ingest.snapshot()?;
        let key = write_key_of(metadata).ok_or(IngestError::MissingWriteKey)?;
        Source::of_write_key(&snapshot, &key)
    }

    /// Whether the caller may see a workspace: the installation's own services, or a key of the workspace.
    fn may_see(&self, metadata: &MetadataMap, workspace: WorkspaceId) -> Result<(), IngestError> {
        let token = bearer(metadata).ok_or(IngestError::NotYourWorkspace)?;
        if self.service_token.matches(&token) {
            return Ok(());
        }
        // Hashes are compared, so that the time it takes says nothing about the key.
        let shown: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let snapshot = self.ingest.snapshot()?;
        let keys =
            snapshot.workspaces.get(&workspace).map(|w| w.admin_key_sha256.as_slice()).unwrap_or_default();
        let allowed = keys.iter().any(|key| key.as_slice() == shown);
        if allowed { Ok(()) } else { Err(IngestError::NotYourWorkspace) }
    }

    /// Takes the bytes of a message whose length was told, if there is room for them.
    async fn take<B>(
        &self,
        source: &Source,
        messages: &mut Messages<B>,
        length: usize,
    ) -> Result<Message, Untaken>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let room = self.ingest.admission.admit(source.holder(), for_body(length));
        let room = room.map_err(Untaken::NoRoom)?;
        let bytes = tokio::time::timeout(self.body_timeout, messages.take(length)).await;
        let bytes = bytes.map_err(|_| Untaken::Broken(status(&IngestError::SlowMessage)))?;
        Ok(Message { bytes: bytes.map_err(Untaken::Broken)?, room })
    }

    /// Waits until a refusal may go out.
    async fn pace(&self, source: &Source, refusal: &IngestError) {
        if refusal.retry_after().is_some() {
            self.ingest.refusals.pace(source.holder()).await;
        }
    }

    /// The same on a stream, which reads nothing more meanwhile.
    async fn pace_on(&self, metadata: &MetadataMap, refusal: &IngestError) {
        if let Ok(source) = self.source(metadata) {
            self.pace(&source, refusal).await;
        }
    }

    /// Takes one batch.
    async fn publish_batch(
        &self,
        source: &Source,
        traceparent: &str,
        batch: PublishRequest,
        Read { started, received_at, bytes }: Read,
    ) -> Result<PublishResponse, IngestError> {
        metrics::received(Wire::Grpc, batch.events.len(), bytes);
        self.ingest.tell_of_more(source.workspace, bytes, batch.events.len());
        let context = ParseContext {
            sent_at: batch.sent_at.as_ref().and_then(from_proto).map(ClientTime::utc),
            source_id: source.id,
            source_channel: source.channel,
            banner_writes_defaults: source.banner_writes_defaults,
            ..ParseContext::at(received_at)
        };
        let arrival = Arrival { wire: Wire::Grpc, received_at, started, traceparent };
        let incoming = batch.events.iter().map(|event| parse(event, &context)).collect();
        let outcomes = self.ingest.accept(source, &arrival, incoming).await?;
        Ok(PublishResponse { results: outcomes.into_iter().map(event_result).collect() })
    }

    async fn publish<B>(&self, request: http::Request<B>) -> Result<PublishResponse, Status>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        check_encoding(&head.headers)?;
        let metadata = MetadataMap::from_headers(head.headers);
        let source = self.source(&metadata).map_err(refused)?;
        let mut messages = Messages::new(body);
        let length = messages.next().await?.ok_or_else(messages::incomplete)?;
        check_bytes(length, MAX_BATCH_BYTES).map_err(refused)?;
        let Message { bytes, mut room } = match self.take(&source, &mut messages, length).await {
            Ok(message) => message,
            Err(Untaken::NoRoom(error)) => {
                // Read over and not broken off: a peer that resets many calls loses its connection, with those that have room.
                if length <= MAX_SKIPPED_BYTES {
                    let _ = tokio::time::timeout(SKIP_PATIENCE, messages.skip(length)).await;
                }
                self.pace(&source, &error).await;
                return Err(refused(error));
            }
            Err(Untaken::Broken(status)) => return Err(status),
        };
        let (service, workspace, read) = (self.clone(), source.workspace, Read::now(length));
        let work = async move {
            let events = outline::events_of_batch(&bytes).map_err(|_| undecodable())?;
            check_events(events, &mut room).map_err(refused)?;
            let batch = PublishRequest::decode(bytes).map_err(|_| undecodable())?;
            let traceparent = traceparent_of(&metadata);
            let answer = service.publish_batch(&source, &traceparent, batch, read).await;
            drop(room);
            if let Err(error) = &answer {
                service.pace(&source, error).await;
            }
            answer.map_err(refused)
        };
        self.ingest.work_on(Some(workspace), length, work).await
    }

    fn publish_stream<B>(
        self,
        request: http::Request<B>,
    ) -> Result<impl Stream<Item = Result<PublishStreamResponse, Status>> + Send + use<B>, Status>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let (head, body) = request.into_parts();
        check_encoding(&head.headers)?;
        let metadata = Arc::new(MetadataMap::from_headers(head.headers));
        self.source(&metadata).map_err(refused)?;
        let window = self.stream_window;
        // At shutdown nothing more is read, and what was read is still acknowledged.
        let batches = received(self.clone(), Arc::clone(&metadata), Messages::new(body))
            .take_until(self.shutdown.clone().cancelled_owned());
        let work = read_into_places(batches, window)
            .map(move |(place, received)| {
                let answer = answer_one(self.clone(), Arc::clone(&metadata), received);
                async move { (answer.await, place) }
            })
            .buffer_unordered(window);
        Ok(acknowledged(work, window))
    }

    async fn list_rejected(
        self,
        request: Request<ListRejectedRequest>,
    ) -> Result<Response<ListRejectedResponse>, Status> {
        let workspace = WorkspaceId(request.get_ref().workspace_id);
        self.may_see(request.metadata(), workspace).map_err(|e| status(&e))?;
        let limit = match request.get_ref().limit {
            0 => DEFAULT_LISTED,
            limit => limit.min(MAX_LISTED),
        };
        let rows = self.ingest.rejected.newest(workspace, limit).await;
        let rows = rows.map_err(|source| status(&IngestError::Store { source }))?;
        let events = rows
            .into_iter()
            .map(|row| RejectedEvent {
                source_id: row.source.0,
                received_at: Some(to_proto(row.received_at)),
                message_id: row.message_id,
                rejected: Some(Rejected { code: row.code, field: row.field, reason: row.reason }),
                raw: row.raw,
            })
            .collect();
        Ok(Response::new(ListRejectedResponse { events }))
    }

    fn get_status(&self, request: &Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let workspace = WorkspaceId(request.get_ref().workspace_id);
        self.may_see(request.metadata(), workspace).map_err(|e| status(&e))?;
        let configuration_version = self.ingest.snapshot().map_err(|e| status(&e))?.version;
        let budget = &self.ingest.budget;
        Ok(Response::new(GetStatusResponse {
            journal_budget_bytes: budget.most(),
            journal_full: budget.admit().is_err(),
            configuration_version,
            journal_limit_bytes: budget.limit(),
            journal_unread_bytes: budget.unread(),
        }))
    }
}

/// An answer, and the place in the stream's window that it holds until it is sent.
type Answer = (Result<PublishStreamResponse, Status>, OwnedSemaphorePermit);

/// Reads a batch only when there is a place for it: a full window stops the reading, and HTTP/2's flow control the client.
fn read_into_places<T>(
    batches: impl Stream<Item = T> + Send,
    window: usize,
) -> impl Stream<Item = (OwnedSemaphorePermit, T)> + Send {
    let places = Arc::new(Semaphore::new(window));
    futures::stream::unfold((Box::pin(batches), places), |(mut batches, places)| async move {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let received = batches.next().await?;
        Some(((place, received), (batches, places)))
    })
}

/// The answers, worked out whether the client reads them or not. A client that sends and reads no ack would otherwise leave
/// its batches half done, with the room that they hold in [`crate::admission`], and nobody else would find any.
fn acknowledged(
    work: impl Stream<Item = Answer> + Send + 'static,
    window: usize,
) -> impl Stream<Item = Result<PublishStreamResponse, Status>> + Send {
    // Never full: there are no more answers than places.
    let (sender, answers) = mpsc::channel(window);
    let worker = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut work = std::pin::pin!(work);
        while let Some(answer) = work.next().await {
            if sender.send(answer).await.is_err() {
                return;
            }
        }
    }));
    futures::stream::unfold((answers, worker), |(mut answers, worker)| async move {
        let (answer, _place) = answers.recv().await?;
        Some((answer, (answers, worker)))
    })
}

/// Why a message was not taken.
enum Untaken {
    /// Its bytes were not read.
    NoRoom(IngestError),
    /// Nothing more can be read.
    Broken(Status),
}

/// The messages of a stream, each with its room. Who sends is asked for each: a source that was disabled meanwhile ends the stream.
fn received<B>(
    service: IngestGrpc,
    metadata: Arc<MetadataMap>,
    messages: Messages<B>,
) -> impl Stream<Item = Result<Received, Status>> + Send
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    futures::stream::try_unfold(
        (service, metadata, messages),
        |(service, metadata, mut messages)| async move {
            let Some(length) = messages.next().await? else { return Ok(None) };
            let refusal = match service.source(&metadata) {
                Ok(source) => match check_bytes(length, MAX_BATCH_BYTES + STREAM_OVERHEAD_BYTES) {
                    Ok(()) => match service.take(&source, &mut messages, length).await {
                        Ok(message) => {
                            return Ok(Some((Received::Message(message), (service, metadata, messages))));
                        }
                        Err(Untaken::NoRoom(error)) => error,
                        Err(Untaken::Broken(status)) => return Err(status),
                    },
                    Err(error) => error,
                },
                Err(
                    error @ (IngestError::UnknownWriteKey
                    | IngestError::MissingWriteKey
                    | IngestError::SignedWebhooksOnly),
                ) => {
                    return Err(refused(error));
                }
                Err(error) => error,
            };
            if length > MAX_SKIPPED_BYTES {
                return Err(refused(refusal));
            }
            let sequence = tokio::time::timeout(service.body_timeout, messages.skip(length)).await;
            let sequence = sequence.map_err(|_| status(&IngestError::SlowMessage))??;
            service.pace_on(&metadata, &refusal).await;
            Ok(Some((Received::Refused { sequence, why: refusal }, (service, metadata, messages))))
        },
    )
}

/// When a message had been read, before it waits for anything.
#[derive(Debug, Clone, Copy)]
struct Read {
    started: Instant,
    received_at: Timestamp,
    bytes: usize,
}

impl Read {
    fn now(bytes: usize) -> Self {
        Self { started: Instant::now(), received_at: Timestamp::now(), bytes }
    }
}

/// Works on one batch of a stream.
async fn answer_one(
    service: IngestGrpc,
    metadata: Arc<MetadataMap>,
    received: Result<Received, Status>,
) -> Result<PublishStreamResponse, Status> {
    let message = match received? {
        Received::Message(message) => message,
        Received::Refused { sequence, why } => {
            let result = Some(StreamResult::Refused(batch_refused(&why)));
            return Ok(PublishStreamResponse { sequence, result });
        }
    };
    let workspace = service.source(&metadata).ok().map(|source| source.workspace);
    let read = Read::now(message.bytes.len());
    let (ingest, bytes) = (Arc::clone(&service.ingest), read.bytes);
    ingest.work_on(workspace, bytes, answer_message(service, metadata, message, read)).await
}

async fn answer_message(
    service: IngestGrpc,
    metadata: Arc<MetadataMap>,
    Message { bytes, mut room }: Message,
    read: Read,
) -> Result<PublishStreamResponse, Status> {
    let events = outline::events_of_stream(&bytes).map_err(|_| undecodable())?;
    if let Err(error) = check_events(events, &mut room) {
        let mut skim = outline::Skim::default();
        skim.read(&bytes).map_err(|_| undecodable())?;
        drop(room);
        service.pace_on(&metadata, &error).await;
        let result = Some(StreamResult::Refused(batch_refused(&error)));
        return Ok(PublishStreamResponse { sequence: skim.sequence, result });
    }
    let request = PublishStreamRequest::decode(bytes).map_err(|_| undecodable())?;
    let traceparent = traceparent_of(&metadata);
    let batch = request.batch.unwrap_or_default();
    let answer = match service.source(&metadata) {
        Ok(source) => service.publish_batch(&source, &traceparent, batch, read).await,
        Err(error) => Err(error),
    };
    let result = match answer {
        Ok(response) => StreamResult::Response(response),
        Err(
            error @ (IngestError::UnknownWriteKey
            | IngestError::MissingWriteKey
            | IngestError::SignedWebhooksOnly),
        ) => {
            return Err(refused(error));
        }
        Err(error) => {
            drop(room);
            service.pace_on(&metadata, &error).await;
            StreamResult::Refused(batch_refused(&error))
        }
    };
    Ok(PublishStreamResponse { sequence: request.sequence, result: Some(result) })
}

fn batch_refused(error: &IngestError) -> BatchRefused {
    metrics::refused(Wire::Grpc, error.code());
    let retry_after = error.retry_after().unwrap_or(Duration::ZERO).as_millis();
    BatchRefused {
        code: error.code().to_owned(),
        reason: error.to_string(),
        retry_after_ms: u32::try_from(retry_after).unwrap_or(u32::MAX),
    }
}

fn refused(error: IngestError) -> Status {
    metrics::refused(Wire::Grpc, error.code());
    status(&error)
}

fn check_bytes(found: usize, limit: usize) -> Result<(), IngestError> {
    if found > limit {
        return Err(IngestError::BatchTooLarge { found, unit: "bytes", limit: MAX_BATCH_BYTES });
    }
    Ok(())
}

/// Whether so many events may be decoded; they hold room for what they become.
fn check_events(found: usize, room: &mut Admitted) -> Result<(), IngestError> {
    if found == 0 {
        return Err(IngestError::EmptyBatch);
    }
    if found > MAX_BATCH_EVENTS {
        return Err(IngestError::BatchTooLarge { found, unit: "events", limit: MAX_BATCH_EVENTS });
    }
    room.grow_to(found * LEAST_EVENT_BYTES)
}

fn parse(event: &PublishEvent, context: &ParseContext<'_>) -> Incoming {
    match publish_event(event, context) {
        Ok(event) => Incoming::Event(Box::new(event)),
        Err(rejection) => Incoming::rejected(rejection, &event.encode_to_vec()),
    }
}

fn event_result(outcome: Outcome) -> EventResult {
    let (outcome, message_id) = match outcome {
        Outcome::Accepted { message_id, warnings } => {
            (event_result::Outcome::Accepted(Accepted { warnings }), message_id)
        }
        Outcome::Duplicate { message_id } => (event_result::Outcome::Duplicate(Duplicate {}), message_id),
        Outcome::Rejected(rejection) => {
            let rejected = Rejected {
                code: rejection.code.as_str().to_owned(),
                field: rejection.field,
                reason: rejection.reason,
            };
            (event_result::Outcome::Rejected(rejected), rejection.message_id)
        }
    };
    EventResult { outcome: Some(outcome), message_id }
}

/// `authorization: Bearer <key>` or `Basic`, else `x-write-key`.
fn write_key_of(metadata: &MetadataMap) -> Option<Cow<'_, str>> {
    let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
    match text("authorization").and_then(credentials::authorization) {
        Some(Authorization::WriteKey(key) | Authorization::Token(key)) => Some(Cow::Owned(key)),
        None => text("x-write-key").map(str::trim).filter(|key| !key.is_empty()).map(Cow::Borrowed),
    }
}

fn traceparent_of(metadata: &MetadataMap) -> String {
    metadata.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
