//! `tracklayer workspaces`.

use clap::Subcommand;
use serde_json::json;
use tracklayer_proto::control::v1::{
    CreateAdminKeyRequest, CreateWorkspaceRequest, ListWorkspacesRequest, SetPartitionsRequest, Workspace,
};

use super::Access;
use super::output::{print_rows, time};

/// Workspaces and their keys.
#[derive(Debug, Subcommand)]
pub enum Workspaces {
    /// List those that the key sees.
    List,
    /// Make one.
    Create {
        /// 1 to 63 characters: a-z, 0-9, hyphen.
        name: String,
        /// Partitions of its journal, 1 to 64.
        #[arg(long, default_value_t = 4)]
        partitions: u32,
    },
    /// Say over how many partitions the workspace's events are spread from now on; needs a key of the installation. What was
    /// accepted before is read first. All processes must be of this release. Over Kafka the number cannot be changed.
    SetPartitions {
        /// 1 to 64: more let more processes share the work.
        partitions: u32,
    },
    /// Make an admin key for the workspace; it is shown only now.
    CreateKey {
        /// For recognition.
        label: String,
    },
}

/// Runs it.
///
/// # Errors
/// What the service answered.
pub async fn run(access: &Access, command: Workspaces) -> anyhow::Result<()> {
    match command {
        Workspaces::List => {
            let seen =
                access.control()?.list_workspaces(ListWorkspacesRequest {}).await?.into_inner().workspaces;
            show(access, &seen);
        }
        Workspaces::Create { name, partitions } => {
            let request = CreateWorkspaceRequest { name, partitions, ..CreateWorkspaceRequest::default() };
            let made = access.control()?.create_workspace(request).await?.into_inner().workspace;
            show(access, &made.into_iter().collect::<Vec<_>>());
        }
        Workspaces::SetPartitions { partitions } => {
            let workspace_id = access.workspace().await?.workspace_id;
            let request = SetPartitionsRequest { workspace_id, partitions };
            let changed = access.control()?.set_partitions(request).await?.into_inner().workspace;
            show(access, &changed.into_iter().collect::<Vec<_>>());
        }
        Workspaces::CreateKey { label } => {
            let workspace_id = access.workspace().await?.workspace_id;
            let request = CreateAdminKeyRequest { workspace_id, label };
            let key = access.control()?.create_admin_key(request).await?.into_inner().admin_key;
            print_rows(
                access.output,
                &json!({ "admin_key": key }),
                &["admin key (shown only now)"],
                &[vec![key.clone()]],
            );
        }
    }
    Ok(())
}

fn show(access: &Access, workspaces: &[Workspace]) {
    let document = workspaces
        .iter()
        .map(|w| {
            json!({
                "workspace_id": w.workspace_id, "name": w.name, "partitions": w.partitions,
                "value_from": w.value_from, "created_at": time(w.created_at.as_ref()),
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = workspaces
        .iter()
        .map(|w| {
            let from = w.value_from.join(", ");
            vec![
                w.workspace_id.to_string(),
                w.name.clone(),
                w.partitions.to_string(),
                from,
                time(w.created_at.as_ref()),
            ]
        })
        .collect();
    print_rows(access.output, &document, &["id", "name", "partitions", "value from", "created"], &rows);
}
