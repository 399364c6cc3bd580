//! `control.connection`.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row as _};
use tracklayer_ids::{ConnectionId, WorkspaceId};

use super::Store;
use super::workspaces::lock_workspace;
use crate::connection::{Connection, Prepared};
use crate::error::ControlError;
use crate::name::Name;
use crate::workspace::Workspace;

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
        let mut transaction = self.pool.begin().await?;
        let owner = lock_workspace(&mut transaction, workspace).await?;
        let saved = select_connection(&mut transaction, workspace, name).await?;
        let prepared = prepare(&owner, saved.as_ref())?;
        if let Some(saved) = saved.filter(|_| !prepared.changed) {
            return Ok(saved);
        }
        let row = sqlx::query(
            "insert into control.connection (workspace_id, name, kind, mode, document)
             values ($1, $2, $3, $4, $5::text::json)
             on conflict on constraint connection_name_key do update
                 set mode = excluded.mode, document = excluded.document,
                     revision = connection.revision + 1, changed_at = now()
             returning workspace_id, connection_id, name, kind, mode, document::text as document, revision",
        )
        .bind(workspace.0)
        .bind(name.as_str())
        .bind(prepared.kind.as_str())
        .bind(&prepared.mode)
        .bind(&prepared.sealed)
        .fetch_one(&mut *transaction)
        .await?;
        let connection = connection_of(&row)?;
        transaction.commit().await?;
        Ok(connection)
    }

    /// A workspace's connections, ascending by id; none if there is no such workspace.
    ///
    /// # Errors
    /// The database.
    pub async fn connections(&self, workspace: WorkspaceId) -> Result<Vec<Connection>, ControlError> {
        let rows = sqlx::query(
            "select workspace_id, connection_id, name, kind, mode, document::text as document, revision
             from control.connection where workspace_id = $1 order by connection_id",
        )
        .bind(workspace.0)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(connection_of).collect()
    }
}

/// The connections of all workspaces, on a connection of the caller's.
pub(super) async fn select_all_connections(on: impl PgExecutor<'_>) -> Result<Vec<Connection>, ControlError> {
    let rows = sqlx::query(
        "select workspace_id, connection_id, name, kind, mode, document::text as document, revision
         from control.connection order by workspace_id, connection_id",
    )
    .fetch_all(on)
    .await?;
    rows.iter().map(connection_of).collect()
}

async fn select_connection(
    transaction: &mut PgConnection,
    workspace: WorkspaceId,
    name: &Name,
) -> Result<Option<Connection>, ControlError> {
    let row = sqlx::query(
        "select workspace_id, connection_id, name, kind, mode, document::text as document, revision
         from control.connection where workspace_id = $1 and name = $2",
    )
    .bind(workspace.0)
    .bind(name.as_str())
    .fetch_optional(transaction)
    .await?;
    row.as_ref().map(connection_of).transpose()
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
    })
}
