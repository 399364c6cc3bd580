//! Intents (before a request is written) and holds (why a lane waits).

use sqlx::PgPool;
use tracklayer_ids::{Generation, WorkspaceId};
use uuid::Uuid;

use super::{StoreError, attempting, held_lease};
use crate::lease::{Duty, Lease};

/// Statements on intents and holds.
#[derive(Debug, Clone)]
pub struct LaneStore {
    pool: PgPool,
}

/// A request that was about to be written and has no outcome.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Its id.
    pub id: Uuid,
    /// Generation of the offsets.
    pub generation: Generation,
    /// The events that it carried.
    pub offsets: Vec<u64>,
    /// The files that they go into; empty for a request.
    pub files: String,
    /// By PostgreSQL's clock.
    pub started_at: jiff::Timestamp,
}

impl LaneStore {
    /// Over the service's pool.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Commits that a request with these events is about to be written, or these `files`. The same id again replaces what stood
    /// there: after an error it is not known whether it does.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] or the database: the request must not be written.
    pub async fn intend(
        &self,
        lease: &Lease,
        id: Uuid,
        generation: Generation,
        offsets: &[u64],
        files: &str,
    ) -> Result<(), StoreError> {
        let duty = lease.duty;
        // By itself a transaction: where the lease is not held, which is looked at as in `fence`, nothing is written.
        let written = sqlx::query(concat!(
            "with held as materialized (",
            held_lease!("$5", "$9"),
            ")
             insert into delivery.intent
                 (workspace_id, connection_id, partition, intent_id, epoch, generation, event_offsets, files)
             select $1, $2, $3, $4, $5, $6, $7, $8 from held
             on conflict on constraint intent_pkey do update
             set epoch = excluded.epoch, generation = excluded.generation,
                 event_offsets = excluded.event_offsets, started_at = excluded.started_at,
                 files = excluded.files"
        ))
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(id)
        .bind(lease.epoch)
        .bind(generation.0.cast_signed())
        .bind(offsets.iter().map(|o| o.cast_signed()).collect::<Vec<_>>())
        .bind(files)
        .bind(lease.history)
        .execute(&self.pool)
        .await
        .map_err(attempting("commit an intent"))?;
        if written.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Fenced) }
    }

    /// Intents of a lane without an outcome, oldest first.
    ///
    /// # Errors
    /// The database.
    pub async fn open_intents(&self, duty: Duty) -> Result<Vec<Intent>, StoreError> {
        let rows: Vec<(Uuid, i32, Vec<i64>, String, jiff_sqlx::Timestamp)> = sqlx::query_as(
            "select intent_id, generation, event_offsets, files, started_at from delivery.intent
             where workspace_id = $1 and connection_id = $2 and partition = $3 order by started_at",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read open intents"))?;
        Ok(rows
            .into_iter()
            .map(|(id, generation, offsets, files, at)| Intent {
                id,
                generation: Generation(generation.cast_unsigned()),
                offsets: offsets.into_iter().map(i64::cast_unsigned).collect(),
                files,
                started_at: at.to_jiff(),
            })
            .collect())
    }

    /// Drops intents whose request surely was not taken (refused, or never written). One that a later holder of the lease has taken
    /// over under the same id stays, and one in another history of the database, where epochs may come again.
    ///
    /// # Errors
    /// The database.
    pub async fn withdraw(&self, lease: &Lease, intents: &[Uuid]) -> Result<(), StoreError> {
        if intents.is_empty() {
            return Ok(());
        }
        let duty = lease.duty;
        sqlx::query(
            "delete from delivery.intent
             where workspace_id = $1 and connection_id = $2 and partition = $3 and intent_id = any($4)
               and epoch <= $5 and exists (select from journal.history where id = $6)",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(intents)
        .bind(lease.epoch)
        .bind(lease.history)
        .execute(&self.pool)
        .await
        .map_err(attempting("withdraw intents"))?;
        Ok(())
    }

    /// Says why a lane holds, for people.
    ///
    /// # Errors
    /// The database.
    pub async fn hold(
        &self,
        duty: Duty,
        kind: &str,
        detail: &str,
        attempts: u32,
        next_at: jiff::Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "insert into delivery.lane_hold
                 (workspace_id, connection_id, partition, kind, detail, attempts, next_at)
             values ($1, $2, $3, $4, $5, $6, $7)
             on conflict on constraint lane_hold_pkey do update
             set kind = excluded.kind, detail = excluded.detail, attempts = excluded.attempts,
                 next_at = excluded.next_at,
                 since = case when lane_hold.kind = excluded.kind then lane_hold.since else excluded.since end",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .bind(kind)
        .bind(detail)
        .bind(attempts.cast_signed())
        .bind(jiff_sqlx::Timestamp::from(next_at))
        .execute(&self.pool)
        .await
        .map_err(attempting("say why a lane holds"))?;
        Ok(())
    }

    /// Why a lane held last, and until when, if it has not moved since.
    ///
    /// # Errors
    /// The database.
    pub async fn hold_of(&self, duty: Duty) -> Result<Option<(String, jiff::Timestamp)>, StoreError> {
        let row: Option<(String, jiff_sqlx::Timestamp)> = sqlx::query_as(
            "select kind, next_at from delivery.lane_hold
             where workspace_id = $1 and connection_id = $2 and partition = $3",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .fetch_optional(&self.pool)
        .await
        .map_err(attempting("read why a lane held"))?;
        Ok(row.map(|(kind, at)| (kind, at.to_jiff())))
    }

    /// The lane moves again.
    ///
    /// # Errors
    /// The database.
    pub async fn release(&self, duty: Duty) -> Result<(), StoreError> {
        sqlx::query(
            "delete from delivery.lane_hold where workspace_id = $1 and connection_id = $2 and partition = $3",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(duty.partition.0.cast_signed())
        .execute(&self.pool)
        .await
        .map_err(attempting("say that a lane moves again"))?;
        Ok(())
    }

    /// Why lanes of a workspace hold, one per connection.
    ///
    /// # Errors
    /// The database.
    pub async fn holds(&self, workspace: WorkspaceId) -> Result<Vec<(i64, String)>, StoreError> {
        sqlx::query_as(
            "select distinct on (connection_id) connection_id, kind || ': ' || detail from delivery.lane_hold
             where workspace_id = $1 order by connection_id, since",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await
        .map_err(attempting("read why lanes hold"))
    }
}
