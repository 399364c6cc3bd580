//! Which history of the dedup store is current.

use sqlx::{PgConnection, PgPool};

use super::{StoreError, attempting};

/// Statements on `delivery.dedup_generation`.
#[derive(Debug, Clone)]
pub struct DedupGenerationStore {
    pool: PgPool,
}

/// The current history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupGeneration {
    /// Its number.
    pub number: i64,
    /// Redis's run id when it began.
    pub run_id: String,
    /// How many keys Redis had evicted then; a Redis that evicted more has lost claims.
    pub evicted_keys: i64,
    /// Value of the sentinel key; a Redis without it has lost its data.
    pub sentinel: String,
    /// Whether the claims were rebuilt since: until then nothing may be resolved.
    pub rebuilt: bool,
}

impl DedupGenerationStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The current one; none before the first start.
    ///
    /// # Errors
    /// The database.
    pub async fn current(&self) -> Result<Option<DedupGeneration>, StoreError> {
        let row: Option<(i64, String, i64, String, bool)> = sqlx::query_as(
            "select generation, run_id, evicted_keys, sentinel, rebuilt from delivery.dedup_generation",
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("read the dedup generation"))?;
        Ok(row.map(|(number, run_id, evicted_keys, sentinel, rebuilt)| DedupGeneration {
            number,
            run_id,
            evicted_keys,
            sentinel,
            rebuilt,
        }))
    }

    /// Makes `next` the current one, not yet rebuilt, if `seen` is still the current number (`None`: if there is none).
    /// Answers whether it did.
    ///
    /// # Errors
    /// The database.
    pub async fn bump(&self, seen: Option<i64>, next: &DedupGeneration) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "insert into delivery.dedup_generation as g (generation, run_id, evicted_keys, sentinel, rebuilt)
             select $2, $3, $4, $5, false
             where $1::bigint is not null or not exists (select 1 from delivery.dedup_generation)
             on conflict on constraint dedup_generation_pkey do update
             set generation = excluded.generation, run_id = excluded.run_id, evicted_keys = excluded.evicted_keys,
                 sentinel = excluded.sentinel, rebuilt = false
             where g.generation = $1",
        )
        .bind(seen)
        .bind(next.number)
        .bind(&next.run_id)
        .bind(next.evicted_keys)
        .bind(&next.sentinel)
        .execute(&self.pool)
        .await
        .map_err(attempting("bump the dedup generation"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Marks it rebuilt; `false`: another one is current by now.
    ///
    /// # Errors
    /// The database.
    pub async fn rebuilt(&self, number: i64) -> Result<bool, StoreError> {
        let done = sqlx::query("update delivery.dedup_generation set rebuilt = true where generation = $1")
            .bind(number)
            .execute(&self.pool)
            .await
            .map_err(attempting("mark the dedup generation rebuilt"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets one process rebuild at a time; none: another does. The lock is the returned connection's, which is out of the
    /// pool, so that it goes with it however the rebuild ends.
    ///
    /// # Errors
    /// The database.
    pub async fn lock_rebuild(&self) -> Result<Option<PgConnection>, StoreError> {
        let what = attempting("lock the rebuild of claims");
        let mut connection = self.pool.acquire().await.map_err(&what)?.detach();
        let (locked,): (bool,) =
            sqlx::query_as("select pg_try_advisory_lock(hashtext('delivery.dedup_generation'))")
                .fetch_one(&mut connection)
                .await
                .map_err(&what)?;
        Ok(locked.then_some(connection))
    }
}
