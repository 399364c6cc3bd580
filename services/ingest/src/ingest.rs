//! What every wire does with events once they are parsed: record what narrows, look for repeats, append, answer.
//!
//! The order is the promise. Narrowing signals are in the consent log before anything is acknowledged; nothing is called
//! accepted before the journal has it; and a rejected event stops none of its neighbours.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;
use tracklayer_ids::{PartitionKey, WorkspaceId};
use tracklayer_journal::{Appender, Draft, Headroom};
use tracklayer_proto::event::v1::Event;
use tracklayer_rpc::follow::{ConfigWatch, Snapshot};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::error::IngestError;
use crate::look::Look;
use crate::metrics::{self, Wire};
use crate::narrowing::Narrowing;
use crate::orders::KnownOrders;
use crate::outcome::{Incoming, Outcome};
use crate::rate::RateLimit;
use crate::refusals::Refusals;
use crate::rejected::RejectedEvents;
use crate::source::Source;
use crate::trace;

/// A request of so many bytes is large.
const LARGE_BYTES: usize = 64 * 1024;
/// As many as an event has.
const BYTES_OF_AN_EVENT: usize = 1_000;

/// Everything that a wire needs. Shared by all of them.
#[derive(Debug)]
pub struct Ingest {
    /// Sources and keys.
    pub watch: ConfigWatch,
    /// What may be in flight.
    pub admission: Admission,
    /// Whether the journal has room.
    pub budget: Budget,
    /// What large requests leave to small ones.
    pub headroom: Arc<Headroom>,
    /// What a source may send.
    pub rate: RateLimit,
    /// How often a workspace is told to come back.
    pub refusals: Refusals,
    /// The consent log.
    pub narrowing: Narrowing,
    /// The dedup store, if it is looked at.
    pub look: Option<Look>,
    /// The journal.
    pub appender: Appender,
    /// What could not be accepted.
    pub rejected: RejectedEvents,
    /// Orders of shops, for their refunds.
    pub orders: KnownOrders,
    /// Share of events that are traced where the sender does not say.
    pub trace_sample_ratio: f64,
}

/// One request's events, and what is known about their arrival.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The wire.
    pub wire: Wire,
    /// When the request had been read.
    pub received_at: Timestamp,
    /// The same moment on a clock that does not jump.
    pub started: Instant,
    /// The request's W3C traceparent; empty if it has none.
    pub traceparent: &'a str,
}

impl Ingest {
    /// The newest configuration.
    ///
    /// # Errors
    /// [`IngestError::NoConfiguration`] before the first.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, IngestError> {
        self.watch.snapshot().ok_or(IngestError::NoConfiguration)
    }

    /// Works on a request of so many bytes: aside, where its workspace sends much and somebody else far less. `workspace`: none
    /// where the body has to be parsed to know whose it is.
    pub async fn work_on<F>(&self, workspace: Option<WorkspaceId>, bytes: usize, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let aside = match workspace {
            Some(workspace) => {
                self.tell_of(workspace, bytes);
                self.headroom.gives_way(|seen| seen == workspace)
            }
            // A large one needs a core for milliseconds, whoever sent it. One workspace alone gives way to nobody.
            None => bytes >= LARGE_BYTES && self.headroom.several_are_there(),
        };
        self.headroom.work(aside, tracklayer_rpc::carried(work)).await
    }

    /// Tells of a request of a workspace, whose events are not counted yet.
    pub fn tell_of(&self, workspace: WorkspaceId, bytes: usize) {
        self.headroom.did(workspace, likely_events(bytes), 0);
    }

    /// Tells that a request that was [told of](Self::tell_of) has more events than its bytes let expect.
    pub fn tell_of_more(&self, workspace: WorkspaceId, bytes: usize, events: usize) {
        let more = events.saturating_sub(likely_events(bytes));
        if more > 0 {
            self.headroom.did(workspace, more, 0);
        }
    }

    /// Takes events of one source; answers for each, in order, when all that are accepted are durable.
    ///
    /// # Errors
    /// The request as a whole was not worked on: overloaded, the journal full, or a store away. Nothing of it may be assumed durable.
    pub async fn accept(
        &self,
        source: &Source,
        arrival: &Arrival<'_>,
        incoming: Vec<Incoming>,
    ) -> Result<Vec<Outcome>, IngestError> {
        self.take_rate(source, incoming.len(), arrival.started)?;
        self.accept_within_rate(source, arrival, incoming).await
    }

    /// Takes the tokens of so many events from the source's rate.
    ///
    /// # Errors
    /// [`IngestError::RateLimited`].
    pub fn take_rate(&self, source: &Source, events: usize, now: Instant) -> Result<(), IngestError> {
        self.rate.take(source.id, source.max_events_per_second, events, now)
    }

    /// The same for events whose tokens were [taken](Self::take_rate) already, before other work that has to be bounded.
    ///
    /// # Errors
    /// As of [`accept`](Self::accept), apart from the rate.
    pub async fn accept_within_rate(
        &self,
        source: &Source,
        arrival: &Arrival<'_>,
        incoming: Vec<Incoming>,
    ) -> Result<Vec<Outcome>, IngestError> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(incoming.len());
        let mut events: Vec<(usize, Box<Event>)> = Vec::with_capacity(incoming.len());
        let mut refused = Vec::new();
        for (index, incoming) in incoming.into_iter().enumerate() {
            outcomes.push(None);
            match incoming {
                Incoming::Event(event) => events.push((index, event)),
                Incoming::Rejected { rejection, raw } => refused.push((index, rejection, raw)),
            }
        }

        let borrowed: Vec<&Event> = events.iter().map(|(_, event)| event.as_ref()).collect();
        self.narrowing.record(source, &borrowed).await?;
        // Only now: whoever opts out is heard though the journal has no room for the event that says so.
        self.budget.admit()?;
        let repeats = match &self.look {
            Some(look) if !borrowed.is_empty() => look.known_repeats(source.workspace, &borrowed).await,
            _ => vec![false; borrowed.len()],
        };
        let mut fresh = Vec::with_capacity(events.len());
        for ((index, event), repeat) in events.into_iter().zip(repeats) {
            if repeat {
                outcomes[index] = Some(Outcome::Duplicate { message_id: event.message_id });
            } else {
                fresh.push((index, event));
            }
        }
        for (index, outcome) in self.append(source, arrival, fresh).await? {
            outcomes[index] = Some(outcome);
        }

        if !refused.is_empty() {
            let kept: Vec<_> = refused.iter().map(|(_, rejection, raw)| (rejection, raw)).collect();
            self.rejected.keep(source, arrival.received_at, &kept).await;
            for (index, rejection, _) in refused {
                outcomes[index] = Some(Outcome::Rejected(rejection));
            }
        }
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        metrics::answered(arrival.wire, &outcomes, arrival.started.elapsed());
        Ok(outcomes)
    }

    /// Appends events, and says of each that it is durable.
    async fn append(
        &self,
        source: &Source,
        arrival: &Arrival<'_>,
        events: Vec<(usize, Box<Event>)>,
    ) -> Result<Vec<(usize, Outcome)>, IngestError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let minute = arrival.received_at.as_second().div_euclid(60);
        let mut accepted = Vec::with_capacity(events.len());
        let mut drafts = Vec::with_capacity(events.len());
        let mut traced = Vec::new();
        for (index, mut event) in events {
            trace::begin(&mut event, arrival, self.trace_sample_ratio);
            if !event.traceparent.is_empty() {
                traced.push((event.traceparent.clone(), event.message_id.clone()));
            }
            drafts.push(Draft {
                key: PartitionKey::of(&event.anonymous_id, &event.user_id),
                source: source.id,
                minute,
                bytes: Bytes::from(event.encode_to_vec()),
            });
            let outcome = Outcome::Accepted { message_id: event.message_id, warnings: event.warnings };
            accepted.push((index, outcome));
        }
        let appending = SystemTime::now();
        self.appender.append(source.workspace, source.spread, drafts).await?;
        for (traceparent, message_id) in traced {
            trace::appended(&traceparent, &message_id, appending);
        }
        Ok(accepted)
    }
}

/// Events of a request of so many bytes: one at least, or many small requests would count as nothing.
fn likely_events(bytes: usize) -> usize {
    (bytes / BYTES_OF_AN_EVENT).max(1)
}
