//! `tracklayer dead-letters`.

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use tracklayer_proto::delivery::v1::ListDeadLettersRequest;

use super::Access;
use super::names::Names;
use super::output::{print_rows, time};

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
}

/// Runs it.
///
/// # Errors
/// What the service answered.
pub async fn run(access: &Access, command: DeadLetters) -> anyhow::Result<()> {
    let DeadLetters::List { connection, limit } = command;
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let connection_id = match connection {
        Some(wanted) => {
            names.connection_called(&wanted).with_context(|| format!("no connection `{wanted}`"))?
        }
        None => 0,
    };
    let request = ListDeadLettersRequest { workspace_id, connection_id, limit };
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
