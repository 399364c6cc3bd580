//! The whole configuration, as of one version.

use std::collections::BTreeMap;

use super::Store;
use super::admin_keys::select_all_admin_keys;
use super::connections::select_all_connections;
use super::freezes::select_all_freezes;
use super::sources::select_all_sources;
use super::workspaces::select_workspaces;
use crate::configuration::{Configuration, WorkspaceConfiguration};
use crate::error::ControlError;

impl Store {
    /// The version alone: what a follower looks at.
    ///
    /// # Errors
    /// The database.
    pub async fn version(&self) -> Result<u64, ControlError> {
        version_of(
            sqlx::query_scalar("select version from control.config_version").fetch_one(&self.pool).await?,
        )
    }

    /// Everything, as of one version.
    ///
    /// # Errors
    /// The database.
    pub async fn configuration(&self) -> Result<Configuration, ControlError> {
        let mut snapshot = tracklayer_postgres::begin(&self.pool).await?;
        // All statements see the database as of the first one: the version fits what is read.
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *snapshot)
            .await?;
        let version = sqlx::query_scalar("select version from control.config_version")
            .fetch_one(&mut *snapshot)
            .await?;
        let mut workspaces: BTreeMap<_, _> = select_workspaces(&mut *snapshot)
            .await?
            .into_iter()
            .map(|workspace| (workspace.id, WorkspaceConfiguration::of(workspace)))
            .collect();
        for source in select_all_sources(&mut *snapshot).await? {
            if let Some(workspace) = workspaces.get_mut(&source.workspace) {
                workspace.sources.push(source);
            }
        }
        for connection in select_all_connections(&mut *snapshot).await? {
            if let Some(workspace) = workspaces.get_mut(&connection.workspace) {
                workspace.connections.push(connection);
            }
        }
        for freeze in select_all_freezes(&mut *snapshot).await? {
            if let Some(workspace) = workspaces.get_mut(&freeze.workspace) {
                workspace.freezes.push(freeze);
            }
        }
        let keys = select_all_admin_keys(&mut *snapshot).await?;
        for (id, workspace) in &mut workspaces {
            workspace.admin_keys =
                keys.iter().filter(|key| key.scope.check(*id).is_ok()).map(|key| key.sha256).collect();
        }
        Ok(Configuration { version: version_of(version)?, workspaces: workspaces.into_values().collect() })
    }
}

fn version_of(version: i64) -> Result<u64, ControlError> {
    u64::try_from(version)
        .map_err(|_| ControlError::Corrupt { what: "version of the configuration".to_owned() })
}
