//! `tracklayer journal retention`: for whom the journal keeps what it keeps, and giving up what a lane has not read of it.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tracklayer_proto::delivery::v1 as pb;
use tracklayer_proto::ingest::v1::{GetStatusRequest, GetStatusResponse};

use super::journal::position;
use super::names::Names;
use super::output::{print_rows, size, table};
use super::{Access, Output};

/// What to show, or to give up.
#[derive(Debug, Args)]
pub struct Retention {
    /// Give up what lanes have not passed of what was received before this day (UTC, as in 2026-01-31; not after today), so that
    /// its days can go: it is not sent, the ledger says dead, `retention`, and nothing brings it back. Events that resolve has not
    /// read are read by resolve first. What waits for a retry is not given up. Without --yes it only shows what it would be.
    #[arg(long, value_name = "DATE")]
    drop_unread_before: Option<String>,
    /// Only of this connection, by name or number; repeat it for more. Without it those of all connections.
    #[arg(long = "connection", value_name = "CONNECTION", requires = "drop_unread_before")]
    connections: Vec<String>,
    /// Only show what would be given up, as without --yes.
    #[arg(long, requires = "drop_unread_before", conflicts_with = "yes")]
    dry_run: bool,
    /// Do it.
    #[arg(long, requires = "drop_unread_before")]
    yes: bool,
}

/// Runs it.
///
/// # Errors
/// What the services answered.
pub async fn run(access: &Access, workspace_id: i64, retention: Retention) -> anyhow::Result<()> {
    let names = Names::read(access, workspace_id).await?;
    match retention.drop_unread_before {
        Some(before_day) => {
            let named = |name: &String| {
                names.connection_called(name).with_context(|| format!("no connection `{name}`"))
            };
            let connection_ids = retention.connections.iter().map(named).collect::<Result<_, _>>()?;
            let confirmed = retention.yes;
            let request = pb::GiveUpUnreadRequest { workspace_id, before_day, connection_ids, confirmed };
            let lanes = access.delivery()?.give_up_unread(request).await?.into_inner().lanes;
            show_given_up(access.output, &names, &lanes, confirmed);
        }
        None => {
            let request = pb::GetJournalRetentionRequest { workspace_id };
            let kept = access.delivery()?.get_journal_retention(request).await?.into_inner();
            show_kept(access.output, &names, &kept, &Room::ask(access, workspace_id).await);
        }
    }
    Ok(())
}

/// What ingest says of its budget.
enum Room {
    Of(GetStatusResponse),
    /// It could not be asked.
    Unknown(String),
}

impl Room {
    async fn ask(access: &Access, workspace_id: i64) -> Self {
        let asked = async {
            let answer = access.ingest()?.get_status(GetStatusRequest { workspace_id }).await;
            anyhow::Ok(answer?.into_inner())
        };
        match asked.await {
            Ok(status) => Self::Of(status),
            Err(error) => Self::Unknown(super::output::told(&error)),
        }
    }
}

fn show_kept(output: Output, names: &Names, kept: &pb::GetJournalRetentionResponse, room: &Room) {
    let document: Vec<Value> = kept.days.iter().map(|day| day_document(names, day)).collect();
    if output == Output::Json {
        let room = match room {
            Room::Of(status) => Some(status),
            Room::Unknown(_) => None,
        };
        let giving_up: Vec<Value> = kept
            .giving_up
            .iter()
            .map(|lane| {
                json!({
                    "connection": names.connection(lane.connection_id), "connection_id": lane.connection_id,
                    "until": position(lane.until.as_ref()),
                })
            })
            .collect();
        let document = json!({
            "days": document, "stored_bytes": kept.stored_bytes,
            "unread_bytes": room.and_then(|room| room.journal_unread_bytes),
            "budget_bytes": room.map(|room| room.journal_budget_bytes),
            "limit_bytes": room.map(|room| room.journal_limit_bytes),
            "full": room.map(|room| room.journal_full), "giving_up": giving_up,
        });
        println!("{document:#}");
        return;
    }
    let rows: Vec<Vec<String>> = kept
        .days
        .iter()
        .map(|kept| {
            let day = kept.day.clone().unwrap_or_default();
            let (bytes, events) = (day.bytes.to_string(), day.events.to_string());
            vec![day.day, bytes, events, reason(names, kept)]
        })
        .collect();
    print_rows(output, &Value::Null, &["day", "bytes", "events", "kept for"], &rows);
    println!("\non PostgreSQL's disk, all workspaces: {}", size(kept.stored_bytes));
    match room {
        Room::Of(status) => show_room(status),
        Room::Unknown(why) => println!("budget of ingest: not known ({why})"),
    }
    for lane in &kept.giving_up {
        let until = lane.until.unwrap_or_default();
        println!(
            "{} gives up partition {} until {}/{}",
            names.connection(lane.connection_id),
            until.partition,
            until.generation,
            until.offset
        );
    }
}

fn show_room(status: &GetStatusResponse) {
    let bound = |bytes: u64| if bytes == 0 { "none".to_owned() } else { size(bytes) };
    let unread = status.journal_unread_bytes.map_or_else(|| "not known".to_owned(), size);
    println!("of that to be read by somebody, about: {unread}");
    println!("budget of ingest for that: {}", bound(status.journal_budget_bytes));
    println!("limit of ingest for everything: {}", bound(status.journal_limit_bytes));
    if status.journal_full {
        println!("events are refused because of one of them");
    }
}

fn day_document(names: &Names, kept: &pb::KeptDay) -> Value {
    let day = kept.day.clone().unwrap_or_default();
    let kept_for = match kept.kept_for() {
        pb::KeptFor::Unspecified => "",
        pb::KeptFor::Cursor => "cursor",
        pb::KeptFor::OtherWorkspace => "other_workspace",
        pb::KeptFor::Today => "today",
        pb::KeptFor::Nobody => "nobody",
    };
    let cursor = kept.cursor.as_ref().map(|lag| {
        json!({
            "reader": names.reader(lag.connection_id), "connection_id": lag.connection_id,
            "next": position(lag.next.as_ref()), "events": lag.events, "seconds": lag.seconds,
        })
    });
    json!({
        "day": day.day, "blocks": day.blocks, "events": day.events, "bytes": day.bytes,
        "kept_for": kept_for, "cursor": cursor,
    })
}

fn reason(names: &Names, kept: &pb::KeptDay) -> String {
    match (kept.kept_for(), &kept.cursor) {
        (pb::KeptFor::Cursor, Some(lag)) => {
            let next = lag.next.unwrap_or_default();
            format!(
                "{}, which stands at {}/{}/{}, {} events behind, the oldest of {} s ago",
                names.reader(lag.connection_id),
                next.generation,
                next.partition,
                next.offset,
                lag.events,
                lag.seconds
            )
        }
        (pb::KeptFor::OtherWorkspace, _) => "another workspace".to_owned(),
        (pb::KeptFor::Today, _) => "until it is over".to_owned(),
        (pb::KeptFor::Nobody, _) => "nobody: it goes within a minute or two".to_owned(),
        (pb::KeptFor::Unspecified | pb::KeptFor::Cursor, _) => String::new(),
    }
}

fn show_given_up(output: Output, names: &Names, lanes: &[pb::UnreadLane], confirmed: bool) {
    let document: Vec<Value> = lanes
        .iter()
        .map(|lane| {
            json!({
                "connection": names.connection(lane.connection_id), "connection_id": lane.connection_id,
                "next": position(lane.next.as_ref()), "until": position(lane.until.as_ref()),
                "events": lane.events, "unresolved": lane.unresolved,
            })
        })
        .collect();
    if output == Output::Json {
        println!("{:#}", json!({ "confirmed": confirmed, "lanes": document }));
        return;
    }
    let rows: Vec<Vec<String>> = lanes
        .iter()
        .map(|lane| {
            let partition = lane.next.unwrap_or_default().partition.to_string();
            let connection = names.connection(lane.connection_id);
            vec![connection, partition, lane.events.to_string(), lane.unresolved.to_string()]
        })
        .collect();
    if rows.is_empty() {
        println!("every lane has passed all of it: there is nothing to give up");
        return;
    }
    print!("{}", table(&["connection", "partition", "events", "not resolved yet"], &rows));
    println!(
        "{}",
        if confirmed {
            "\nasked for: the lanes pass these events within seconds, those not resolved yet when resolve has read them"
        } else {
            "\nnothing was given up: add --yes to do it; nothing brings these events back then"
        }
    );
}
