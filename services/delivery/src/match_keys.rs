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
use tracklayer_destination::google::MAX_ADJUSTMENT_AGE;
use tracklayer_destination::{Kind, MatchKey, OrderState};
use tracklayer_event::identifiers::{EMAIL, EventIdentifier, PHONE};
use tracklayer_ids::{MasterKey, WorkspaceId};

use crate::follower::{FollowError, Follower, KeptOfPeople};
use crate::lease::Duty;
use crate::narrowing::NarrowingTail;
use crate::sealer::Sealer;
use crate::store::StoreError;
use crate::store::filed::Filed;
use crate::store::match_keys::MatchKeyStore;
use crate::store::orders::OrderStore;

/// How long it is known what an order was matched by: as long as it can be adjusted, and a day for clocks and time zones.
const KEPT: Duration = MAX_ADJUSTMENT_AGE.saturating_add(Duration::from_secs(24 * 3600));
/// Most identifiers that are kept of a sale.
const MOST_IDENTIFIERS: usize = 4;

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
    /// Takes away what is of somebody who was erased, and what is too old.
    pub follower: Follower<MatchKeyStore>,
    master_key: MasterKey,
}

impl MatchKeys {
    /// Over the service's tables and consent's log.
    #[must_use]
    pub fn new(store: MatchKeyStore, narrowing: NarrowingTail, master_key: MasterKey) -> Self {
        Self { follower: Follower::new(store, narrowing), master_key }
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
        self.follower.follow(duty.workspace, now).await?;
        let sealer = self.sealer(duty.workspace);
        let kept = self.follower.kept.of_orders(duty, order_ids).await?;
        // What cannot be opened was sealed under another master key: it is nobody's any more.
        Ok(kept.into_iter().filter_map(|(order, sealed)| Some((order, sealer.open(&sealed)?))).collect())
    }
}

impl KeptOfPeople for MatchKeyStore {
    const WHAT: &'static str = "match keys";

    fn table(&self) -> Filed {
        self.filed()
    }

    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        let kept = SignedDuration::try_from(KEPT).unwrap_or(SignedDuration::MAX);
        self.forget(now.checked_sub(kept).unwrap_or(Timestamp::UNIX_EPOCH)).await.map(drop)
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
