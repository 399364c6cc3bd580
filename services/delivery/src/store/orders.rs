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

/// What an effect writes; all effects of one statement are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Sold,
    Restated,
    Refunded,
    RefundedWhole,
}

impl Write {
    const fn of(change: &OrderChange) -> Self {
        match change {
            OrderEffect::Sold { .. } => Self::Sold,
            OrderEffect::Restated { .. } => Self::Restated,
            OrderEffect::Refunded { amount: Some(_), .. } => Self::Refunded,
            OrderEffect::Refunded { amount: None, .. } => Self::RefundedWhole,
        }
    }

    /// What is worth something else now has its refunds taken off already, from the value and from the total alike. The whole
    /// of an order is what refunds are measured against: the total, or the value where there is none (a total of nothing, paid
    /// with a voucher, is none), and never less than what was refunded before.
    const fn statement(self) -> &'static str {
        match self {
            Self::Sold => {
                "insert into delivery.order_sent
                     (workspace_id, connection_id, order_hash, value, total, currency, sold_at)
                 select $1, $2, u.h, u.v::numeric, u.t::numeric, u.c, u.at
                 from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[]) as u (h, v, t, c, at)
                 on conflict on constraint order_sent_pkey do update
                 set value = excluded.value, total = excluded.total, currency = excluded.currency,
                     sold_at = excluded.sold_at"
            }
            Self::Restated => {
                "insert into delivery.order_sent (workspace_id, connection_id, order_hash, value, total)
                 select $1, $2, u.h, u.v::numeric, u.t::numeric
                 from unnest($3::bigint[], $4::text[], $5::text[]) as u (h, v, t)
                 on conflict on constraint order_sent_pkey do update
                 set value = excluded.value, total = excluded.total, refunded = 0"
            }
            Self::Refunded => {
                "insert into delivery.order_sent as o (workspace_id, connection_id, order_hash, refunded)
                 select $1, $2, u.h, u.v::numeric from unnest($3::bigint[], $4::text[]) as u (h, v)
                 on conflict on constraint order_sent_pkey do update set refunded = o.refunded + excluded.refunded"
            }
            Self::RefundedWhole => {
                "insert into delivery.order_sent as o (workspace_id, connection_id, order_hash)
                 select $1, $2, u.h from unnest($3::bigint[]) as u (h)
                 on conflict on constraint order_sent_pkey do update
                 set refunded = greatest(o.refunded, case when o.total > 0 then o.total else o.value end)"
            }
        }
    }
}

/// Writes what deliveries did to orders. Rows of one connection are shared by its partitions, so that all lanes have to lock
/// them in the same order: ascending, also over several statements. What one statement takes are neighbours in that order of
/// one kind, each order once; nearly always that is everything.
pub(super) async fn apply(
    tx: &mut PgConnection,
    lease: &Lease,
    changes: &[OrderChange],
) -> Result<(), StoreError> {
    let mut changes: Vec<(i64, &OrderChange)> =
        changes.iter().map(|c| (order_hash(order_id(c)), c)).collect();
    // Changes of one order keep their order.
    changes.sort_by_key(|(hash, _)| *hash);
    let together =
        |a: &(i64, &OrderChange), b: &(i64, &OrderChange)| a.0 != b.0 && Write::of(a.1) == Write::of(b.1);
    for run in changes.chunk_by(together) {
        write(tx, lease, run).await?;
    }
    Ok(())
}

async fn write(tx: &mut PgConnection, lease: &Lease, run: &[(i64, &OrderChange)]) -> Result<(), StoreError> {
    let Some((_, first)) = run.first() else { return Ok(()) };
    let kind = Write::of(first);
    let hashes: Vec<i64> = run.iter().map(|(hash, _)| *hash).collect();
    let (mut values, mut totals, mut currencies, mut times) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (_, change) in run {
        match change {
            OrderEffect::Sold { value, total, currency, at, .. } => {
                values.push(text(*value));
                totals.push(text(*total));
                currencies.push(currency.clone());
                times.push(jiff_sqlx::Timestamp::from(*at));
            }
            OrderEffect::Restated { value, total, .. } => {
                values.push(text(*value));
                totals.push(text(*total));
            }
            OrderEffect::Refunded { amount, .. } => values.push(text(*amount)),
        }
    }
    let duty = lease.duty;
    let query = sqlx::query(kind.statement()).bind(duty.workspace.0).bind(duty.connection.0).bind(hashes);
    let query = match kind {
        Write::Sold => query.bind(values).bind(totals).bind(currencies).bind(times),
        Write::Restated => query.bind(values).bind(totals),
        Write::Refunded => query.bind(values),
        Write::RefundedWhole => query,
    };
    query.execute(tx).await.map_err(attempting("remember what was sent for orders"))?;
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
        let by_hash: HashMap<i64, &String> = order_ids.iter().map(|id| (order_hash(id), id)).collect();
        let hashes: Vec<i64> = by_hash.keys().copied().collect();
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
            let Some(id) = by_hash.get(&hash) else { continue };
            let state = OrderState {
                value: decimal(value),
                total: decimal(total),
                currency,
                at: at.map(jiff_sqlx::Timestamp::to_jiff),
                // A sum that is no amount any more is beyond all of them: nothing is left of the order.
                refunded: decimal(Some(refunded)).unwrap_or(Decimal::MAX),
            };
            states.insert((*id).clone(), state);
        }
        Ok(states)
    }
}
