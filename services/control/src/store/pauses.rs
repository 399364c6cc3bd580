//! `control.connection_pause`, and how fast what has waited goes out.

use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tracklayer_ids::{ConnectionId, WorkspaceId};

use super::connections::connection_by_id;
use super::workspaces::lock_workspace;
use super::{Store, signed};
use crate::connection::Connection;
use crate::error::ControlError;
use crate::hold::{Pause, Reason};

/// Most pauses that are told.
const MAX_TOLD: i64 = 100;

impl Store {
    /// Pauses a connection in the name of a key, unless it is paused already.
    ///
    /// # Errors
    /// [`ControlError::NoConnection`], the database.
    pub async fn insert_pause(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        reason: &Reason,
        admin_key_id: i64,
    ) -> Result<Connection, ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        lock_workspace(&mut transaction, workspace).await?;
        connection_by_id(&mut transaction, workspace, connection).await?;
        sqlx::query(
            "insert into control.connection_pause (workspace_id, connection_id, paused_by, reason)
             values ($1, $2, coalesce((select label from control.admin_key where admin_key_id = $3), ''), $4)
             on conflict (workspace_id, connection_id) where resumed_at is null do nothing",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(admin_key_id)
        .bind(reason.as_str())
        .execute(&mut *transaction)
        .await?;
        let paused = connection_by_id(&mut transaction, workspace, connection).await?;
        transaction.commit().await?;
        Ok(paused)
    }

    /// Ends the pause of a connection in the name of a key, and answers it; none if it was not paused.
    ///
    /// # Errors
    /// [`ControlError::NoConnection`], the database.
    pub async fn end_pause(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        admin_key_id: i64,
    ) -> Result<(Connection, Option<Pause>), ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        lock_workspace(&mut transaction, workspace).await?;
        connection_by_id(&mut transaction, workspace, connection).await?;
        let ended = sqlx::query(
            "update control.connection_pause
             set resumed_at = now(),
                 resumed_by = coalesce((select label from control.admin_key where admin_key_id = $3), '')
             where workspace_id = $1 and connection_id = $2 and resumed_at is null
             returning paused_at, paused_by, reason, resumed_at, resumed_by",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(admin_key_id)
        .fetch_optional(&mut *transaction)
        .await?;
        let ended = ended.as_ref().map(pause_of).transpose()?;
        let resumed = connection_by_id(&mut transaction, workspace, connection).await?;
        transaction.commit().await?;
        Ok((resumed, ended))
    }

    /// The newest pauses of a connection, newest first.
    ///
    /// # Errors
    /// [`ControlError::NoConnection`], the database.
    pub async fn pauses(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<Vec<Pause>, ControlError> {
        let mut database = self.pool.acquire().await?;
        connection_by_id(&mut database, workspace, connection).await?;
        let rows = sqlx::query(
            "select paused_at, paused_by, reason, resumed_at, resumed_by from control.connection_pause
             where workspace_id = $1 and connection_id = $2 order by pause_id desc limit $3",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(MAX_TOLD)
        .fetch_all(&mut *database)
        .await?;
        rows.iter().map(pause_of).collect()
    }

    /// Says how fast a connection sends what has waited.
    ///
    /// # Errors
    /// [`ControlError::NoConnection`], the database.
    pub async fn update_release_pace(
        &self,
        workspace: WorkspaceId,
        connection: ConnectionId,
        events_per_second: Option<u32>,
    ) -> Result<Connection, ControlError> {
        let pace = events_per_second.map(|pace| signed("release_events_per_second", pace)).transpose()?;
        let mut database = self.pool.acquire().await?;
        sqlx::query(
            "update control.connection set release_events_per_second = $3
             where workspace_id = $1 and connection_id = $2",
        )
        .bind(workspace.0)
        .bind(connection.0)
        .bind(pace)
        .execute(&mut *database)
        .await?;
        connection_by_id(&mut database, workspace, connection).await
    }
}

fn pause_of(row: &PgRow) -> Result<Pause, ControlError> {
    let resumed_at: Option<SqlTimestamp> = row.try_get("resumed_at")?;
    let resumed_by: String = row.try_get("resumed_by")?;
    Ok(Pause {
        paused_at: row.try_get::<SqlTimestamp, _>("paused_at")?.to_jiff(),
        paused_by: row.try_get("paused_by")?,
        reason: row.try_get("reason")?,
        resumed: resumed_at.map(|at| (at.to_jiff(), resumed_by)),
    })
}
