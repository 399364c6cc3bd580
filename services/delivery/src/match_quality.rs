//! Match quality beside what lanes count of it: what the platforms themselves say, read once an hour where a connection's credentials
//! allow it, and the end of what is too old.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracklayer_destination::{Answer, HttpRequest, Mode};
use tracklayer_ids::{ConnectionId, WorkspaceId};

use crate::clock::Clock;
use crate::connections::Connections;
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
    /// Asks and forgets, until `shutdown`.
    pub async fn run(self, clock: Clock, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            // A platform may take its time: nothing is lost where it is not waited for.
            let Some(done) = shutdown.run_until_cancelled(self.round(clock.now())).await else { return };
            if let Err(error) = done {
                tracing::warn!(error = %error_chain(&error), "match quality was not read or forgotten");
            }
        }
    }

    /// One round of [`Self::run`].
    ///
    /// # Errors
    /// The database. What was not done is by the next one.
    pub async fn round(&self, now: Timestamp) -> Result<(), StoreError> {
        let first_kept = now.as_second().div_euclid(60) - i64::from(self.kept_days) * 24 * 60;
        self.store.forget(first_kept).await?;
        let Some(all) = self.connections.all() else { return Ok(()) };
        for (workspace, connections) in all.iter() {
            for connection in connections {
                let Ok(destination) = &connection.destination else { continue };
                // What is not sent to a platform, it can say nothing about.
                let Some(request) =
                    destination.quality_request().filter(|_| destination.mode() == Mode::Live)
                else {
                    continue;
                };
                let turn = self.store.take_turn(*workspace, connection.id, connection.revision, ASK_EVERY);
                if !turn.await? {
                    continue;
                }
                let read = |answer: &Answer| destination.read_quality(answer);
                self.ask(*workspace, connection.id, destination.kind().as_str(), &request, read).await?;
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
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
            Ok(events) => self.store.keep(workspace, connection, &events).await,
            Err(problem) => {
                tracing::warn!(
                    workspace = workspace.0,
                    connection = connection.0,
                    problem = %problem,
                    "the platform gave no figure of match quality"
                );
                self.store.miss(workspace, connection, &storable(&problem, MAX_PROBLEM_CHARS)).await
            }
        }
    }
}
