//! `control.connection`.

use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row as _};
use tracklayer_ids::{ConnectionId, WorkspaceId};

use super::workspaces::lock_workspace;
use super::{Store, unsigned};
use crate::connection::{Connection, Prepared};
use crate::error::ControlError;
use crate::hold::Pause;
use crate::name::Name;
use crate::workspace::Workspace;

/// Connections with the pause that holds and the end of the one before.
macro_rules! select_connections {
    ($which:literal) => {
        concat!(
            "select c.workspace_id, c.connection_id, c.name, c.kind, c.mode, c.document::text as document, c.revision,
                    c.release_events_per_second, p.paused_at, p.paused_by, p.reason as pause_reason, e.resumed_at
             from control.connection c
             left join control.connection_pause p
               on p.workspace_id = c.workspace_id and p.connection_id = c.connection_id and p.resumed_at is null
             left join lateral (
                 select max(b.resumed_at) as resumed_at from control.connection_pause b
                 where b.workspace_id = c.workspace_id and b.connection_id = c.connection_id
             ) e on true ",
            $which
        )
    };
}

impl Store {
    /// Creates or changes the connection of that name: `prepare` gets what is saved, under the workspace's lock, and makes what
    /// shall be saved. A document that says the same is not written, and its revision stays.
    ///
    /// # Errors
    /// [`ControlError::NoWorkspace`], whatever `prepare` refuses, the database.
    pub async fn put_connection(
        &self,
        workspace: WorkspaceId,
        name: &Name,
        prepare: impl FnOnce(&Workspace, Option<&Connection>) -> Result<Prepared, ControlError>,
    ) -> Result<Connection, ControlError> {
        let mut transaction = tracklayer_postgres::begin(&self.pool).await?;
        let owner = lock_workspace(&mut transaction, workspace).await?;
        let saved = select_connection(&mut transaction, workspace, name).await?;
        let prepared = prepare(&owner, saved.as_ref())?;
        if let Some(saved) = saved.filter(|_| !prepared.changed) {
            return Ok(saved);
        }
        sqlx::query(
            "insert into control.connection (workspace_id, name, kind, mode, document)
             values ($1, $2, $3, $4, $5::text::json)
             on conflict on constraint connection_name_key do update
                 set mode = excluded.mode, document = excluded.document,
                     revision = connection.revision + 1, changed_at = now()",
        )
        .bind(workspace.0)
        .bind(name.as_str())
        .bind(prepared.kind.as_str())
        .bind(&prepared.mode)
        .bind(&prepared.sealed)
        .execute(&mut *transaction)
        .await?;
        let connection = select_connection(&mut transaction, workspace, name).await?;
        let connection = connection.ok_or(sqlx::Error::RowNotFound)?;
        transaction.commit().await?;
        Ok(connection)
    }

    /// A workspace's connections, ascending by id; none if there is no such workspace.
    ///
    /// # Errors
    /// The database.
    pub async fn connections(&self, workspace: WorkspaceId) -> Result<Vec<Connection>, ControlError> {
        let rows = sqlx::query(select_connections!("where c.workspace_id = $1 order by c.connection_id"))
            .bind(workspace.0)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(connection_of).collect()
    }
}

/// The connections of all workspaces, on a connection of the caller's.
pub(super) async fn select_all_connections(on: impl PgExecutor<'_>) -> Result<Vec<Connection>, ControlError> {
    let rows =
        sqlx::query(select_connections!("order by c.workspace_id, c.connection_id")).fetch_all(on).await?;
    rows.iter().map(connection_of).collect()
}

async fn select_connection(
    transaction: &mut PgConnection,
    workspace: WorkspaceId,
    name: &Name,
) -> Result<Option<Connection>, ControlError> {
    let row = sqlx::query(select_connections!("where c.workspace_id = $1 and c.name = $2"))
        .bind(workspace.0)
        .bind(name.as_str())
        .fetch_optional(transaction)
        .await?;
    row.as_ref().map(connection_of).transpose()
}

/// A connection of a workspace, on a connection of the caller's.
///
/// # Errors
/// [`ControlError::NoConnection`], the database.
pub(super) async fn connection_by_id(
    on: &mut PgConnection,
    workspace: WorkspaceId,
    connection: ConnectionId,
) -> Result<Connection, ControlError> {
    let row = sqlx::query(select_connections!("where c.workspace_id = $1 and c.connection_id = $2"))
        .bind(workspace.0)
        .bind(connection.0)
        .fetch_optional(on)
        .await?;
    connection_of(&row.ok_or(ControlError::NoConnection { workspace, connection })?)
}

fn connection_of(row: &PgRow) -> Result<Connection, ControlError> {
    let id = ConnectionId(row.try_get("connection_id")?);
    let revision: i64 = row.try_get("revision")?;
    Ok(Connection {
        id,
        workspace: WorkspaceId(row.try_get("workspace_id")?),
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        mode: row.try_get("mode")?,
        sealed_document: row.try_get("document")?,
        revision: u64::try_from(revision)
            .map_err(|_| ControlError::Corrupt { what: format!("revision of connection {id}") })?,
        pause: pause_of(row)?,
        resumed_at: row.try_get::<Option<SqlTimestamp>, _>("resumed_at")?.map(SqlTimestamp::to_jiff),
        release_events_per_second: row
            .try_get::<Option<i32>, _>("release_events_per_second")?
            .map(|pace| unsigned("release_events_per_second of a connection", pace))
            .transpose()?,
    })
}

fn pause_of(row: &PgRow) -> Result<Option<Pause>, ControlError> {
    let Some(paused_at) = row.try_get::<Option<SqlTimestamp>, _>("paused_at")? else { return Ok(None) };
    Ok(Some(Pause {
        paused_at: paused_at.to_jiff(),
        paused_by: row.try_get("paused_by")?,
        reason: row.try_get("pause_reason")?,
        resumed: None,
    }))
}
