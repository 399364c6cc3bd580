//! Match quality beside what lanes count of it: what the platforms themselves say, read once an hour where a connection's credentials
//! allow it, and the end of what is too old.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracklayer_destination::{Answer, HttpRequest, Mode};
use tracklayer_ids::{ConnectionId, WorkspaceId};

use crate::clock::Clock;
use crate::connections::{Connections, OpenConnection};
use crate::http::{SendError, Sender};
use crate::lane::storable;
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::match_quality::MatchQualityStore;

/// How often it is looked whether somebody has to be asked, or something forgotten.
const EVERY: Duration = Duration::from_secs(60);
/// How often a platform is asked about a connection. Meta's score looks back on 48 hours.
const ASK_EVERY: Duration = Duration::from_secs(3_600);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Workspaces of which platforms are asked at a time.
const AT_ONCE: usize = 16;
/// How long a workspace may take of a round. Where its platforms are slow, or what it names as such, the rest waits for the next one.
const TIME_OF_A_WORKSPACE: Duration = Duration::from_secs(60);
/// Most characters of why there is no figure.
const MAX_PROBLEM_CHARS: usize = 500;

/// Keeps match quality.
#[derive(Clone)]
pub struct MatchQuality {
    /// Own tables.
    pub store: MatchQualityStore,
    /// Whom to ask about.
    pub connections: Connections,
    /// The lanes' client: the same rules hold for where it may lead.
    pub sender: Sender,
    /// Days for which counts are kept.
    pub kept_days: u32,
}

impl MatchQuality {
    /// Asks and forgets, until `shutdown`. Neither waits for the other.
    pub async fn run(self, clock: Clock, shutdown: CancellationToken) {
        let both = async {
            tokio::join!(self.keep_asking(), self.keep_forgetting(&clock));
        };
        // A platform may take its time: nothing is lost where it is not waited for.
        let _ = shutdown.run_until_cancelled(both).await;
    }

    async fn keep_asking(&self) {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            if let Err(error) = self.round().await {
                tracing::warn!(error = %error_chain(&error), "match quality was not read");
            }
        }
    }

    async fn keep_forgetting(&self, clock: &Clock) {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            if let Err(error) = self.forget(clock.now()).await {
                tracing::warn!(error = %error_chain(&error), "match quality was not forgotten");
            }
        }
    }

    /// Forgets all that is too old.
    ///
    /// # Errors
    /// The database. What was not done is by the next call.
    pub async fn forget(&self, now: Timestamp) -> Result<(), StoreError> {
        let first_kept = now.as_second().div_euclid(60) - i64::from(self.kept_days) * 24 * 60;
        while self.store.forget(first_kept).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Asks about every connection that nobody has asked about within the hour; some workspaces at a time, so that none waits long for
    /// another one's platforms.
    ///
    /// # Errors
    /// The first of the database. What was not done is by the next one.
    pub async fn round(&self) -> Result<(), StoreError> {
        let Some(all) = self.connections.all() else { return Ok(()) };
        let mut workspaces = Vec::with_capacity(all.len());
        for (workspace, connections) in all.iter() {
            workspaces.push(self.ask_of_workspace(*workspace, connections));
        }
        let mut asked = futures::stream::iter(workspaces).buffer_unordered(AT_ONCE);
        let mut first = Ok(());
        while let Some(done) = asked.next().await {
            first = first.and(done);
        }
        first
    }

    async fn ask_of_workspace(
        &self,
        workspace: WorkspaceId,
        connections: &[Arc<OpenConnection>],
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        for connection in connections {
            let Ok(destination) = &connection.destination else { continue };
            // What is not sent to a platform, it can say nothing about.
            let Some(request) = destination.quality_request().filter(|_| destination.mode() == Mode::Live)
            else {
                continue;
            };
            if begun.elapsed() >= TIME_OF_A_WORKSPACE {
                break;
            }
            let revision = connection.revision;
            if !self.store.take_turn(workspace, connection.id, revision, ASK_EVERY).await? {
                continue;
            }
            let read = |answer: &Answer| destination.read_quality(answer);
            let platform = destination.kind().as_str();
            self.ask(workspace, connection.id, revision, platform, &request, read).await?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        revision: u64,
        platform: &'static str,
        request: &HttpRequest,
        read: impl Fn(&Answer) -> Result<Vec<tracklayer_destination::EventQuality>, String>,
    ) -> Result<(), StoreError> {
        let answered = match self.sender.send(request, TIMEOUT).await {
            Ok(answer) => read(&answer),
            Err(SendError::NotSent(why) | SendError::Unknown(why)) => Err(format!("no answer: {why}")),
        };
        let outcome = if answered.is_ok() { "read" } else { "refused" };
        metrics::counter!(
            "tracklayer_delivery_quality_readings_total", "platform" => platform, "outcome" => outcome
        )
        .increment(1);
        match answered {
            Ok(events) => self.store.keep(workspace, connection, revision, &events).await,
            Err(problem) => {
                tracing::warn!(
                    workspace = workspace.0,
                    connection = connection.0,
                    problem = %problem,
                    "the platform gave no figure of match quality"
                );
                let problem = storable(&problem, MAX_PROBLEM_CHARS);
                self.store.miss(workspace, connection, revision, &problem).await
            }
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
