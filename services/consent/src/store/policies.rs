//! Policies that were ever in force.

use sqlx::Row as _;

use super::Store;
use crate::{error::StoreError, policy::Policy};

/// What bringing a policy into force came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// It was in force already, or is the first.
    Unchanged,
    /// It replaced another: everybody of this many workspaces is to be decided about again.
    Replaced {
        /// How many.
        workspaces: u64,
    },
    /// The version stands for another text: versions are never used twice.
    VersionTaken,
}

impl Store {
    /// Brings a policy into force. Where it replaces another, everybody is named in every workspace's narrowing log, in the
    /// same transaction.
    ///
    /// # Errors
    /// The database.
    pub async fn activate_policy(&self, policy: &Policy) -> Result<Activation, StoreError> {
        let failed = "bring the policy into force";
        let mut transaction = tracklayer_postgres::begin(&self.pool).await.map_err(StoreError::of(failed))?;
        // Replicas that start together follow each other.
        sqlx::query("select pg_advisory_xact_lock(hashtextextended('tracklayer consent policy', 0))")
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::of(failed))?;
        let row = sqlx::query(
            "with inserted as (
                 insert into consent.policy (version, hash, document) values ($1, $2, $3) on conflict do nothing
             )
             select (select hash from consent.policy where version = $1) as hash,
                    (select version from consent.policy_in_force) as in_force",
        )
        .bind(policy.version())
        .bind(policy.hash().as_slice())
        .bind(policy.text())
        .fetch_one(&mut *transaction)
        .await
        .map_err(StoreError::of(failed))?;
        let hash: Option<Vec<u8>> = row.try_get("hash").map_err(StoreError::of(failed))?;
        let in_force: Option<String> = row.try_get("in_force").map_err(StoreError::of(failed))?;
        if hash.is_some_and(|hash| hash != policy.hash()) {
            return Ok(Activation::VersionTaken);
        }
        sqlx::query(
            "insert into consent.policy_in_force (version) values ($1)
             on conflict (only_row) do update set version = excluded.version",
        )
        .bind(policy.version())
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::of(failed))?;
        let mut activation = Activation::Unchanged;
        if in_force.is_some_and(|version| version != policy.version()) {
            // Heads in one order, as everywhere.
            let named = sqlx::query(
                "with heads as (
                     select workspace_id from consent.narrowing_head order by workspace_id for update
                 ),
                 moved as (
                     update consent.narrowing_head as h set seq = h.seq + 1
                     from heads where h.workspace_id = heads.workspace_id
                     returning h.workspace_id, h.seq
                 )
                 insert into consent.narrowing (workspace_id, seq, subject_keys, cause, message_id)
                 select workspace_id, seq, '{}', 'policy', '' from moved",
            )
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::of(failed))?;
            activation = Activation::Replaced { workspaces: named.rows_affected() };
        }
        transaction.commit().await.map_err(StoreError::of(failed))?;
        Ok(activation)
    }
}
