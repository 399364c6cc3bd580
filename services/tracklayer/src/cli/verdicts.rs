//! `tracklayer connections verdicts`: what a platform has said later of requests that it took.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};
use tracklayer_proto::delivery::v1 as pb;

use super::names::Names;
use super::output::{table, time};
use super::{Access, Output};

/// What Google's Data Manager said half an hour later of the requests that it had taken: how many events failed and why. Which ones, it
/// does not say.
#[derive(Debug, Args)]
pub struct Verdicts {
    /// The connection, by name or number.
    connection: String,
    /// All requests, not only those that did not go well.
    #[arg(long)]
    all: bool,
    /// Most requests to show, newest first, 1 to 1,000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
}

/// Runs it.
///
/// # Errors
/// What the service answered.
pub async fn run(access: &Access, command: &Verdicts) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let connection_id = names
        .connection_called(&command.connection)
        .with_context(|| format!("there is no connection `{}`", command.connection))?;
    let request = pb::ListIngestRequestsRequest {
        workspace_id,
        connection_id,
        limit: command.limit,
        troubled: !command.all,
    };
    let listed = access.delivery()?.list_ingest_requests(request).await?.into_inner();
    match access.output {
        Output::Json => println!("{:#}", as_json(&listed)),
        Output::Table => print!("{}", as_text(&listed)),
    }
    Ok(())
}

fn word(status: &str) -> &str {
    if status.is_empty() { "waiting" } else { status }
}

fn as_json(listed: &pb::ListIngestRequestsResponse) -> Value {
    let by_reason = |reasons: &[pb::ReasonCount]| -> Map<String, Value> {
        reasons.iter().map(|count| (count.reason.clone(), json!(count.events))).collect()
    };
    let counts = listed.counts.iter().map(|count| {
        json!({
            "status": word(&count.status), "requests": count.requests, "events": count.events, "failed": count.failed,
        })
    });
    let requests = listed.requests.iter().map(|request| {
        json!({
            "request_id": request.request_id, "events": request.events, "sent_at": time(request.sent_at.as_ref()),
            "looks": request.looks, "next_look_at": time(request.next_look_at.as_ref()),
            "status": word(&request.status), "failed": request.failed, "reasons": by_reason(&request.reasons),
            "warnings": by_reason(&request.warnings), "detail": request.detail, "told_at": time(request.told_at.as_ref()),
        })
    });
    json!({ "counts": counts.collect::<Vec<_>>(), "requests": requests.collect::<Vec<_>>() })
}

fn as_text(listed: &pb::ListIngestRequestsResponse) -> String {
    if listed.counts.is_empty() {
        return "no request of this connection waits for a verdict or has one\n".to_owned();
    }
    let number = |number: u64| number.to_string();
    let rows: Vec<Vec<String>> = listed
        .counts
        .iter()
        .map(|c| vec![word(&c.status).to_owned(), number(c.requests), number(c.events), number(c.failed)])
        .collect();
    let mut text = table(&["verdict", "requests", "events", "failed"], &rows);
    if listed.requests.is_empty() {
        return text;
    }
    let in_words = |reasons: &[pb::ReasonCount]| {
        let each = reasons.iter().map(|count| format!("{} {}", count.reason, count.events));
        each.collect::<Vec<_>>().join(", ")
    };
    let rows: Vec<Vec<String>> = listed
        .requests
        .iter()
        .map(|r| {
            let why = [in_words(&r.reasons), in_words(&r.warnings), r.detail.clone()];
            let why: Vec<String> = why.into_iter().filter(|part| !part.is_empty()).collect();
            vec![
                time(r.sent_at.as_ref()),
                r.request_id.clone(),
                number(r.events),
                word(&r.status).to_owned(),
                number(r.failed),
                time(r.next_look_at.as_ref()),
                why.join("; "),
            ]
        })
        .collect();
    let head = ["sent at", "request", "events", "verdict", "failed", "asked next", "why"];
    text.push_str(&format!("\n{}", table(&head, &rows)));
    text
}
