//! What orders were matched by, for changes of them that know nobody: kept from the sale on, lent where consent allows it at that
//! moment, and forgotten with the person or when the order cannot be changed any more.
//!
//! Whoever borrows a key has identity asked who its person is by now, and consent whether that person allows it, together with the
//! change's own: an opt-out since the sale counts, also one of a device that was linked since. Where somebody is erased, the key goes:
//! an erasure stands in consent's narrowing log as every narrowing does, and so does a merge, after which another key names the
//! person. Both are applied before a key is lent, and once a minute, so that it goes also where nobody asks for it.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracklayer_destination::google::MAX_ADJUSTMENT_AGE;
use tracklayer_destination::{Kind, MatchKey, OrderState};
use tracklayer_event::identifiers::{EMAIL, EventIdentifier, PHONE};
use tracklayer_ids::{MasterKey, SubjectKey, WorkspaceId};
use tracklayer_proto::consent::v1::NarrowingEntry;

use crate::clock::Clock;
use crate::lease::Duty;
use crate::narrowing::{NarrowingTail, TailUnreadable};
use crate::resolve::error_chain;
use crate::sealer::Sealer;
use crate::store::StoreError;
use crate::store::match_keys::{Change, MatchKeyStore};
use crate::store::orders::OrderStore;

/// How long it is known what an order was matched by: as long as it can be adjusted, and a day for clocks and time zones.
const KEPT: Duration = MAX_ADJUSTMENT_AGE.saturating_add(Duration::from_secs(24 * 3600));
/// How often narrowings are applied and old keys forgotten.
const EVERY: Duration = Duration::from_secs(60);
/// How long an entry of the log is applied again: longer than a sale takes from its decision to its commit.
const AGAIN_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Most identifiers that are kept of a sale.
const MOST_IDENTIFIERS: usize = 4;

/// Why narrowings were not applied: no key may be lent.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Own tables.
    #[error("could not apply narrowings to what orders were matched by")]
    Store(#[from] StoreError),
    /// The log.
    #[error("could not read whom narrowings name")]
    Narrowing(#[from] TailUnreadable),
}

/// What is kept of a sale. Personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What it was matched by.
    pub key: MatchKey,
    /// Types and values of identifiers that identity finds its person by, whoever that is linked to by then: those that the shop or the
    /// browser gave, no e-mail addresses and no numbers.
    pub identifiers: Vec<(String, String)>,
}

impl Kept {
    /// Of a sale with these identifiers; none: nobody could say whom it is of.
    #[must_use]
    pub fn of(key: &MatchKey, identifiers: Vec<EventIdentifier>) -> Option<Self> {
        let is_contact = |of: &EventIdentifier| [EMAIL, PHONE].contains(&of.r#type.as_str());
        let own: Vec<(String, String)> = identifiers
            .into_iter()
            .filter(|identifier| !is_contact(identifier))
            .take(MOST_IDENTIFIERS)
            .map(|identifier| (identifier.r#type, identifier.value))
            .collect();
        (!own.is_empty()).then(|| Self { key: key.clone(), identifiers: own })
    }
}

/// Match keys of orders. Cheap to clone.
#[derive(Clone)]
pub struct MatchKeys {
    store: MatchKeyStore,
    narrowing: NarrowingTail,
    master_key: MasterKey,
}

impl MatchKeys {
    /// Over the service's tables and consent's log.
    #[must_use]
    pub fn new(store: MatchKeyStore, narrowing: NarrowingTail, master_key: MasterKey) -> Self {
        Self { store, narrowing, master_key }
    }

    /// Seals what is kept of a workspace's orders.
    #[must_use]
    pub fn sealer(&self, workspace: WorkspaceId) -> Sealer {
        Sealer::of(&self.master_key, workspace)
    }

    /// What is kept of orders, by order id, every narrowing of the log applied. Whether it may be used, consent has to be asked about
    /// whom it is of.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn of_orders(
        &self,
        duty: Duty,
        order_ids: &[String],
        now: Timestamp,
    ) -> Result<HashMap<String, Kept>, FollowError> {
        self.follow(duty.workspace, now).await?;
        let sealer = self.sealer(duty.workspace);
        let kept = self.store.of_orders(duty, order_ids).await?;
        // What cannot be opened was sealed under another master key: it is nobody's any more.
        Ok(kept.into_iter().filter_map(|(order, sealed)| Some((order, sealer.open(&sealed)?))).collect())
    }

    /// Applies the merges and erasures of a workspace that were not applied for good yet.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn follow(&self, workspace: WorkspaceId, now: Timestamp) -> Result<(), FollowError> {
        loop {
            let Some(seen) = self.store.seen(workspace).await? else { return Ok(()) };
            let entries = self.narrowing.entries_since(workspace, seen).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let now_seen = entries.iter().take_while(|entry| is_old(entry, now)).last();
            let now_seen = now_seen.map_or(seen, |entry| entry.seq);
            let changes: Vec<Change> = entries.iter().filter_map(change_of).collect();
            if changes.is_empty() && now_seen == seen {
                return Ok(());
            }
            if self.store.narrow(workspace, seen, now_seen, &changes).await? {
                return Ok(());
            }
        }
    }

    /// Applies narrowings and forgets what is too old, until `shutdown`.
    pub async fn run(self, clock: Clock, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            if let Err(error) = self.round(clock.now()).await {
                tracing::warn!(error = %error_chain(&error), "what orders were matched by was not narrowed or forgotten");
            }
        }
    }

    /// One round of [`Self::run`].
    ///
    /// # Errors
    /// The first of them; the rest is done all the same. What was not done is by the next one.
    pub async fn round(&self, now: Timestamp) -> Result<(), FollowError> {
        let mut first = Ok(());
        for workspace in self.store.workspaces().await? {
            let followed = self.follow(workspace, now).await;
            if let Err(error) = &followed {
                let why = error_chain(error);
                tracing::warn!(workspace = workspace.0, error = %why, "match keys of a workspace were not narrowed");
            }
            first = first.and(followed);
        }
        let kept = SignedDuration::try_from(KEPT).unwrap_or(SignedDuration::MAX);
        self.store.forget(now.checked_sub(kept).unwrap_or(Timestamp::UNIX_EPOCH)).await?;
        first
    }
}

/// The states of orders for who looks at them: with what they were matched by, where changes of a kind (none: of any) have to say
/// that. What narrowings of the last minute take away may still be there: nothing is sent by it.
///
/// # Errors
/// The database.
pub async fn shown(
    orders: &OrderStore,
    master_key: &MasterKey,
    duty: Duty,
    order_ids: &[String],
    kind: Option<Kind>,
) -> Result<HashMap<String, OrderState>, StoreError> {
    let mut states = orders.states(duty, order_ids).await?;
    if kind.is_none_or(|kind| kind == Kind::GoogleDataManager) {
        let sealer = Sealer::of(master_key, duty.workspace);
        for (order, sealed) in orders.match_keys().of_orders(duty, order_ids).await? {
            // Of one that was sold a moment after the first look nothing is known yet.
            if let Some(state) = states.get_mut(&order) {
                state.match_key = sealer.open(&sealed).map(|kept| kept.key);
            }
        }
    }
    Ok(states)
}

/// Whether an entry is applied for good.
pub(crate) fn is_old(entry: &NarrowingEntry, now: Timestamp) -> bool {
    let at = entry.recorded_at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    at.is_some_and(|at| now.duration_since(at) > AGAIN_FOR)
}

/// What an entry does to keys; none: consent alone has to know of it, and is asked before a key is lent.
pub(crate) fn change_of(entry: &NarrowingEntry) -> Option<Change> {
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
