//! The three ways to the edge, each with both edges' addresses: a client whose request fails turns to the other edge.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tracklayer_proto::event::v1::EventType;
use tracklayer_proto::ingest::v1::event_result::Outcome;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;
use tracklayer_proto::ingest::v1::{PublishEvent, PublishRequest, PublishResponse, PublishStreamRequest};

use crate::load::Event;
use crate::stage::Stage;
use crate::workspace::Workspace;

/// How long a client waits for an answer. A paused edge does not give one.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What a request came to.
#[derive(Debug)]
pub enum Answer {
    /// Every event of it is durable.
    Acknowledged,
    /// Send it again.
    Again { after: Option<Duration>, why: String },
    /// Not taken, and never will be: with good events a fault of the edge.
    Refused(String),
}

fn again(why: impl std::fmt::Display) -> Answer {
    Answer::Again { after: None, why: why.to_string() }
}

enum Wire {
    Stream(tokio::sync::Mutex<Option<Arc<Session>>>),
    Unary,
    Http(reqwest::Client),
}

/// A client of both edges.
pub struct Client {
    wire: Wire,
    /// Where it sends at present: 0 or 1.
    edge: AtomicUsize,
    http: [String; 2],
    grpc: [Channel; 2],
    write_key: String,
}

impl Client {
    /// Two of each kind, one beginning at each edge.
    pub fn all(stage: &Stage, workspace: &Workspace) -> Vec<Self> {
        let edges = ["ingest-1", "ingest-2"].map(|name| stage.fleet.member(name).replica());
        let mut clients = Vec::new();
        for edge in [0, 1] {
            let wires = [
                Wire::Stream(tokio::sync::Mutex::default()),
                Wire::Unary,
                Wire::Http(reqwest::Client::builder().timeout(PATIENCE).build().expect("a client")),
            ];
            for (wire, write_key) in wires.into_iter().zip(&workspace.write_keys) {
                clients.push(Self {
                    wire,
                    edge: AtomicUsize::new(edge),
                    http: edges.map(tracklayer_tests::Replica::http_url),
                    grpc: edges.map(|edge| {
                        let endpoint = Endpoint::new(edge.grpc_url()).expect("an address");
                        endpoint.connect_timeout(PATIENCE).tcp_nodelay(true).connect_lazy()
                    }),
                    write_key: write_key.clone(),
                });
            }
        }
        clients
    }

    /// Sends a batch once.
    pub async fn publish(&self, batch: &[Event]) -> Answer {
        let edge = self.edge.load(Ordering::Relaxed);
        let answer = match &self.wire {
            Wire::Stream(session) => self.over_stream(edge, session, batch).await,
            Wire::Unary => self.over_call(edge, batch).await,
            Wire::Http(http) => self.over_http(edge, http, batch).await,
        };
        if matches!(answer, Answer::Again { after: None, .. }) {
            // Publishers of one client fail together: whoever comes first turns it.
            let _ = self.edge.compare_exchange(edge, 1 - edge, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }

    fn bearer(&self) -> MetadataValue<tonic::metadata::Ascii> {
        format!("Bearer {}", self.write_key).parse().expect("a key of ASCII")
    }

    async fn over_call(&self, edge: usize, batch: &[Event]) -> Answer {
        let mut request = tonic::Request::new(publish_request(batch));
        request.metadata_mut().insert("authorization", self.bearer());
        let mut client = IngestServiceClient::new(self.grpc[edge].clone());
        match tokio::time::timeout(PATIENCE, client.publish(request)).await {
            Err(late) => again(late),
            Ok(Ok(answer)) => read_results(batch, &answer.into_inner()),
            Ok(Err(status)) => match status.code() {
                tonic::Code::Unauthenticated | tonic::Code::InvalidArgument => {
                    Answer::Refused(status.to_string())
                }
                _ => again(status),
            },
        }
    }

    async fn over_http(&self, edge: usize, http: &reqwest::Client, batch: &[Event]) -> Answer {
        let events: Vec<Value> = batch.iter().map(segment_event).collect();
        let request = http
            .post(format!("{}/v1/batch", self.http[edge]))
            .basic_auth(&self.write_key, Some(""))
            .json(&json!({ "batch": events }));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return again(error),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let text = match response.text().await {
            Ok(text) => text,
            Err(error) => return again(error),
        };
        match status {
            200 if text == r#"{"success":true}"# => Answer::Acknowledged,
            429 => Answer::Again { after: after.map(Duration::from_secs), why: text },
            500.. => again(text),
            _ => Answer::Refused(format!("{status}: {text}")),
        }
    }

    async fn over_stream(
        &self,
        edge: usize,
        place: &tokio::sync::Mutex<Option<Arc<Session>>>,
        batch: &[Event],
    ) -> Answer {
        let session = {
            let mut place = place.lock().await;
            match place.as_ref().filter(|session| session.is_open() && session.edge == edge) {
                Some(open) => Arc::clone(open),
                None => {
                    let opened = Session::open(self.grpc[edge].clone(), edge, self.bearer());
                    match tokio::time::timeout(PATIENCE, opened).await {
                        Ok(Ok(session)) => Arc::clone(place.insert(session)),
                        Ok(Err(error)) => return again(error),
                        Err(late) => return again(late),
                    }
                }
            }
        };
        let answer = match tokio::time::timeout(PATIENCE, session.publish(publish_request(batch))).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return again("the stream has ended"),
            Err(late) => {
                // What is still in it gets no ack that anybody waits for.
                session.close();
                return again(late);
            }
        };
        match answer {
            StreamResult::Response(response) => read_results(batch, &response),
            StreamResult::Refused(refused) if refused.retry_after_ms == 0 => {
                Answer::Refused(format!("{}: {}", refused.code, refused.reason))
            }
            StreamResult::Refused(refused) => Answer::Again {
                after: Some(Duration::from_millis(refused.retry_after_ms.into())),
                why: format!("{}: {}", refused.code, refused.reason),
            },
        }
    }
}

/// A stream with several batches under way; each is answered by its sequence.
struct Session {
    edge: usize,
    batches: mpsc::Sender<PublishStreamRequest>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<StreamResult>>>,
    next: AtomicU64,
    open: AtomicBool,
}

impl Session {
    async fn open(
        channel: Channel,
        edge: usize,
        bearer: MetadataValue<tonic::metadata::Ascii>,
    ) -> anyhow::Result<Arc<Self>> {
        let (batches, outgoing) = mpsc::channel(8);
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("authorization", bearer);
        let answers = IngestServiceClient::new(channel).publish_stream(request).await;
        let mut answers = answers.context("no stream")?.into_inner();
        let session = Arc::new(Self {
            edge,
            batches,
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            open: AtomicBool::new(true),
        });
        let reader = Arc::downgrade(&session);
        tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                let Some(session) = reader.upgrade() else { return };
                let waiting = session.take(answer.sequence);
                if let (Some(waiting), Some(result)) = (waiting, answer.result) {
                    let _ = waiting.send(result);
                }
            }
            if let Some(session) = reader.upgrade() {
                session.close();
            }
        });
        Ok(session)
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Nobody waits any more.
    fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self, sequence: u64) -> Option<oneshot::Sender<StreamResult>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&sequence)
    }

    /// The answer to a batch; none if the stream ended before it.
    async fn publish(&self, batch: PublishRequest) -> Option<StreamResult> {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(sequence, answer);
        if !self.is_open() {
            return None;
        }
        self.batches.send(PublishStreamRequest { sequence, batch: Some(batch) }).await.ok()?;
        answered.await.ok()
    }
}

fn read_results(batch: &[Event], answer: &PublishResponse) -> Answer {
    if answer.results.len() != batch.len() {
        return Answer::Refused(format!("{} results for {} events", answer.results.len(), batch.len()));
    }
    for (event, result) in batch.iter().zip(&answer.results) {
        if result.message_id != event.message_id {
            return Answer::Refused(format!("{} was answered as {}", event.message_id, result.message_id));
        }
        match &result.outcome {
            Some(Outcome::Accepted(_) | Outcome::Duplicate(_)) => {}
            other => return Answer::Refused(format!("{}: {other:?}", event.message_id)),
        }
    }
    Answer::Acknowledged
}

fn publish_request(batch: &[Event]) -> PublishRequest {
    PublishRequest { events: batch.iter().map(publish_event).collect(), sent_at: None }
}

fn publish_event(event: &Event) -> PublishEvent {
    PublishEvent {
        message_id: event.message_id.clone(),
        r#type: EventType::Track.into(),
        name: "Order Completed".to_owned(),
        anonymous_id: format!("a-{}", event.person),
        user_id: format!("u-{}", event.person),
        properties_json: event.properties().to_string(),
        context_json: event.context().to_string(),
        timestamp: Some(event.at.into()),
        ..PublishEvent::default()
    }
}

fn segment_event(event: &Event) -> Value {
    json!({
        "type": "track", "event": "Order Completed", "messageId": event.message_id,
        "anonymousId": format!("a-{}", event.person), "userId": format!("u-{}", event.person),
        "properties": event.properties(), "context": event.context(),
        "timestamp": jiff::Timestamp::try_from(event.at).expect("a time of this century").to_string(),
    })
}
