//! `tracklayer connections freeze`: windows in which connections are held.

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};
use tracklayer_proto::control::v1::{
    AddFreezeRequest, Freeze, FreezeWindow, ListFreezesRequest, RemoveFreezeRequest,
};

use super::Access;
use super::names::Names;
use super::output::{print_rows, time};

/// The calendar of a workspace.
#[derive(Debug, Subcommand)]
pub enum Freezes {
    /// Add a window in which nothing is sent. Look before at `connections held --until`, what of it would be too old afterwards.
    Add {
        /// The connection, by name or number; without one, every connection of the workspace.
        connection: Option<String>,
        /// Whose clocks the times are on: a name of the IANA time zone database, as in Europe/Berlin.
        #[arg(long)]
        time_zone: String,
        /// When it begins: 2026-11-27T00:00 for a window that comes once, 22:00 for one that comes week after week.
        #[arg(long)]
        from: String,
        /// When it ends. Weekly: a time that is not after `--from` is one of the next day; 24:00 is the day's end.
        #[arg(long)]
        to: String,
        /// On which days it begins, week after week: mon, tue, wed, thu, fri, sat, sun, several with commas.
        #[arg(long, value_delimiter = ',')]
        days: Vec<String>,
        /// Why, for those who ask later.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// List the windows that hold or come.
    List {
        /// Also what is over or removed.
        #[arg(long)]
        all: bool,
    },
    /// Remove a window; if it holds at the moment, what has waited is released.
    Remove {
        /// Its number.
        freeze: i64,
    },
}

/// Runs it.
///
/// # Errors
/// What the service answered.
pub async fn run(access: &Access, command: Freezes) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let mut control = access.control()?;
    let freezes = match command {
        Freezes::Add { connection, time_zone, from, to, days, reason } => {
            let connection_id = match connection {
                None => 0,
                Some(called) => names
                    .connection_called(&called)
                    .with_context(|| format!("there is no connection `{called}`"))?,
            };
            let window =
                FreezeWindow { connection_id, time_zone, days, from, to, reason, ..FreezeWindow::default() };
            let request = AddFreezeRequest { workspace_id, window: Some(window) };
            control.add_freeze(request).await?.into_inner().freeze.into_iter().collect()
        }
        Freezes::List { all } => {
            control.list_freezes(ListFreezesRequest { workspace_id, all }).await?.into_inner().freezes
        }
        Freezes::Remove { freeze } => {
            let request = RemoveFreezeRequest { workspace_id, freeze_id: freeze };
            control.remove_freeze(request).await?.into_inner().freeze.into_iter().collect()
        }
    };
    show(access, &names, &freezes);
    Ok(())
}

fn show(access: &Access, names: &Names, freezes: &[Freeze]) {
    let document: Vec<Value> = freezes.iter().map(|freeze| document_of(names, freeze)).collect();
    let rows: Vec<Vec<String>> = freezes.iter().map(|freeze| row_of(names, freeze)).collect();
    let head =
        ["id", "connection", "time zone", "days", "from", "to", "next begins", "next ends", "by", "reason"];
    print_rows(access.output, &Value::Array(document), &head, &rows);
}

fn held_by(names: &Names, window: &FreezeWindow) -> String {
    if window.connection_id == 0 { "all".to_owned() } else { names.connection(window.connection_id) }
}

fn document_of(names: &Names, freeze: &Freeze) -> Value {
    let window = freeze.window.clone().unwrap_or_default();
    json!({
        "freeze_id": window.freeze_id, "connection": held_by(names, &window), "connection_id": window.connection_id,
        "time_zone": window.time_zone, "days": window.days, "from": window.from, "to": window.to,
        "reason": window.reason, "created_by": window.created_by, "created_at": time(window.created_at.as_ref()),
        "removed_by": window.removed_by, "removed_at": time(window.removed_at.as_ref()),
        "begins": time(freeze.begins.as_ref()), "ends": time(freeze.ends.as_ref()),
    })
}

fn row_of(names: &Names, freeze: &Freeze) -> Vec<String> {
    let window = freeze.window.clone().unwrap_or_default();
    let next = match &window.removed_at {
        Some(_) => format!("removed by {}", window.removed_by),
        None => time(freeze.begins.as_ref()),
    };
    vec![
        window.freeze_id.to_string(),
        held_by(names, &window),
        window.time_zone,
        window.days.join(","),
        window.from,
        window.to,
        next,
        time(freeze.ends.as_ref()),
        window.created_by,
        window.reason,
    ]
}
