//! Tables `delivery.order_match_key` (what orders were matched by, sealed, for as long as they can be adjusted and their person is not
//! erased) and `delivery.match_key_narrowing` (how far merges and erasures have been applied to them: see [`super::filed`]). A key says
//! whom it is of by the subject keys of its sale.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool};
use tracklayer_ids::SubjectKey;

use super::filed::{Filed, MATCH_KEYS, bytes, reach};
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
    /// Whom it is of.
    pub subject_keys: Vec<SubjectKey>,
    /// The newest narrowing that the sale's decision knew of.
    pub decided_at: i64,
}

/// What orders were matched by.
#[derive(Debug, Clone)]
pub struct MatchKeyStore {
    pool: PgPool,
}

/// Writes them, in the order in which lanes lock what they share. Of an order that is sold twice the later one counts.
pub(super) async fn write(
    tx: &mut PgConnection,
    lease: &Lease,
    keys: &[SealedKey],
) -> Result<(), StoreError> {
    let Some(oldest) = keys.iter().map(|key| key.decided_at).min() else { return Ok(()) };
    let duty = lease.duty;
    let what = attempting("remember what orders were matched by");
    let seen = reach(tx, &MATCH_KEYS, duty.workspace, oldest).await?;
    let mut of_orders: Vec<&SealedKey> = keys.iter().filter(|key| key.decided_at >= seen).collect();
    of_orders.sort_by_key(|key| key.hash);
    of_orders.reverse();
    of_orders.dedup_by_key(|key| key.hash);
    of_orders.reverse();
    let (mut places, mut of_places) = (Vec::new(), Vec::new());
    for (place, key) in (1_i64..).zip(&of_orders) {
        for subject in bytes(&key.subject_keys) {
            places.push(place);
            of_places.push(subject);
        }
    }
    sqlx::query(
        "with subject as (
             select s.place, array_agg(s.key) as keys from unnest($6::bigint[], $7::bytea[]) as s (place, key) group by s.place
         )
         insert into delivery.order_match_key as k
             (workspace_id, connection_id, order_hash, sold_at, sealed, subject_keys)
         select $1, $2, u.h, u.at, u.k, subject.keys
         from unnest($3::bigint[], $4::timestamptz[], $5::text[]) with ordinality as u (h, at, k, place)
         join subject using (place)
         order by u.h
         on conflict on constraint order_match_key_pkey do update
         set sold_at = excluded.sold_at, sealed = excluded.sealed, subject_keys = excluded.subject_keys
         where k.sold_at <= excluded.sold_at",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(of_orders.iter().map(|key| key.hash).collect::<Vec<_>>())
    .bind(of_orders.iter().map(|key| jiff_sqlx::Timestamp::from(key.sold_at)).collect::<Vec<_>>())
    .bind(of_orders.iter().map(|key| key.sealed.as_str()).collect::<Vec<_>>())
    .bind(places)
    .bind(of_places)
    .execute(tx)
    .await
    .map_err(&what)?;
    Ok(())
}

impl MatchKeyStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// What is kept of orders at a connection, sealed, by order id.
    ///
    /// # Errors
    /// The database.
    pub async fn of_orders(
        &self,
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
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read what orders were matched by"))?;
        Ok(rows.into_iter().filter_map(|(hash, key)| Some(((*by_hash.get(&hash)?).clone(), key))).collect())
    }

    /// Whose they are, and how far narrowings were applied to them.
    #[must_use]
    pub fn filed(&self) -> Filed {
        Filed::new(self.pool.clone(), &MATCH_KEYS)
    }

    /// Forgets those of orders that were sold before; answers how many, at most some thousands. What another process forgets is left
    /// to it.
    ///
    /// # Errors
    /// The database.
    pub async fn forget(&self, sold_before: jiff::Timestamp) -> Result<u64, StoreError> {
        let forgotten = sqlx::query(
            "delete from delivery.order_match_key where ctid = any(array(
                 select ctid from delivery.order_match_key where sold_at < $1
                 order by sold_at limit $2 for update skip locked))",
        )
        .bind(jiff_sqlx::Timestamp::from(sold_before))
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await
        .map_err(attempting("forget what orders were matched by"))?;
        Ok(forgotten.rows_affected())
    }
}
