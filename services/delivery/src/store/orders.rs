//! What was sent for an order at a connection.

use std::collections::HashMap;

use rust_decimal::Decimal;
use sqlx::{PgConnection, PgPool};
use tracklayer_destination::{OrderEffect, OrderState};

use super::{StoreError, attempting};
use crate::lease::{Duty, Lease};

/// Reads of `delivery.order_sent`.
#[derive(Debug, Clone)]
pub struct OrderStore {
    pool: PgPool,
}

/// A delivered item's effect on an order.
pub type OrderChange = OrderEffect;

/// Hash under which an order is filed.
#[must_use]
pub fn order_hash(order_id: &str) -> i64 {
    xxhash_rust::xxh3::xxh3_64(order_id.as_bytes()).cast_signed()
}

/// The order that an effect is on.
#[must_use]
pub fn order_id(effect: &OrderEffect) -> &str {
    match effect {
        OrderEffect::Sold { order_id, .. }
        | OrderEffect::Restated { order_id, .. }
        | OrderEffect::Refunded { order_id, .. } => order_id,
    }
}

fn text(value: Option<Decimal>) -> Option<String> {
    value.map(|v| v.to_string())
}

pub(super) async fn apply(
    tx: &mut PgConnection,
    lease: &Lease,
    changes: &[OrderChange],
) -> Result<(), StoreError> {
    let duty = lease.duty;
    // Rows of one connection are shared by its partitions: all lanes lock them in the same order. Changes of one order keep theirs.
    let mut changes: Vec<(i64, &OrderChange)> =
        changes.iter().map(|c| (order_hash(order_id(c)), c)).collect();
    changes.sort_by_key(|(hash, _)| *hash);
    for (hash, change) in changes {
        let query = match change {
            OrderEffect::Sold { value, total, currency, at, .. } => sqlx::query(
                "insert into delivery.order_sent
                     (workspace_id, connection_id, order_hash, value, total, currency, sold_at)
                 values ($1, $2, $3, $4::text::numeric, $5::text::numeric, $6, $7)
                 on conflict on constraint order_sent_pkey do update
                 set value = excluded.value, total = excluded.total, currency = excluded.currency,
                     sold_at = excluded.sold_at",
            )
            .bind(duty.workspace.0)
            .bind(duty.connection.0)
            .bind(hash)
            .bind(text(*value))
            .bind(text(*total))
            .bind(currency.clone())
            .bind(jiff_sqlx::Timestamp::from(*at)),
            // What is worth something else now has its refunds taken off already, from the value and from the total alike.
            OrderEffect::Restated { value, total, .. } => sqlx::query(
                "insert into delivery.order_sent (workspace_id, connection_id, order_hash, value, total)
                 values ($1, $2, $3, $4::text::numeric, $5::text::numeric)
                 on conflict on constraint order_sent_pkey do update
                 set value = excluded.value, total = excluded.total, refunded = 0",
            )
            .bind(duty.workspace.0)
            .bind(duty.connection.0)
            .bind(hash)
            .bind(text(*value))
            .bind(text(*total)),
            OrderEffect::Refunded { amount, .. } => sqlx::query(
                "insert into delivery.order_sent as o (workspace_id, connection_id, order_hash, refunded)
                 values ($1, $2, $3, coalesce($4::text::numeric, 0))
                 on conflict on constraint order_sent_pkey do update
                 set refunded = case when $4 is null then coalesce(o.total, o.value, o.refunded)
                                     else o.refunded + excluded.refunded end",
            )
            .bind(duty.workspace.0)
            .bind(duty.connection.0)
            .bind(hash)
            .bind(text(*amount)),
        };
        query.execute(&mut *tx).await.map_err(attempting("remember what was sent for an order"))?;
    }
    Ok(())
}

impl OrderStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The states of orders at a connection, by order id; what is unknown is absent.
    ///
    /// # Errors
    /// The database.
    pub async fn states(
        &self,
        duty: Duty,
        order_ids: &[String],
    ) -> Result<HashMap<String, OrderState>, StoreError> {
        type Row =
            (i64, Option<String>, Option<String>, Option<String>, Option<jiff_sqlx::Timestamp>, String);
        let hashes: Vec<i64> = order_ids.iter().map(|id| order_hash(id)).collect();
        let rows: Vec<Row> = sqlx::query_as(
            "select order_hash, value::text, total::text, currency, sold_at, refunded::text from delivery.order_sent
             where workspace_id = $1 and connection_id = $2 and order_hash = any($3)",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(&hashes)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read what was sent for orders"))?;
        let decimal = |text: Option<String>| text.and_then(|t| t.parse::<Decimal>().ok());
        let mut states = HashMap::new();
        for (hash, value, total, currency, at, refunded) in rows {
            let Some(id) = order_ids.iter().find(|id| order_hash(id) == hash) else { continue };
            let state = OrderState {
                value: decimal(value),
                total: decimal(total),
                currency,
                at: at.map(jiff_sqlx::Timestamp::to_jiff),
                refunded: decimal(Some(refunded)).unwrap_or_default(),
            };
            states.insert(id.clone(), state);
        }
        Ok(states)
    }
}
