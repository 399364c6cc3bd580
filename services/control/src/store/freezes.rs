//! `control.freeze_window`.

use jiff::Timestamp;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row as _};
use tracklayer_ids::{ConnectionId, WorkspaceId};

use super::Store;
use super::connections::connection_by_id;
use super::workspaces::lock_workspace;
use crate::error::ControlError;
use crate::hold::{Freeze, NewFreeze, Said, check_calendar};

/// Most windows that are told.
const MAX_TOLD: i64 = 1_000;

impl Store {
    /// Adds a window in the name of a key, under the workspace's lock.
    ///
    /// # Errors
    /// [`ControlError::NoWorkspace`], [`ControlError::NoConnection`], [`ControlError::NeverReleased`],
    /// [`ControlError::TooManyFreezes`], the database.
    pub async fn insert_freeze(
        &self,
        new: &NewFreeze,
        now: Timestamp,
        admin_key_id: i64,
    ) -> Result<Freeze, ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        lock_workspace(&mut transaction, new.workspace).await?;
        if let Some(connection) = new.connection {
            connection_by_id(&mut transaction, new.workspace, connection).await?;
        }
        let others = sqlx::query(
            "select workspace_id, freeze_id, connection_id, time_zone, days, window_from, window_to, reason, created_at,
                    created_by, removed_at, removed_by
             from control.freeze_window where workspace_id = $1 and removed_at is null",
        )
        .bind(new.workspace.0)
        .fetch_all(&mut *transaction)
        .await?;
        let others: Vec<Freeze> = others.iter().map(freeze_of).collect::<Result<_, _>>()?;
        check_calendar(new, &others, now)?;
        let row = sqlx::query(
            "insert into control.freeze_window
                 (workspace_id, connection_id, time_zone, days, window_from, window_to, reason, created_by)
             values ($1, $2, $3, $4, $5, $6, $7,
                     coalesce((select label from control.admin_key where admin_key_id = $8), ''))
             returning workspace_id, freeze_id, connection_id, time_zone, days, window_from, window_to, reason, created_at,
                       created_by, removed_at, removed_by",
        )
        .bind(new.workspace.0)
        .bind(new.connection.map(|connection| connection.0))
        .bind(new.window.time_zone())
        .bind(new.window.days())
        .bind(new.window.from())
        .bind(new.window.to())
        .bind(new.reason.as_str())
        .bind(admin_key_id)
        .fetch_one(&mut *transaction)
        .await?;
        let freeze = freeze_of(&row)?;
        transaction.commit().await?;
        Ok(freeze)
    }

    /// A workspace's newest windows, removed and past ones too, ascending by id.
    ///
    /// # Errors
    /// The database.
    pub async fn freezes(&self, workspace: WorkspaceId) -> Result<Vec<Freeze>, ControlError> {
        let rows = sqlx::query(
            "select workspace_id, freeze_id, connection_id, time_zone, days, window_from, window_to, reason, created_at,
                    created_by, removed_at, removed_by
             from control.freeze_window where workspace_id = $1
             order by removed_at is null desc, freeze_id desc limit $2",
        )
        .bind(workspace.0)
        .bind(MAX_TOLD)
        .fetch_all(&self.pool)
        .await?;
        let mut freezes: Vec<Freeze> = rows.iter().map(freeze_of).collect::<Result<_, _>>()?;
        freezes.sort_by_key(|freeze| freeze.id);
        Ok(freezes)
    }

    /// Removes a window in the name of a key; one that is removed already stays as it is.
    ///
    /// # Errors
    /// [`ControlError::NoFreeze`], the database.
    pub async fn remove_freeze(
        &self,
        workspace: WorkspaceId,
        freeze_id: i64,
        admin_key_id: i64,
    ) -> Result<Freeze, ControlError> {
        let row = sqlx::query(
            "update control.freeze_window
             set removed_by = case when removed_at is null
                     then coalesce((select label from control.admin_key where admin_key_id = $3), '')
                     else removed_by end,
                 removed_at = coalesce(removed_at, now())
             where workspace_id = $1 and freeze_id = $2
             returning workspace_id, freeze_id, connection_id, time_zone, days, window_from, window_to, reason, created_at,
                       created_by, removed_at, removed_by",
        )
        .bind(workspace.0)
        .bind(freeze_id)
        .bind(admin_key_id)
        .fetch_optional(&self.pool)
        .await?;
        freeze_of(&row.ok_or(ControlError::NoFreeze { workspace, freeze_id })?)
    }
}

/// The windows of all workspaces that are not removed, on a connection of the caller's.
pub(super) async fn select_all_freezes(on: impl PgExecutor<'_>) -> Result<Vec<Freeze>, ControlError> {
    let rows = sqlx::query(
        "select workspace_id, freeze_id, connection_id, time_zone, days, window_from, window_to, reason, created_at,
                created_by, removed_at, removed_by
         from control.freeze_window where removed_at is null order by workspace_id, freeze_id",
    )
    .fetch_all(on)
    .await?;
    rows.iter().map(freeze_of).collect()
}

fn freeze_of(row: &PgRow) -> Result<Freeze, ControlError> {
    let id: i64 = row.try_get("freeze_id")?;
    let text = |column: &str| row.try_get::<String, _>(column);
    let said = Said {
        time_zone: text("time_zone")?,
        days: row.try_get("days")?,
        from: text("window_from")?,
        to: text("window_to")?,
    };
    // One window that cannot be read must not keep everybody's configuration from being read.
    let window = said.window().ok();
    let removed_at: Option<SqlTimestamp> = row.try_get("removed_at")?;
    let removed_by = text("removed_by")?;
    Ok(Freeze {
        id,
        workspace: WorkspaceId(row.try_get("workspace_id")?),
        connection: row.try_get::<Option<i64>, _>("connection_id")?.map(ConnectionId),
        said,
        window,
        reason: text("reason")?,
        created_at: row.try_get::<SqlTimestamp, _>("created_at")?.to_jiff(),
        created_by: text("created_by")?,
        removed: removed_at.map(|at| (at.to_jiff(), removed_by)),
    })
}
