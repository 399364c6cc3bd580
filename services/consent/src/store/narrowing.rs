//! The narrowing log and its head.
//!
//! The one trick: whoever writes signals of a workspace locks its head first and reads what is stored *after* that. Two
//! recorders of one workspace therefore follow each other, so that each sees what the other changed and none can wait for
//! the other in a ring; and a number is visible exactly when the signals that it stands for are.

use jiff::Timestamp;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::{PgTransaction, Row as _};
use tracklayer_ids::{SubjectKey, WorkspaceId};
use uuid::Uuid;

use super::Store;
use crate::{error::StoreError, record::Narrowing};

/// The transaction of a writer: holds the head of its workspace.
#[derive(Debug)]
pub struct Writing {
    pub(super) workspace: WorkspaceId,
    pub(super) transaction: PgTransaction<'static>,
    newest: i64,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub seq: i64,
    /// Who is named; nobody: everybody.
    pub subjects: Vec<SubjectKey>,
    /// Why.
    pub cause: String,
    /// When it was written.
    pub recorded_at: Timestamp,
}

impl Store {
    /// Makes the head of a workspace if it has none. Safe to repeat.
    ///
    /// # Errors
    /// The database.
    pub async fn ensure_head(&self, workspace: WorkspaceId) -> Result<(), StoreError> {
        sqlx::query(
            "insert into consent.narrowing_head (workspace_id, seq) values ($1, 0) on conflict do nothing",
        )
        .bind(workspace.0)
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("make the head of a narrowing log"))?;
        Ok(())
    }

    /// Locks the head of a workspace, which has one ([`Self::ensure_head`]).
    ///
    /// # Errors
    /// The database.
    pub async fn write(&self, workspace: WorkspaceId) -> Result<Writing, StoreError> {
        let mut transaction =
            tracklayer_postgres::begin(&self.pool).await.map_err(StoreError::of("begin to record"))?;
        let newest =
            sqlx::query_scalar("select seq from consent.narrowing_head where workspace_id = $1 for update")
                .bind(workspace.0)
                .fetch_one(&mut *transaction)
                .await
                .map_err(StoreError::of("lock the head of a narrowing log"))?;
        Ok(Writing { workspace, transaction, newest })
    }

    /// The entries after a number, at most `limit`, and the newest number: one statement, one snapshot.
    ///
    /// # Errors
    /// The database, a standby included: it may lack the newest.
    pub async fn read_narrowing(
        &self,
        workspace: WorkspaceId,
        after: i64,
        limit: u32,
    ) -> Result<(Vec<Entry>, i64), StoreError> {
        let failed = "read the narrowing log";
        let rows = sqlx::query(
            "select pg_is_in_recovery() as is_standby,
                    coalesce((select seq from consent.narrowing_head where workspace_id = $1), 0) as newest_seq,
                    n.seq, n.subject_keys, n.cause, n.recorded_at
             from (select 1) as one
             left join (
                 select seq, subject_keys, cause, recorded_at from consent.narrowing
                 where workspace_id = $1 and seq > $2 order by seq limit $3
             ) as n on true
             order by n.seq",
        )
        .bind(workspace.0)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of(failed))?;
        let mut entries = Vec::with_capacity(rows.len());
        let mut newest = 0;
        for row in &rows {
            if row.try_get("is_standby").map_err(StoreError::of(failed))? {
                return Err(StoreError::standby(failed));
            }
            newest = row.try_get("newest_seq").map_err(StoreError::of(failed))?;
            entries.extend(entry(row).map_err(StoreError::of(failed))?);
        }
        Ok((entries, newest))
    }
}

fn entry(row: &sqlx::postgres::PgRow) -> Result<Option<Entry>, sqlx::Error> {
    let Some(seq) = row.try_get::<Option<i64>, _>("seq")? else { return Ok(None) };
    let subjects: Vec<Uuid> = row.try_get("subject_keys")?;
    Ok(Some(Entry {
        seq,
        subjects: subjects.into_iter().map(|key| SubjectKey(key.into_bytes())).collect(),
        cause: row.try_get("cause")?,
        recorded_at: row.try_get::<SqlTimestamp, _>("recorded_at")?.to_jiff(),
    }))
}

impl Writing {
    /// Numbers narrowings, in their order, and moves the head: one statement.
    ///
    /// # Errors
    /// The database.
    pub async fn number(&mut self, narrowings: &[Narrowing]) -> Result<(), StoreError> {
        if narrowings.is_empty() {
            return Ok(());
        }
        let numbers = || (self.newest + 1..).take(narrowings.len());
        // Keys of all entries one after the other, each with the number of its entry.
        let mut keys: Vec<Uuid> = Vec::new();
        let mut entries: Vec<i64> = Vec::new();
        for (number, narrowing) in numbers().zip(narrowings) {
            keys.extend(narrowing.subjects.iter().map(|key| key.uuid()));
            entries.resize(keys.len(), number);
        }
        sqlx::query(
            "with moved as (
                 update consent.narrowing_head set seq = seq + cardinality($2::bigint[]) where workspace_id = $1
             ),
             named as (
                 select seq, array_agg(subject_key order by place) as subject_keys
                 from unnest($5::uuid[], $6::bigint[]) with ordinality as k (subject_key, seq, place)
                 group by seq
             )
             insert into consent.narrowing (workspace_id, seq, subject_keys, cause, message_id)
             select $1, n.seq, coalesce(k.subject_keys, '{}'), n.cause, n.message_id
             from unnest($2::bigint[], $3::text[], $4::text[]) as n (seq, cause, message_id)
             left join named as k using (seq)",
        )
        .bind(self.workspace.0)
        .bind(numbers().collect::<Vec<i64>>())
        .bind(narrowings.iter().map(|narrowing| narrowing.cause.name()).collect::<Vec<&str>>())
        .bind(narrowings.iter().map(|narrowing| narrowing.message_id.as_str()).collect::<Vec<&str>>())
        .bind(keys)
        .bind(entries)
        .execute(&mut *self.transaction)
        .await
        .map_err(StoreError::of("number the narrowings of a batch"))?;
        self.newest += i64::try_from(narrowings.len()).unwrap_or(i64::MAX);
        Ok(())
    }

    /// Commits. Gives the newest number.
    ///
    /// # Errors
    /// The database: what was written may be stored or not, and a repeat finds out.
    pub async fn commit(self) -> Result<i64, StoreError> {
        self.transaction.commit().await.map_err(StoreError::of("commit what was recorded"))?;
        Ok(self.newest)
    }
}
