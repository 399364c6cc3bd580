//! Tells consent's narrowing log whose decisions have to be made again after a merge or a split.
//!
//! The order is what counts. A change is committed first, with what has to be told in the same transaction, and told before
//! whoever asked is answered: a decision that consent makes after the answer sees the change and carries a number at or above
//! its own, so only *older* decisions, those that wait in lanes, are made again. Telling before the commit would not do: a
//! lane could decide again in between, and see nothing of the change. Should consent be away, or the process end between
//! commit and telling, the row stays, and [`Telling::run`] of any process tells it within seconds; meanwhile a lane that
//! cannot read the log sends nothing, and one that can asks again about whatever was decided some seconds ago.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracklayer_proto::consent::v1::NarrowRequest;
use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;
use tracklayer_rpc::Channel;

use crate::metrics;
use crate::store::Store;
use crate::store::outbox::Waiting;

/// Longest that an answer waits for consent; what is not told by then is told behind it. Shorter than a caller waits, and than
/// a row is its writer's own; longer than a loaded consent takes, since being late means decisions made twice.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often rows that nobody saw to are looked for.
const ROUND: Duration = Duration::from_secs(1);

/// Consent's log, and what it has yet to be told. Cheap to clone.
#[derive(Clone)]
pub struct Telling {
    store: Store,
    client: ConsentServiceClient<Channel>,
}

impl std::fmt::Debug for Telling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

impl Telling {
    /// Over identity's store and a channel to consent.
    #[must_use]
    pub fn new(store: Store, consent: Channel) -> Self {
        Self { store, client: ConsentServiceClient::new(consent) }
    }

    /// Tells what was just committed. When this returns, the log has it, or it is left for [`Self::run`]. Answers with the
    /// numbers of what the log has.
    pub async fn tell(&self, narrowings: &[Waiting]) -> Vec<i64> {
        let mut told = Vec::with_capacity(narrowings.len());
        let mut numbers = Vec::with_capacity(narrowings.len());
        let until = Instant::now() + PATIENCE;
        for narrowing in narrowings {
            let left = until.saturating_duration_since(Instant::now());
            let answer = timeout(left, self.name(narrowing)).await;
            match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
                Ok(number) => {
                    told.push(narrowing.clone());
                    numbers.push(number);
                }
                Err(status) => {
                    let code = status.code();
                    tracing::warn!(?code, "consent was not told of a merge or split, it is told again later");
                    // What consent refuses must not hold up what it would take.
                    if !matches!(code, Code::InvalidArgument | Code::Internal | Code::Unknown) {
                        break;
                    }
                }
            }
        }
        metrics::told(told.len(), narrowings.len() - told.len());
        if let Err(error) = self.store.forget_narrowings(&told).await {
            tracing::warn!(error = %error, "what consent was told is told again");
        }
        numbers
    }

    /// Tells what was left, oldest first, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rounds.tick() => {}
            }
            while !stop.is_cancelled() {
                match self.store.take_over_narrowings().await {
                    Ok(left) if left.is_empty() => break,
                    Ok(left) if self.tell(&left).await.len() < left.len() => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(error = %error, "could not look for what consent has yet to be told");
                        break;
                    }
                }
            }
        }
    }

    /// The number of the entry.
    async fn name(&self, narrowing: &Waiting) -> Result<i64, Status> {
        let request = NarrowRequest {
            workspace_id: narrowing.workspace.0,
            subject_keys: narrowing.keys.iter().map(|key| key.0.to_vec()).collect(),
            cause: narrowing.cause.clone(),
            evidence: narrowing.evidence.clone(),
        };
        Ok(self.client.clone().narrow(request).await?.into_inner().narrowing_seq)
    }
}
