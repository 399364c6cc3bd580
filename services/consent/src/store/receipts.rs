//! Receipts: what was decided for whom, denials included.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use tracklayer_ids::{ConnectionId, WorkspaceId};
use uuid::Uuid;

use super::Store;
use crate::{error::StoreError, policy::Policy};

/// Named in every receipt.
const BUILD: &str = concat!("tracklayer-consent ", env!("CARGO_PKG_VERSION"));

/// Decisions that were made together.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// Of whom.
    pub workspace: WorkspaceId,
    /// When.
    pub decided_at: Timestamp,
    /// By which policy.
    pub policy: &'a Policy,
    /// After which narrowing.
    pub narrowing_seq: i64,
    /// Of which events.
    pub message_ids: Vec<&'a str>,
    /// Each distinct answer.
    pub receipts: Vec<Receipt>,
}

/// One distinct answer of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// For which connection.
    pub connection: ConnectionId,
    /// Its kind, `unknown` for one that nobody knows.
    pub kind: &'static str,
    /// Number of the outcome.
    pub outcome: i16,
    /// Reported reason, empty if none.
    pub reason: &'static str,
    /// The place that decided.
    pub place: String,
    /// Bits of the denied purposes.
    pub denied: i16,
    /// Bit i: the i-th event got this answer.
    pub members: Vec<u8>,
}

impl Store {
    /// Writes a batch and its receipts: one statement.
    ///
    /// # Errors
    /// The database.
    pub async fn write_receipts(&self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let receipts = &batch.receipts;
        sqlx::query(
            "with batch as (
                 insert into consent.decision_batch
                     (workspace_id, batch_id, decided_at, policy_version, policy_hash, narrowing_seq, build, message_ids)
                 values ($1, $2, $3, $4, $5, $6, $7, $8)
             )
             insert into consent.receipt
                 (workspace_id, batch_id, connection_id, kind, outcome, reason, place, denied_purposes, members, part)
             select $1, $2, r.* from unnest(
                 $9::bigint[], $10::text[], $11::smallint[], $12::text[], $13::text[], $14::smallint[], $15::bytea[]
             ) with ordinality as r",
        )
        .bind(batch.workspace.0)
        .bind(Uuid::now_v7())
        .bind(batch.decided_at.to_sqlx())
        .bind(batch.policy.version())
        .bind(batch.policy.hash().as_slice())
        .bind(batch.narrowing_seq)
        .bind(BUILD)
        .bind(batch.message_ids.as_slice())
        .bind(receipts.iter().map(|r| r.connection.0).collect::<Vec<i64>>())
        .bind(receipts.iter().map(|r| r.kind).collect::<Vec<&str>>())
        .bind(receipts.iter().map(|r| r.outcome).collect::<Vec<i16>>())
        .bind(receipts.iter().map(|r| r.reason).collect::<Vec<&str>>())
        .bind(receipts.iter().map(|r| r.place.as_str()).collect::<Vec<&str>>())
        .bind(receipts.iter().map(|r| r.denied).collect::<Vec<i16>>())
        .bind(receipts.iter().map(|r| r.members.as_slice()).collect::<Vec<&[u8]>>())
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("write the receipts of a batch"))?;
        Ok(())
    }

    /// Deletes receipts that are older than `before`, a part at a time. Gives how many batches went.
    ///
    /// # Errors
    /// The database.
    pub async fn delete_receipts(&self, before: Timestamp) -> Result<u64, StoreError> {
        let deleted = sqlx::query(
            "delete from consent.decision_batch where (workspace_id, batch_id) in (
                 select workspace_id, batch_id from consent.decision_batch where decided_at < $1 limit 1000
             )",
        )
        .bind(before.to_sqlx())
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("delete receipts past their retention"))?;
        Ok(deleted.rows_affected())
    }
}
