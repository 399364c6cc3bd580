//! Tables `delivery.order_match_key` (what orders were matched by, sealed, for as long as they can be adjusted and their person is not
//! erased) and `delivery.match_key_narrowing` (how far merges and erasures have been applied to them).
//!
//! A key says whom it is of by the subject keys of its sale. A merge adds to them, an erasure takes the row away. Both are read from
//! consent's log, again and again from a number that lies a while back: a lane may write a row whose decision is older than what was
//! applied meanwhile. A row whose decision is older than that number takes the number back to itself: what came after its decision is
//! applied again, to it as to all.

use std::collections::{BTreeSet, HashMap};

use sqlx::{PgConnection, PgPool};
use tracklayer_ids::{SubjectKey, WorkspaceId};

use super::orders::order_hash;
use super::{StoreError, attempting};
use crate::lease::{Duty, Lease};

/// Rows that one statement forgets, so that none takes long.
const AT_ONCE: i64 = 10_000;
/// Most subject keys of a row: of nobody has identity told more than so many.
pub const MOST_SUBJECTS: usize = 1_000;

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

/// What an entry of the narrowing log does to the keys of whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They are one person by now.
    Merged(BTreeSet<SubjectKey>),
    /// They were erased.
    Erased(BTreeSet<SubjectKey>),
}

/// What orders were matched by.
#[derive(Debug, Clone)]
pub struct MatchKeyStore {
    pool: PgPool,
}

fn bytes<'k>(keys: impl IntoIterator<Item = &'k SubjectKey>) -> Vec<Vec<u8>> {
    keys.into_iter().map(|key| key.0.to_vec()).collect()
}

fn subjects(keys: &[Vec<u8>]) -> Vec<SubjectKey> {
    keys.iter().filter_map(|key| SubjectKey::from_slice(key)).collect()
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
    sqlx::query(
        "insert into delivery.match_key_narrowing (workspace_id, seen_seq) values ($1, $2)
         on conflict on constraint match_key_narrowing_pkey do nothing",
    )
    .bind(duty.workspace.0)
    .bind(oldest)
    .execute(&mut *tx)
    .await
    .map_err(&what)?;
    // The lane of another partition may have decided on less and write first, which happens at a workspace's first sales as a rule. Who
    // decided on no less locks nothing here.
    sqlx::query(
        "update delivery.match_key_narrowing set seen_seq = $2 where workspace_id = $1 and seen_seq > $2",
    )
    .bind(duty.workspace.0)
    .bind(oldest)
    .execute(&mut *tx)
    .await
    .map_err(&what)?;
    // Shared: lanes do not wait for each other, and what is applied waits for them all. Only what was applied for good between these
    // two statements is newer than a decision now, and such a row is not written.
    let seen: i64 = sqlx::query_scalar(
        "select seen_seq from delivery.match_key_narrowing where workspace_id = $1 for share",
    )
    .bind(duty.workspace.0)
    .fetch_one(&mut *tx)
    .await
    .map_err(&what)?;
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

    /// The workspaces of which keys are or were kept.
    ///
    /// # Errors
    /// The database.
    pub async fn workspaces(&self) -> Result<Vec<WorkspaceId>, StoreError> {
        let ids: Vec<i64> = sqlx::query_scalar("select workspace_id from delivery.match_key_narrowing")
            .fetch_all(&self.pool)
            .await
            .map_err(attempting("read whose orders' match keys are kept"))?;
        Ok(ids.into_iter().map(WorkspaceId).collect())
    }

    /// Up to which number of the narrowing log everything is applied for good; none: no key was ever kept.
    ///
    /// # Errors
    /// The database.
    pub async fn seen(&self, workspace: WorkspaceId) -> Result<Option<i64>, StoreError> {
        sqlx::query_scalar("select seen_seq from delivery.match_key_narrowing where workspace_id = $1")
            .bind(workspace.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(attempting("read how far narrowings were applied to match keys"))
    }

    /// Applies changes that came after `seen`, in their order, and remembers `now_seen`. `false`: somebody else was faster, and
    /// `seen` is another number by now. Applying a change again changes nothing.
    ///
    /// # Errors
    /// The database.
    pub async fn narrow(
        &self,
        workspace: WorkspaceId,
        seen: i64,
        now_seen: i64,
        changes: &[Change],
    ) -> Result<bool, StoreError> {
        let what = attempting("apply narrowings to match keys");
        let mut tx = self.pool.begin().await.map_err(&what)?;
        let stands: Option<i64> = sqlx::query_scalar(
            "select seen_seq from delivery.match_key_narrowing where workspace_id = $1 for update",
        )
        .bind(workspace.0)
        .fetch_optional(&mut *tx)
        .await
        .map_err(&what)?;
        if stands != Some(seen) {
            return Ok(false);
        }
        // Merges first: whoever is erased is so with all that was merged with him by then, and more is taken away rather than less.
        let of_merges: Vec<&BTreeSet<SubjectKey>> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Merged(keys) => Some(keys),
                Change::Erased(_) => None,
            })
            .collect();
        merge(&mut tx, workspace, &of_merges).await?;
        let erased: BTreeSet<SubjectKey> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Erased(keys) => Some(keys),
                Change::Merged(_) => None,
            })
            .flatten()
            .copied()
            .collect();
        if !erased.is_empty() {
            sqlx::query(
                "delete from delivery.order_match_key where workspace_id = $1 and subject_keys && $2::bytea[]",
            )
            .bind(workspace.0)
            .bind(bytes(&erased))
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        }
        sqlx::query("update delivery.match_key_narrowing set seen_seq = $2 where workspace_id = $1")
            .bind(workspace.0)
            .bind(now_seen)
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
        tx.commit().await.map_err(&what)?;
        Ok(true)
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

/// Adds to each row whom its person was merged with. One that would be of more than identity ever tells of is given up.
async fn merge(
    tx: &mut PgConnection,
    workspace: WorkspaceId,
    merges: &[&BTreeSet<SubjectKey>],
) -> Result<(), StoreError> {
    let named: BTreeSet<SubjectKey> = merges.iter().flat_map(|keys| keys.iter().copied()).collect();
    if named.is_empty() {
        return Ok(());
    }
    let what = attempting("add merges to match keys");
    let rows: Vec<(i64, i64, Vec<Vec<u8>>)> = sqlx::query_as(
        "select connection_id, order_hash, subject_keys from delivery.order_match_key
         where workspace_id = $1 and subject_keys && $2::bytea[]
         order by connection_id, order_hash for update",
    )
    .bind(workspace.0)
    .bind(bytes(&named))
    .fetch_all(&mut *tx)
    .await
    .map_err(&what)?;
    for (connection, order, keys) in rows {
        let before: BTreeSet<SubjectKey> = subjects(&keys).into_iter().collect();
        let after = merges.iter().fold(before.clone(), |mut of, merged| {
            if !of.is_disjoint(merged) {
                of.extend(merged.iter().copied());
            }
            of
        });
        if after == before {
            continue;
        }
        let statement = if after.len() > MOST_SUBJECTS {
            "delete from delivery.order_match_key
             where workspace_id = $1 and connection_id = $2 and order_hash = $3 and $4::bytea[] is not null"
        } else {
            "update delivery.order_match_key set subject_keys = $4
             where workspace_id = $1 and connection_id = $2 and order_hash = $3"
        };
        sqlx::query(statement)
            .bind(workspace.0)
            .bind(connection)
            .bind(order)
            .bind(bytes(&after))
            .execute(&mut *tx)
            .await
            .map_err(&what)?;
    }
    Ok(())
}
