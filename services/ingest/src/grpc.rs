//! `ingest.v1`: parse, call [`Ingest`], answer. No rules in here.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracklayer_event::batch::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS};
use tracklayer_event::time::{ClientTime, from_proto, to_proto};
use tracklayer_event::{ParseContext, publish_event};
use tracklayer_ids::{MasterKey, WorkspaceId};
use tracklayer_proto::ingest::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;
use tracklayer_proto::ingest::v1::{
    Accepted, BatchRefused, Duplicate, EventResult, ListRejectedRequest, ListRejectedResponse, PublishEvent,
    PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse, Rejected, RejectedEvent,
    event_result,
};
use tracklayer_rpc::{RpcError as _, ServiceToken, bearer, require_service_token, status};

use crate::admission::Holder;
use crate::credentials::{self, Authorization};
use crate::error::IngestError;
use crate::ingest::{Arrival, Ingest};
use crate::metrics::{self, Wire};
use crate::outcome::{Incoming, Outcome};
use crate::source::Source;

/// Rejected events of one answer, if the caller does not say.
const DEFAULT_LISTED: u32 = 100;
const MAX_LISTED: u32 = 1_000;

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct IngestGrpc {
    ingest: Arc<Ingest>,
    stream_window: usize,
    service_token: ServiceToken,
    shutdown: CancellationToken,
}

impl IngestGrpc {
    /// As a tonic service. Messages are decoded up to twice the batch limit, so that a batch somewhat above it is told so.
    #[must_use]
    pub fn service(
        ingest: Arc<Ingest>,
        stream_window: u32,
        master_key: &MasterKey,
        shutdown: CancellationToken,
    ) -> IngestServiceServer<Self> {
        let service_token = require_service_token(&master_key.service_token());
        let stream_window = stream_window.max(1) as usize;
        IngestServiceServer::new(Self { ingest, stream_window, service_token, shutdown })
            .max_decoding_message_size(2 * MAX_BATCH_BYTES)
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

    /// Takes one batch.
    async fn publish_batch(
        &self,
        source: &Source,
        traceparent: &str,
        batch: PublishRequest,
    ) -> Result<PublishResponse, IngestError> {
        let started = Instant::now();
        let bytes = batch.encoded_len();
        check_limits(&batch, bytes)?;
        let _room = self.ingest.admission.admit(Holder::Workspace(source.workspace), bytes)?;
        metrics::received(Wire::Grpc, batch.events.len(), bytes);
        let received_at = Timestamp::now();
        let context = ParseContext {
            sent_at: batch.sent_at.as_ref().and_then(from_proto).map(ClientTime::utc),
            source_id: source.id,
            source_channel: source.channel,
            banner_writes_defaults: source.banner_writes_defaults,
            ..ParseContext::at(received_at)
        };
        let incoming = batch.events.iter().map(|event| parse(event, &context)).collect();
        let arrival = Arrival { wire: Wire::Grpc, received_at, started, traceparent };
        let outcomes = self.ingest.accept(source, &arrival, incoming).await?;
        Ok(PublishResponse { results: outcomes.into_iter().map(event_result).collect() })
    }
}

#[tonic::async_trait]
impl IngestService for IngestGrpc {
    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<PublishStreamResponse, Status>> + Send>>;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let source = self.source(request.metadata()).map_err(refused)?;
        let traceparent = traceparent_of(request.metadata());
        let answer =
            self.publish_batch(&source, &traceparent, request.into_inner()).await.map_err(refused)?;
        Ok(Response::new(answer))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        self.source(request.metadata()).map_err(refused)?;
        let metadata = Arc::new(request.metadata().clone());
        let service = self.clone();
        // At shutdown nothing more is read, and what was read is still acknowledged.
        let batches = request.into_inner().take_until(self.shutdown.clone().cancelled_owned());
        let work = read_into_places(batches, self.stream_window)
            .map(move |(place, received)| {
                let answer = answer_one(service.clone(), Arc::clone(&metadata), received);
                async move { (answer.await, place) }
            })
            .buffer_unordered(self.stream_window);
        Ok(Response::new(Box::pin(acknowledged(work, self.stream_window))))
    }

    async fn list_rejected(
        &self,
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

/// Works on one batch of a stream.
async fn answer_one(
    service: IngestGrpc,
    metadata: Arc<MetadataMap>,
    received: Result<PublishStreamRequest, Status>,
) -> Result<PublishStreamResponse, Status> {
    let request = received?;
    let traceparent = traceparent_of(&metadata);
    let batch = request.batch.unwrap_or_default();
    // Asked for each batch: a source that was disabled meanwhile ends the stream.
    let answer = match service.source(&metadata) {
        Ok(source) => service.publish_batch(&source, &traceparent, batch).await,
        Err(error) => Err(error),
    };
    let result = match answer {
        Ok(response) => StreamResult::Response(response),
        Err(error @ (IngestError::UnknownWriteKey | IngestError::MissingWriteKey)) => {
            return Err(refused(error));
        }
        Err(error) => StreamResult::Refused(batch_refused(&error)),
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

fn check_limits(batch: &PublishRequest, bytes: usize) -> Result<(), IngestError> {
    let found = batch.events.len();
    if found == 0 {
        return Err(IngestError::EmptyBatch);
    }
    if found > MAX_BATCH_EVENTS {
        return Err(IngestError::BatchTooLarge { found, unit: "events", limit: MAX_BATCH_EVENTS });
    }
    if bytes > MAX_BATCH_BYTES {
        return Err(IngestError::BatchTooLarge { found: bytes, unit: "bytes", limit: MAX_BATCH_BYTES });
    }
    Ok(())
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
