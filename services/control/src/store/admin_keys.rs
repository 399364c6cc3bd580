//! `control.admin_key`.

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row as _};
use tracklayer_ids::WorkspaceId;

use super::Store;
use super::workspaces::lock_workspace;
use crate::error::ControlError;
use crate::name::Label;
use crate::scope::{KeyHash, KnownKey, Scope};

impl Store {
    /// The key with that hash.
    ///
    /// # Errors
    /// The database.
    pub async fn admin_key_by_hash(&self, hash: KeyHash) -> Result<Option<KnownKey>, ControlError> {
        let row = sqlx::query(
            "select workspace_id, admin_key_id, key_sha256 from control.admin_key where key_sha256 = $1",
        )
        .bind(hash.0.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(key_of).transpose()
    }

    /// The key with that id, unless it was deleted.
    ///
    /// # Errors
    /// The database.
    pub async fn admin_key_by_id(&self, id: i64) -> Result<Option<KnownKey>, ControlError> {
        let row = sqlx::query(
            "select workspace_id, admin_key_id, key_sha256 from control.admin_key where admin_key_id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(key_of).transpose()
    }

    /// What a key is called; empty if it was deleted since.
    ///
    /// # Errors
    /// The database.
    pub async fn admin_key_label(&self, id: i64) -> Result<String, ControlError> {
        let label = sqlx::query_scalar("select label from control.admin_key where admin_key_id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(label.unwrap_or_default())
    }

    /// Keeps a new key.
    ///
    /// # Errors
    /// [`ControlError::NoWorkspace`], the database.
    pub async fn insert_admin_key(
        &self,
        scope: Scope,
        hash: KeyHash,
        label: &Label,
    ) -> Result<(), ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        let workspace = match scope {
            Scope::Installation => None,
            Scope::Workspace(workspace) => {
                lock_workspace(&mut transaction, workspace).await?;
                Some(workspace.0)
            }
        };
        sqlx::query("insert into control.admin_key (workspace_id, key_sha256, label) values ($1, $2, $3)")
            .bind(workspace)
            .bind(hash.0.as_slice())
            .bind(label.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Keeps the key if the installation has none yet; says whether it did. Replicas that start together keep one.
    ///
    /// # Errors
    /// The database.
    pub async fn insert_first_admin_key(&self, hash: KeyHash, label: &Label) -> Result<bool, ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        sqlx::query("lock table control.admin_key in share row exclusive mode")
            .execute(&mut *transaction)
            .await?;
        let there: bool =
            sqlx::query_scalar("select exists (select from control.admin_key where workspace_id is null)")
                .fetch_one(&mut *transaction)
                .await?;
        if there {
            return Ok(false);
        }
        sqlx::query("insert into control.admin_key (workspace_id, key_sha256, label) values (null, $1, $2)")
            .bind(hash.0.as_slice())
            .bind(label.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Every key, on a connection of the caller's.
pub(super) async fn select_all_admin_keys(on: impl PgExecutor<'_>) -> Result<Vec<KnownKey>, ControlError> {
    let rows = sqlx::query(
        "select workspace_id, admin_key_id, key_sha256 from control.admin_key order by admin_key_id",
    )
    .fetch_all(on)
    .await?;
    rows.iter().map(key_of).collect()
}

fn key_of(row: &PgRow) -> Result<KnownKey, ControlError> {
    let id: i64 = row.try_get("admin_key_id")?;
    let sha256: Vec<u8> = row.try_get("key_sha256")?;
    let workspace: Option<i64> = row.try_get("workspace_id")?;
    Ok(KnownKey {
        id,
        sha256: KeyHash(
            sha256
                .try_into()
                .map_err(|_| ControlError::Corrupt { what: format!("hash of admin key {id}") })?,
        ),
        scope: workspace.map_or(Scope::Installation, |id| Scope::Workspace(WorkspaceId(id))),
    })
}
