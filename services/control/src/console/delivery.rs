//! What the console asks delivery: counts and stories. Delivery may be away; then the page says so and shows what it has.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tonic::{Code, Request, Status};
use tracklayer_ids::{ConnectionId, Position, SourceId, WorkspaceId};
use tracklayer_proto::delivery::v1::delivery_service_client::DeliveryServiceClient;
use tracklayer_proto::delivery::v1::{self as pb, GetStatsRequest, GetTwinsRequest, ShowEventRequest};
use tracklayer_rpc::Channel;

use super::words::State;
use crate::metrics;

/// How long a page waits for delivery before it says that there is no answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks delivery, with the service token. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Delivery {
    client: DeliveryServiceClient<Channel>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Delivery cannot be reached or is too busy.
    Away,
    /// It answered that it cannot.
    Failed,
}

/// Live counts of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Accepted, by source.
    pub accepted: BTreeMap<SourceId, u64>,
    /// By connection.
    pub connections: BTreeMap<ConnectionId, ConnectionStats>,
}

/// Live counts of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// By source, state and reason; what waits is not among them.
    pub counts: Vec<StateCount>,
    /// Receipt to delivery, milliseconds: 50th, 95th and 99th percentile.
    pub latencies_ms: [u32; 3],
    /// Requests sent.
    pub requests: u64,
    /// Events beyond the cursor, all sources.
    pub waiting: u64,
    /// "open", or why the lane holds.
    pub health: String,
}

/// One count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCount {
    /// The source.
    pub source: SourceId,
    /// The state.
    pub state: State,
    /// The reason; empty where the state says it all.
    pub reason: String,
    /// Events.
    pub count: u64,
}

/// Which sources sent the same events within the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Twins {
    /// What each sent, repeats left out.
    pub events: BTreeMap<SourceId, u64>,
    /// Whose came first, whose were the twins, and how many.
    pub pairs: Vec<(SourceId, SourceId, u64)>,
}

/// One occurrence of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// Where it stands in the journal.
    pub position: Option<Position>,
    /// What it was, personal data masked by delivery.
    pub event: serde_json::Value,
    /// Its source.
    pub source: SourceId,
    /// When it was received.
    pub received_at: Option<Timestamp>,
    /// The occurrence that counts, if this is not it.
    pub duplicate_of: Option<Position>,
    /// It counts though its message_id was used before for something else.
    pub reused_id: bool,
    /// The profile's key; empty before it is resolved.
    pub canonical_key: String,
    /// Whether resolve has seen it.
    pub resolved: bool,
    /// What became of it, by connection.
    pub deliveries: Vec<Delivered>,
}

/// What became of an occurrence at one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The connection.
    pub connection: ConnectionId,
    /// The state; none if it is one that this version does not know.
    pub state: Option<State>,
    /// Its reason.
    pub reason: String,
    /// What consent said.
    pub consent: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Receipt to the state, milliseconds.
    pub latency_ms: u32,
    /// What the platform said.
    pub detail: String,
    /// When.
    pub at: Option<Timestamp>,
}

impl Delivery {
    /// Over a channel that shows the service token.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { client: DeliveryServiceClient::new(channel) }
    }

    /// The counts of a workspace.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn stats(&self, workspace: WorkspaceId) -> Result<Stats, NoAnswer> {
        let request = asking(GetStatsRequest { workspace_id: workspace.0 });
        match self.client.clone().get_stats(request).await {
            Ok(answer) => Ok(stats_of(answer.into_inner())),
            // Delivery has not heard of a workspace that was made a moment ago: nothing happened there yet.
            Err(status) if status.code() == Code::NotFound => Ok(Stats::default()),
            Err(status) => Err(no_answer("get_stats", &status)),
        }
    }

    /// The twin audit of a workspace over the last day.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn twins(&self, workspace: WorkspaceId) -> Result<Twins, NoAnswer> {
        let request = asking(GetTwinsRequest { workspace_id: workspace.0, since: None, until: None });
        match self.client.clone().get_twins(request).await {
            Ok(answer) => Ok(twins_of(answer.into_inner())),
            // A workspace that was made a moment ago, or a delivery that counts none yet.
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                Ok(Twins::default())
            }
            Err(status) => Err(no_answer("get_twins", &status)),
        }
    }

    /// Every occurrence of a message_id, the one that counts first; none if it was never accepted.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn show_event(
        &self,
        workspace: WorkspaceId,
        message_id: &str,
    ) -> Result<Vec<Occurrence>, NoAnswer> {
        let request =
            asking(ShowEventRequest { workspace_id: workspace.0, message_id: message_id.to_owned() });
        match self.client.clone().show_event(request).await {
            Ok(answer) => Ok(answer.into_inner().occurrences.into_iter().map(occurrence_of).collect()),
            Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
            Err(status) => Err(no_answer("show_event", &status)),
        }
    }
}

/// A call for which a person waits.
fn asking<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn no_answer(rpc: &'static str, status: &Status) -> NoAnswer {
    metrics::delivery_call_failed(rpc);
    tracing::warn!(rpc, code = ?status.code(), why = status.message(), "delivery gave the console no answer");
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
            NoAnswer::Away
        }
        _ => NoAnswer::Failed,
    }
}

fn stats_of(answer: pb::GetStatsResponse) -> Stats {
    Stats {
        accepted: answer.sources.into_iter().map(|s| (SourceId(s.source_id), s.accepted)).collect(),
        connections: answer
            .connections
            .into_iter()
            .map(|c| (ConnectionId(c.connection_id), connection_of(c)))
            .collect(),
    }
}

fn twins_of(answer: pb::GetTwinsResponse) -> Twins {
    let pairs = answer.pairs.into_iter().map(|pair| {
        let twins = pair.by_message_id + pair.by_order;
        (SourceId(pair.first_source_id), SourceId(pair.second_source_id), twins)
    });
    Twins {
        events: answer.sources.into_iter().map(|s| (SourceId(s.source_id), s.events)).collect(),
        pairs: pairs.collect(),
    }
}

fn connection_of(stats: pb::ConnectionStats) -> ConnectionStats {
    let counts = stats.counts.into_iter().filter_map(|count| {
        let state = State::parse(&count.state).filter(|state| *state != State::Waiting)?;
        Some(StateCount {
            source: SourceId(count.source_id),
            state,
            reason: count.reason,
            count: count.count,
        })
    });
    ConnectionStats {
        counts: counts.collect(),
        latencies_ms: [stats.p50_ms, stats.p95_ms, stats.p99_ms],
        requests: stats.requests,
        waiting: stats.waiting,
        health: stats.health,
    }
}

fn occurrence_of(story: pb::EventStory) -> Occurrence {
    Occurrence {
        position: story.position.map(position_of),
        event: serde_json::from_str(&story.event_json).unwrap_or(serde_json::Value::Null),
        source: SourceId(story.source_id),
        received_at: story.received_at.and_then(time_of),
        duplicate_of: story.duplicate_of.map(position_of),
        reused_id: story.reused_id,
        canonical_key: story.canonical_key,
        resolved: story.resolved,
        deliveries: story.deliveries.into_iter().map(delivered_of).collect(),
    }
}

fn delivered_of(story: pb::DeliveryStory) -> Delivered {
    Delivered {
        connection: ConnectionId(story.connection_id),
        state: State::parse(&story.state),
        reason: story.reason,
        consent: story.consent,
        attempts: story.attempts,
        latency_ms: story.latency_ms,
        detail: story.detail,
        at: story.at.and_then(time_of),
    }
}

fn position_of(position: pb::Position) -> Position {
    Position::new(position.generation, position.partition, position.offset)
}

fn time_of(time: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}
