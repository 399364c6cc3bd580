//! Which history of the dedup store is current.

use sqlx::PgPool;

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
        let row: Option<(i64, String, String, bool)> =
            sqlx::query_as("select generation, run_id, sentinel, rebuilt from delivery.dedup_generation")
                .fetch_optional(&self.pool)
                .await
                .map_err(attempting("read the dedup generation"))?;
        Ok(row.map(|(number, run_id, sentinel, rebuilt)| DedupGeneration {
            number,
            run_id,
            sentinel,
            rebuilt,
        }))
    }

    /// Opens the next one, not yet rebuilt, if `seen` is still the current number (`None`: if there is none). Answers
    /// whether this call opened it.
    ///
    /// # Errors
    /// The database.
    pub async fn bump(&self, seen: Option<i64>, run_id: &str, sentinel: &str) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "insert into delivery.dedup_generation as g (generation, run_id, sentinel, rebuilt)
             select coalesce($1, 0) + 1, $2, $3, false
             where $1 is not null or not exists (select 1 from delivery.dedup_generation)
             on conflict on constraint dedup_generation_pkey do update
             set generation = g.generation + 1, run_id = excluded.run_id, sentinel = excluded.sentinel, rebuilt = false
             where g.generation = $1",
        )
        .bind(seen)
        .bind(run_id)
        .bind(sentinel)
        .execute(&self.pool)
        .await
        .map_err(attempting("bump the dedup generation"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Marks it rebuilt.
    ///
    /// # Errors
    /// The database.
    pub async fn rebuilt(&self, number: i64) -> Result<(), StoreError> {
        sqlx::query("update delivery.dedup_generation set rebuilt = true where generation = $1")
            .bind(number)
            .execute(&self.pool)
            .await
            .map_err(attempting("mark the dedup generation rebuilt"))?;
        Ok(())
    }
}
