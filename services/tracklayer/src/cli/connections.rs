//! `tracklayer connections`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use tracklayer_proto::control::v1::{
    Connection, ListConnectionsRequest, ListPausesRequest, Pause, PauseConnectionRequest,
    PutConnectionRequest, ResumeConnectionRequest, SetReleasePaceRequest,
};

use super::Access;
use super::freezes::{self, Freezes};
use super::held::{self, Held};
use super::names::Names;
use super::output::{print_rows, time};
use super::tries::{self, Sample};
use super::verdicts::{self, Verdicts};
use super::verify::{self, Verify};

/// Connections to destinations.
#[derive(Debug, Subcommand)]
pub enum Connections {
    /// List the workspace's, secrets masked.
    List,
    /// Create or change one from its document (JSON or YAML). One with expressions is tried on a sample of events first.
    Put {
        /// 1 to 63 characters; an existing name is changed.
        name: String,
        /// The document.
        file: PathBuf,
        /// What a document with expressions is tried on.
        #[command(flatten)]
        sample: Sample,
        /// Save it although expressions fail at events of the sample.
        #[arg(long)]
        accept_errors: bool,
    },
    /// Stop one: nothing is sent until it is resumed, and what comes meanwhile waits in the journal.
    Pause {
        /// The connection, by name or number.
        connection: String,
        /// Why, for those who ask later.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// End a pause: what has waited goes out in order, at the connection's pace.
    Resume {
        /// The connection, by name or number.
        connection: String,
    },
    /// Say how fast a connection sends what has waited for a resumption or for the end of a freeze.
    Pace {
        /// The connection, by name or number.
        connection: String,
        /// Events a second over all its lanes, 0: as fast as they can. Without it, 1,000.
        #[arg(long)]
        events_per_second: Option<u32>,
    },
    /// Who paused a connection and why, and who resumed it when.
    Pauses {
        /// The connection, by name or number.
        connection: String,
    },
    /// What waits for each connection, and which events will be too old for the platform when a hold ends: before it and during it.
    Held(Held),
    Verify(Verify),
    Verdicts(Verdicts),
    /// Windows of the calendar in which connections are held.
    #[command(subcommand)]
    Freeze(Freezes),
}

/// Runs it.
///
/// # Errors
/// What the service answered, or the file.
pub async fn run(access: &Access, command: Connections) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let connections = match command {
        Connections::Freeze(command) => return freezes::run(access, command).await,
        Connections::Held(held) => return held::run(access, &held).await,
        Connections::Verdicts(command) => return verdicts::run(access, &command).await,
        Connections::Verify(command) => return verify::run(access, &command).await,
        Connections::Pause { connection, reason } => {
            let connection_id = called(access, workspace_id, &connection).await?;
            let request = PauseConnectionRequest { workspace_id, connection_id, reason };
            access.control()?.pause_connection(request).await?.into_inner().connection.into_iter().collect()
        }
        Connections::Resume { connection } => {
            let connection_id = called(access, workspace_id, &connection).await?;
            let request = ResumeConnectionRequest { workspace_id, connection_id };
            access.control()?.resume_connection(request).await?.into_inner().connection.into_iter().collect()
        }
        Connections::Pace { connection, events_per_second } => {
            let connection_id = called(access, workspace_id, &connection).await?;
            let request = SetReleasePaceRequest {
                workspace_id,
                connection_id,
                release_events_per_second: events_per_second,
            };
            access.control()?.set_release_pace(request).await?.into_inner().connection.into_iter().collect()
        }
        Connections::Pauses { connection } => {
            let connection_id = called(access, workspace_id, &connection).await?;
            let request = ListPausesRequest { workspace_id, connection_id };
            show_pauses(access, &access.control()?.list_pauses(request).await?.into_inner().pauses);
            return Ok(());
        }
        Connections::List => {
            access
                .control()?
                .list_connections(ListConnectionsRequest { workspace_id })
                .await?
                .into_inner()
                .connections
        }
        Connections::Put { name, file, sample, accept_errors } => {
            let document = read_document(&file)?;
            tries::before_saving(access, &document, &sample, accept_errors).await?;
            let document_json = document.to_string();
            let request = PutConnectionRequest { workspace_id, name, document_json };
            access.control()?.put_connection(request).await?.into_inner().connection.into_iter().collect()
        }
    };
    show(access, &connections);
    Ok(())
}

async fn called(access: &Access, workspace_id: i64, connection: &str) -> anyhow::Result<i64> {
    let names = Names::read(access, workspace_id).await?;
    names.connection_called(connection).with_context(|| format!("there is no connection `{connection}`"))
}

fn pause_document(pause: &Pause) -> Value {
    json!({
        "paused_at": time(pause.paused_at.as_ref()), "paused_by": pause.paused_by, "reason": pause.reason,
        "resumed_at": time(pause.resumed_at.as_ref()), "resumed_by": pause.resumed_by,
    })
}

fn show_pauses(access: &Access, pauses: &[Pause]) {
    let document = pauses.iter().map(pause_document).collect();
    let row = |pause: &Pause| {
        let (paused, resumed) = (time(pause.paused_at.as_ref()), time(pause.resumed_at.as_ref()));
        vec![paused, pause.paused_by.clone(), resumed, pause.resumed_by.clone(), pause.reason.clone()]
    };
    let rows: Vec<Vec<String>> = pauses.iter().map(row).collect();
    print_rows(access.output, &document, &["paused at", "by", "resumed at", "by", "reason"], &rows);
}

fn pace_of(connection: &Connection) -> String {
    match connection.release_events_per_second {
        None => "1000".to_owned(),
        Some(0) => "no limit".to_owned(),
        Some(pace) => pace.to_string(),
    }
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
                "revision": c.revision, "pause": c.pause.as_ref().map(pause_document),
                "release_events_per_second": c.release_events_per_second,
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
                pace_of(c),
                c.pause.as_ref().map_or_else(String::new, |pause| {
                    let reason =
                        if pause.reason.is_empty() { String::new() } else { format!(": {}", pause.reason) };
                    format!("since {} by {}{reason}", time(pause.paused_at.as_ref()), pause.paused_by)
                }),
            ]
        })
        .collect();
    let head = ["id", "name", "kind", "mode", "revision", "release events/s", "paused"];
    print_rows(access.output, &document, &head, &rows);
}
