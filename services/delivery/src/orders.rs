//! What is known of orders at a connection, for whoever builds changes of them: a lane, and a preview of what it will send.

use std::collections::HashMap;

use tracklayer_destination::{Kind, OrderState};
use tracklayer_ids::MasterKey;

use crate::lease::Duty;
use crate::sealer::Sealer;
use crate::store::StoreError;
use crate::store::orders::OrderStore;

/// Whether changes of its orders have to say what these were matched by.
#[must_use]
pub fn needs_match_keys(kind: Kind) -> bool {
    kind == Kind::GoogleDataManager
}

/// The states of orders, by order id, with what they were matched by if that is asked for; what is unknown is absent.
///
/// # Errors
/// The database.
pub async fn states(
    store: &OrderStore,
    master_key: &MasterKey,
    duty: Duty,
    order_ids: &[String],
    with_match_keys: bool,
) -> Result<HashMap<String, OrderState>, StoreError> {
    let mut states = store.states(duty, order_ids).await?;
    if with_match_keys {
        let sealer = Sealer::of(master_key, duty.workspace);
        for (order, sealed) in store.match_keys(duty, order_ids).await? {
            // Of one that was sold a moment after the first look nothing is known yet.
            if let Some(state) = states.get_mut(&order) {
                state.match_key = sealer.open(&sealed);
            }
        }
    }
    Ok(states)
}
