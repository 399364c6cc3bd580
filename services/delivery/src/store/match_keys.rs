//! Table `delivery.order_match_key`: what orders were matched by, sealed, for as long as they can be adjusted.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool};

use super::orders::order_hash;
use super::{StoreError, attempting};
use crate::lease::{Duty, Lease};

/// Rows that one statement forgets, so that none takes long.
const AT_ONCE: i64 = 10_000;

/// What an order was matched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Hash of the order's id.
    pub hash: i64,
    /// The sale's time.
    pub sold_at: jiff::Timestamp,
    /// The key, sealed.
    pub sealed: String,
}

/// Writes them, in the order in which lanes lock what they share. Of an order that is sold twice the later one counts.
pub(super) async fn write(
    tx: &mut PgConnection,
    lease: &Lease,
    keys: &[SealedKey],
) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut keys: Vec<&SealedKey> = keys.iter().collect();
    keys.sort_by_key(|key| key.hash);
    keys.reverse();
    keys.dedup_by_key(|key| key.hash);
    keys.reverse();
    let duty = lease.duty;
    sqlx::query(
        "insert into delivery.order_match_key as k (workspace_id, connection_id, order_hash, sold_at, sealed)
         select $1, $2, u.h, u.at, u.k from unnest($3::bigint[], $4::timestamptz[], $5::text[]) as u (h, at, k)
         on conflict on constraint order_match_key_pkey do update
         set sold_at = excluded.sold_at, sealed = excluded.sealed where k.sold_at <= excluded.sold_at",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(keys.iter().map(|key| key.hash).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| jiff_sqlx::Timestamp::from(key.sold_at)).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.sealed.as_str()).collect::<Vec<_>>())
    .execute(tx)
    .await
    .map_err(attempting("remember what orders were matched by"))?;
    Ok(())
}

pub(super) async fn select(
    pool: &PgPool,
    duty: Duty,
    order_ids: &[String],
) -> Result<HashMap<String, String>, StoreError> {
    let by_hash: HashMap<i64, &String> = order_ids.iter().map(|id| (order_hash(id), id)).collect();
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "select order_hash, sealed from delivery.order_match_key
         where workspace_id = $1 and connection_id = $2 and order_hash = any($3)",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(by_hash.keys().copied().collect::<Vec<_>>())
    .fetch_all(pool)
    .await
    .map_err(attempting("read what orders were matched by"))?;
    Ok(rows.into_iter().filter_map(|(hash, key)| Some(((*by_hash.get(&hash)?).clone(), key))).collect())
}

/// Forgets those of orders that were sold before; answers how many, at most some thousands.
pub(super) async fn forget(pool: &PgPool, sold_before: jiff::Timestamp) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(
        "delete from delivery.order_match_key where ctid = any(array(
             select ctid from delivery.order_match_key where sold_at < $1 limit $2))",
    )
    .bind(jiff_sqlx::Timestamp::from(sold_before))
    .bind(AT_ONCE)
    .execute(pool)
    .await
    .map_err(attempting("forget what orders were matched by"))?;
    Ok(forgotten.rows_affected())
}
