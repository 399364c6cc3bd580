//! Follows consent's narrowing log for what is kept of people: whoever is erased is so with it, also by the name of whom he was merged
//! with. An erasure stands in the log as every narrowing does, and so does a merge, after which another key names the person. Both are
//! applied once a minute, and before something is lent or shown of which that counts.

use std::future::Future;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{SubjectKey, WorkspaceId};
use tracklayer_proto::consent::v1::NarrowingEntry;

use crate::clock::Clock;
use crate::narrowing::{NarrowingTail, TailUnreadable};
use crate::resolve::error_chain;
use crate::store::StoreError;
use crate::store::filed::{Change, Filed};

/// How often narrowings are applied.
const EVERY: Duration = Duration::from_secs(60);
/// How long an entry of the log is applied again: longer than an event takes from its decision to its commit.
const AGAIN_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Why narrowings were not applied: nothing of it may be lent or shown.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Own tables.
    #[error("could not apply narrowings to what is kept of people")]
    Store(#[from] StoreError),
    /// The log.
    #[error("could not read whom narrowings name")]
    Narrowing(#[from] TailUnreadable),
}

/// Something that is kept of people.
pub trait KeptOfPeople: Send + Sync {
    /// What it is, for the log.
    const WHAT: &'static str;

    /// Its table.
    fn table(&self) -> Filed;

    /// What is to be done with it at each round, before narrowings are applied to it: forgets what is too old.
    ///
    /// # Errors
    /// The database; what was not done is by the next round.
    fn tidy(&self, now: Timestamp) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Follows the log for one sort of it. Cheap to clone.
#[derive(Clone)]
pub struct Follower<K> {
    /// What is kept.
    pub kept: K,
    narrowing: NarrowingTail,
}

impl<K: KeptOfPeople> Follower<K> {
    /// Over the service's tables and consent's log.
    #[must_use]
    pub fn new(kept: K, narrowing: NarrowingTail) -> Self {
        Self { kept, narrowing }
    }

    /// Applies the merges and erasures of a workspace that were not applied for good yet.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn follow(&self, workspace: WorkspaceId, now: Timestamp) -> Result<(), FollowError> {
        let table = self.kept.table();
        loop {
            let Some(seen) = table.seen(workspace).await? else { return Ok(()) };
            let (mut entries, is_full) = self.narrowing.page_since(workspace, seen).await?;
            // A long past is applied page by page. What is still to be applied again is, all together.
            let goes_on = is_full && entries.iter().all(|entry| is_old(entry, now));
            if is_full && !goes_on {
                entries = self.narrowing.entries_since(workspace, seen).await?;
            }
            let old = entries.iter().take_while(|entry| is_old(entry, now)).last();
            let now_seen = old.map_or(seen, |entry| entry.seq);
            let changes: Vec<Change> = entries.iter().filter_map(change_of).collect();
            if changes.is_empty() && now_seen == seen {
                return Ok(());
            }
            if table.narrow(workspace, seen, now_seen, &changes).await? && !goes_on {
                return Ok(());
            }
        }
    }

    /// Applies narrowings and tidies up, until `shutdown`.
    pub async fn run(self, clock: Clock, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            // Each of its steps is one statement or one transaction.
            let Some(round) = shutdown.run_until_cancelled(self.round(clock.now())).await else { return };
            if let Err(error) = round {
                let why = error_chain(&error);
                tracing::warn!(what = K::WHAT, error = %why, "what is kept of people was not narrowed or tidied up");
            }
        }
    }

    /// One round of [`Self::run`].
    ///
    /// # Errors
    /// The first of them; the rest is done all the same. What was not done is by the next one.
    pub async fn round(&self, now: Timestamp) -> Result<(), FollowError> {
        let mut first: Result<(), FollowError> = self.kept.tidy(now).await.map_err(Into::into);
        for workspace in self.kept.table().workspaces().await? {
            let followed = self.follow(workspace, now).await;
            if let Err(error) = &followed {
                let why = error_chain(error);
                tracing::warn!(
                    what = K::WHAT,
                    workspace = workspace.0,
                    error = %why,
                    "what is kept of people of a workspace was not narrowed"
                );
            }
            first = first.and(followed);
        }
        first
    }
}

/// Whether an entry is applied for good.
fn is_old(entry: &NarrowingEntry, now: Timestamp) -> bool {
    let at = entry.recorded_at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    at.is_some_and(|at| now.duration_since(at) > AGAIN_FOR)
}

/// What an entry does to what is kept; none: consent alone has to know of it, and is asked before anything is sent.
fn change_of(entry: &NarrowingEntry) -> Option<Change> {
    let keys = || entry.subject_keys.iter().filter_map(|key| SubjectKey::from_slice(key)).collect();
    match entry.cause.as_str() {
        "merge" => Some(Change::Merged(keys())),
        "erasure" => Some(Change::Erased(keys())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cause: &str, at: i64) -> NarrowingEntry {
        NarrowingEntry {
            seq: 1,
            subject_keys: vec![vec![7; 16]],
            cause: cause.to_owned(),
            recorded_at: Some(prost_types::Timestamp { seconds: at, nanos: 0 }),
        }
    }

    #[test]
    fn merges_and_erasures_change_keys_and_the_rest_is_for_consent_to_know() {
        let keys = || [SubjectKey([7; 16])].into();
        assert_eq!(change_of(&entry("merge", 0)), Some(Change::Merged(keys())));
        assert_eq!(change_of(&entry("erasure", 0)), Some(Change::Erased(keys())));
        for cause in ["gpc", "categories", "withdrawal", "unreadable", "string", "policy", "split"] {
            assert_eq!(change_of(&entry(cause, 0)), None, "{cause}");
        }
    }

    #[test]
    fn an_entry_is_applied_again_for_two_minutes() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert!(!is_old(&entry("merge", 900), now));
        assert!(is_old(&entry("merge", 800), now));
        assert!(!is_old(&NarrowingEntry::default(), now), "nobody knows when");
    }
}
