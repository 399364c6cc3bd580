//! `tracklayer events`.

use clap::Subcommand;
use serde_json::{Value, json};
use tracklayer_proto::delivery::v1::{EventStory, Position, ShowEventRequest};
use tracklayer_proto::ingest::v1::ListRejectedRequest;

use super::names::Names;
use super::output::{print_rows, table, time};
use super::{Access, Output};

/// Single events.
#[derive(Debug, Subcommand)]
pub enum Events {
    /// Tell the story of one event: where it came from, its twin, profile, consent decision, every delivery.
    Show {
        /// Its message_id.
        message_id: String,
    },
    /// List events that were rejected at the door, newest first.
    Rejected {
        /// 1 to 1,000.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

/// Runs it.
///
/// # Errors
/// What the service answered.
pub async fn run(access: &Access, command: Events) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    match command {
        Events::Show { message_id } => {
            let request = ShowEventRequest { workspace_id, message_id };
            let stories = access.delivery()?.show_event(request).await?.into_inner().occurrences;
            show(access.output, &stories, &Names::read(access, workspace_id).await?);
        }
        Events::Rejected { limit } => {
            let request = ListRejectedRequest { workspace_id, limit };
            let events = access.ingest()?.list_rejected(request).await?.into_inner().events;
            let names = Names::read(access, workspace_id).await?;
            let document = events
                .iter()
                .map(|e| {
                    let rejected = e.rejected.clone().unwrap_or_default();
                    json!({
                        "received_at": time(e.received_at.as_ref()), "source_id": e.source_id,
                        "source": names.source(e.source_id), "message_id": e.message_id, "code": rejected.code, "field": rejected.field,
                        "reason": rejected.reason, "raw": String::from_utf8_lossy(&e.raw),
                    })
                })
                .collect();
            let rows: Vec<Vec<String>> = events
                .into_iter()
                .map(|e| {
                    let rejected = e.rejected.unwrap_or_default();
                    let at = time(e.received_at.as_ref());
                    vec![
                        at,
                        names.source(e.source_id),
                        e.message_id,
                        rejected.code,
                        rejected.field,
                        rejected.reason,
                    ]
                })
                .collect();
            print_rows(
                access.output,
                &document,
                &["received", "source", "message_id", "code", "field", "reason"],
                &rows,
            );
        }
    }
    Ok(())
}

fn position(position: Option<&Position>) -> String {
    position.map(|p| format!("{}/{}/{}", p.generation, p.partition, p.offset)).unwrap_or_default()
}

fn show(output: Output, stories: &[EventStory], names: &Names) {
    if output == Output::Json {
        let document: Vec<Value> = stories.iter().map(|story| document(story, names)).collect();
        println!("{:#}", json!({ "occurrences": document }));
        return;
    }
    for story in stories {
        let event: Value = serde_json::from_str(&story.event_json).unwrap_or(Value::Null);
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        if event["kept"] == false {
            println!("(the journal does not keep the event any more: what became of it is from the ledger)");
        }
        println!(
            "{} {:?} from {} ({})",
            text("type"),
            text("name"),
            names.source(story.source_id),
            text("channel")
        );
        println!("  position   {}", position(story.position.as_ref()));
        println!("  received   {}   happened {}", time(story.received_at.as_ref()), text("timestamp"));
        println!("  library    {}", text("library"));
        println!("  ids        anonymous_id {}   user_id {}", text("anonymous_id"), text("user_id"));
        println!("  consent    {}", event["consent"]);
        match (&story.duplicate_of, story.resolved) {
            (Some(first), _) => {
                println!("  dedup      duplicate of {} (its twin or a repeat)", position(Some(first)))
            }
            (None, true) if story.reused_id => {
                println!("  dedup      counts by itself: its message_id was used before for something else")
            }
            (None, true) => println!("  dedup      first occurrence"),
            (None, false) => println!("  dedup      not yet resolved"),
        }
        if !story.canonical_key.is_empty() {
            println!("  profile    {}", story.canonical_key);
        }
        let rows: Vec<Vec<String>> = story
            .deliveries
            .iter()
            .map(|d| {
                vec![
                    names.connection(d.connection_id),
                    d.state.clone(),
                    d.reason.clone(),
                    d.consent.clone(),
                    d.attempts.to_string(),
                    d.latency_ms.to_string(),
                    d.detail.clone(),
                ]
            })
            .collect();
        let head = ["connection", "state", "reason", "consent", "attempts", "ms", "detail"];
        for line in table(&head, &rows).lines() {
            println!("    {line}");
        }
        for delivery in &story.deliveries {
            for once in &delivery.replays {
                println!("    {}", super::replay::once(&names.connection(delivery.connection_id), once));
            }
        }
        println!();
    }
}

fn document(story: &EventStory, names: &Names) -> Value {
    let deliveries: Vec<Value> = story
        .deliveries
        .iter()
        .map(|d| {
            json!({
                "connection_id": d.connection_id, "connection": names.connection(d.connection_id),
                "state": d.state, "reason": d.reason, "consent": d.consent, "attempts": d.attempts,
                "latency_ms": d.latency_ms, "detail": d.detail, "at": time(d.at.as_ref()),
                "replays": d.replays.iter().map(super::replay::once_document).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "position": position(story.position.as_ref()),
        "source_id": story.source_id, "source": names.source(story.source_id),
        "received_at": time(story.received_at.as_ref()),
        "event": serde_json::from_str::<Value>(&story.event_json).unwrap_or(Value::Null),
        "duplicate_of": story.duplicate_of.as_ref().map(|p| position(Some(p))), "id_reused": story.reused_id,
        "canonical_key": story.canonical_key, "resolved": story.resolved, "deliveries": deliveries,
    })
}
