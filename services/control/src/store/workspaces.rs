//! `control.workspace`.

use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row as _};
use tracklayer_ids::WorkspaceId;
use tracklayer_postgres::OnConstraint as _;

use super::{Store, signed, unsigned};
use crate::error::ControlError;
use crate::workspace::{NewWorkspace, ValueFallback, Workspace};

impl Store {
    /// Makes a workspace.
    ///
    /// # Errors
    /// [`ControlError::NameTaken`], the database.
    pub async fn insert_workspace(&self, new: &NewWorkspace) -> Result<Workspace, ControlError> {
        let row = sqlx::query(
            "insert into control.workspace (name, partitions, value_from, value_fallback)
             values ($1, $2, $3, $4)
             returning workspace_id, name, partitions, value_from, value_fallback, created_at",
        )
        .bind(new.name.as_str())
        .bind(signed("partitions", new.partitions)?)
        .bind(&new.value_from)
        .bind(new.value_fallback.as_str())
        .fetch_one(&self.pool)
        .await
        .on_constraint("workspace_name_key", || ControlError::NameTaken {
            what: "workspace",
            name: new.name.to_string(),
        })?;
        workspace_of(&row)
    }

    /// Says over how many partitions a workspace's events are spread.
    ///
    /// # Errors
    /// [`ControlError::NoWorkspace`], the database.
    pub async fn update_partitions(
        &self,
        workspace: WorkspaceId,
        partitions: u32,
    ) -> Result<Workspace, ControlError> {
        let row = sqlx::query(
            "update control.workspace set partitions = $2 where workspace_id = $1
             returning workspace_id, name, partitions, value_from, value_fallback, created_at",
        )
        .bind(workspace.0)
        .bind(signed("partitions", partitions)?)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(workspace_of).transpose()?.ok_or(ControlError::NoWorkspace { workspace })
    }

    /// All workspaces, ascending by id.
    ///
    /// # Errors
    /// The database.
    pub async fn workspaces(&self) -> Result<Vec<Workspace>, ControlError> {
        select_workspaces(&self.pool).await
    }

    /// One workspace.
    ///
    /// # Errors
    /// The database.
    pub async fn workspace(&self, workspace: WorkspaceId) -> Result<Option<Workspace>, ControlError> {
        let row = sqlx::query(
            "select workspace_id, name, partitions, value_from, value_fallback, created_at
             from control.workspace where workspace_id = $1",
        )
        .bind(workspace.0)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(workspace_of).transpose()
    }

    /// One workspace by its name.
    ///
    /// # Errors
    /// The database.
    pub async fn workspace_named(&self, name: &str) -> Result<Option<Workspace>, ControlError> {
        let row = sqlx::query(
            "select workspace_id, name, partitions, value_from, value_fallback, created_at
             from control.workspace where name = $1",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(workspace_of).transpose()
    }
}

/// All workspaces, ascending by id, on a connection of the caller's.
pub(super) async fn select_workspaces(on: impl PgExecutor<'_>) -> Result<Vec<Workspace>, ControlError> {
    let rows = sqlx::query(
        "select workspace_id, name, partitions, value_from, value_fallback, created_at
         from control.workspace order by workspace_id",
    )
    .fetch_all(on)
    .await?;
    rows.iter().map(workspace_of).collect()
}

/// Locks a workspace against other changes of what hangs on it, and reads it.
pub(super) async fn lock_workspace(
    transaction: &mut PgConnection,
    workspace: WorkspaceId,
) -> Result<Workspace, ControlError> {
    let row = sqlx::query(
        "select workspace_id, name, partitions, value_from, value_fallback, created_at
         from control.workspace where workspace_id = $1 for no key update",
    )
    .bind(workspace.0)
    .fetch_optional(transaction)
    .await?;
    row.as_ref().map(workspace_of).transpose()?.ok_or(ControlError::NoWorkspace { workspace })
}

fn workspace_of(row: &PgRow) -> Result<Workspace, ControlError> {
    let id = WorkspaceId(row.try_get("workspace_id")?);
    let fallback: String = row.try_get("value_fallback")?;
    Ok(Workspace {
        id,
        name: row.try_get("name")?,
        partitions: unsigned("partitions of a workspace", row.try_get("partitions")?)?,
        value_from: row.try_get("value_from")?,
        value_fallback: ValueFallback::parse(&fallback)
            .ok_or_else(|| ControlError::Corrupt { what: format!("value_fallback of workspace {id}") })?,
        created_at: row.try_get::<SqlTimestamp, _>("created_at")?.to_jiff(),
    })
}
