//! Orders of shops, as far as a refund has to know its order: Shopify's refund names neither the customer nor, where orders go by
//! another name than its own id, the order. Kept before the order's event is acknowledged, so that a refund finds it.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use tracklayer_ids::{SourceId, WorkspaceId};
use tracklayer_shopify::KnownOrder;

use crate::error::IngestError;
use crate::source::Source;
use crate::store::shopify_orders;

/// Keeps and finds them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KnownOrders {
    pool: PgPool,
}

impl KnownOrders {
    /// Over a pool whose database has the `ingest` schema.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Keeps an order: its latest state, with the ids that an earlier one had and it has not.
    ///
    /// # Errors
    /// [`IngestError::Store`].
    pub async fn remember(&self, source: &Source, order: &KnownOrder) -> Result<(), IngestError> {
        // Texts and decimals: serialising them cannot fail.
        let known = serde_json::to_string(order).unwrap_or_default();
        let merge = |before: &str| match serde_json::from_str::<KnownOrder>(before) {
            Ok(before) => serde_json::to_string(&order.clone().after(before)).unwrap_or_default(),
            // What another release wrote and this one cannot read is not known.
            Err(_) => known.clone(),
        };
        shopify_orders::keep(&self.pool, whose(source), &order.shopify_order_id, &known, merge)
            .await
            .map_err(|source| IngestError::Store { source })
    }

    /// What is known of an order, by Shopify's id.
    ///
    /// # Errors
    /// [`IngestError::Store`].
    pub async fn find(&self, source: &Source, order: &str) -> Result<Option<KnownOrder>, IngestError> {
        let known = shopify_orders::select(&self.pool, whose(source), order)
            .await
            .map_err(|source| IngestError::Store { source })?;
        // What another release wrote and this one cannot read is not known.
        Ok(known.and_then(|known| serde_json::from_str(&known).ok()))
    }

    /// Forgets what was seen last more than so many days ago; how many.
    ///
    /// # Errors
    /// The database.
    pub async fn forget_older_than(&self, days: u32) -> Result<u64, sqlx::Error> {
        let age = SignedDuration::from_hours(24 * i64::from(days));
        let before = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH);
        shopify_orders::delete_before(&self.pool, before).await
    }
}

const fn whose(source: &Source) -> (WorkspaceId, SourceId) {
    (source.workspace, source.id)
}
