//! `tracklayer connections`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use tracklayer_proto::control::v1::{Connection, ListConnectionsRequest, PutConnectionRequest};

use super::Access;
use super::output::print_rows;

/// Connections to destinations.
#[derive(Debug, Subcommand)]
pub enum Connections {
    /// List the workspace's, secrets masked.
    List,
    /// Create or change one from its document (JSON or YAML).
    Put {
        /// 1 to 63 characters; an existing name is changed.
        name: String,
        /// The document.
        file: PathBuf,
    },
}

/// Runs it.
///
/// # Errors
/// What the service answered, or the file.
pub async fn run(access: &Access, command: Connections) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let connections = match command {
        Connections::List => {
            access
                .control()?
                .list_connections(ListConnectionsRequest { workspace_id })
                .await?
                .into_inner()
                .connections
        }
        Connections::Put { name, file } => {
            let document_json = read_document(&file)?.to_string();
            let request = PutConnectionRequest { workspace_id, name, document_json };
            access.control()?.put_connection(request).await?.into_inner().connection.into_iter().collect()
        }
    };
    show(access, &connections);
    Ok(())
}

/// Reads a connection document, JSON or YAML.
///
/// # Errors
/// The file is not there or neither of both.
pub fn read_document(file: &std::path::Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    serde_json::from_str(&text)
        .or_else(|_| serde_yaml_ng::from_str(&text))
        .with_context(|| format!("{} is neither JSON nor YAML", file.display()))
}

fn show(access: &Access, connections: &[Connection]) {
    let document = connections
        .iter()
        .map(|c| {
            json!({
                "connection_id": c.connection_id, "name": c.name, "kind": c.kind, "mode": c.mode,
                "revision": c.revision,
                "document": serde_json::from_str::<Value>(&c.document_json).unwrap_or(Value::Null),
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = connections
        .iter()
        .map(|c| {
            vec![
                c.connection_id.to_string(),
                c.name.clone(),
                c.kind.clone(),
                c.mode.clone(),
                c.revision.to_string(),
            ]
        })
        .collect();
    print_rows(access.output, &document, &["id", "name", "kind", "mode", "revision"], &rows);
}
