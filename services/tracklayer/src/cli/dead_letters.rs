//! `tracklayer dead-letters`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use tracklayer_proto::delivery::v1::{CloseDeadLettersRequest, ListDeadLettersRequest};

use super::Access;
use super::names::Names;
use super::output::{Output, print_rows, time};

/// Events that will not be delivered unless somebody acts.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them, newest first.
    List {
        /// Of one connection only, by its name or number.
        #[arg(long)]
        connection: Option<String>,
        /// 1 to 1,000.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Close those of a connection that nobody wants to send any more: their events, requests and answers go, and no replay of dead letters
    /// finds them. The ledger goes on saying dead. Without --yes it only says how many they are.
    Close(Close),
}

/// Which to close.
#[derive(Debug, Args)]
pub struct Close {
    /// The connection, by its name or number.
    connection: String,
    /// Only of this code, `rejected_by_platform` for one; repeat it for more.
    #[arg(long = "code", value_name = "CODE")]
    codes: Vec<String>,
    /// Only this event; repeat it for more, up to 1,000.
    #[arg(long = "message-id", value_name = "ID")]
    message_ids: Vec<String>,
    /// Only what died before, as in 2026-11-28T05:00:00Z.
    #[arg(long, value_name = "TIME")]
    before: Option<jiff::Timestamp>,
    /// Do it; nothing brings them back then.
    #[arg(long)]
    yes: bool,
}

/// Runs it.
///
/// # Errors
/// What the service answered.
pub async fn run(access: &Access, command: DeadLetters) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    match command {
        DeadLetters::List { connection, limit } => {
            let connection_id = match connection {
                Some(wanted) => called(&names, &wanted)?,
                None => 0,
            };
            list(access, &names, ListDeadLettersRequest { workspace_id, connection_id, limit }).await
        }
        DeadLetters::Close(close) => close.run(access, workspace_id, &names).await,
    }
}

fn called(names: &Names, wanted: &str) -> anyhow::Result<i64> {
    names.connection_called(wanted).with_context(|| format!("no connection `{wanted}`"))
}

impl Close {
    async fn run(self, access: &Access, workspace_id: i64, names: &Names) -> anyhow::Result<()> {
        let connection_id = called(names, &self.connection)?;
        let request =
            |died_before: Option<prost_types::Timestamp>, confirmed: bool| CloseDeadLettersRequest {
                workspace_id,
                connection_id,
                codes: self.codes.clone(),
                message_ids: self.message_ids.clone(),
                died_before,
                confirmed,
            };
        let before = self.before.map(|at| prost_types::Timestamp {
            seconds: at.as_second(),
            nanos: at.subsec_nanosecond().max(0),
        });
        let found = access.delivery()?.close_dead_letters(request(before, false)).await?.into_inner();
        if access.output == Output::Table {
            println!("{} dead letters of {} are selected", found.letters, self.connection);
        }
        let closed = if self.yes && found.letters > 0 {
            // Those that were counted: what has died since stays.
            let confirmed = request(found.died_before, true);
            access.delivery()?.close_dead_letters(confirmed).await?.into_inner().letters
        } else {
            0
        };
        match access.output {
            Output::Json => println!("{:#}", json!({ "selected": found.letters, "closed": closed })),
            Output::Table if self.yes => println!("{closed} are closed"),
            Output::Table if found.letters > 0 => {
                println!("nothing was closed: add --yes to do it; nothing brings them back then");
            }
            Output::Table => {}
        }
        Ok(())
    }
}

async fn list(access: &Access, names: &Names, request: ListDeadLettersRequest) -> anyhow::Result<()> {
    let letters = access.delivery()?.list_dead_letters(request).await?.into_inner().letters;
    let document = letters
        .iter()
        .map(|l| {
            json!({
                "connection_id": l.connection_id, "connection": names.connection(l.connection_id),
                "message_id": l.message_id, "code": l.code, "field": l.field, "detail": l.detail, "at": time(l.at.as_ref()), "request": l.request, "answer": l.answer,
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = letters
        .into_iter()
        .map(|l| {
            let detail: String = l.detail.chars().take(80).collect();
            vec![
                time(l.at.as_ref()),
                names.connection(l.connection_id),
                l.message_id,
                l.code,
                l.field,
                detail,
            ]
        })
        .collect();
    print_rows(
        access.output,
        &document,
        &["at", "connection", "message_id", "code", "field", "detail"],
        &rows,
    );
    Ok(())
}
