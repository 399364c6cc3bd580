//! `tracklayer drift`: golden events of a connection, and which of them give another request by now.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_ids::Position;
use tracklayer_proto::delivery::v1 as pb;

use super::Access;
use super::names::Names;
use super::output::{Output, table, time};

/// Newest events of the workspace that a sample is taken of.
const RECENT: u64 = 500;
/// Bytes of them that are sent at once.
const MOST_BYTES: usize = 3 * 1024 * 1024;

/// Golden events.
#[derive(Debug, Subcommand)]
pub enum Drift {
    /// Freeze events with the requests that a connection gives for them, in the place of those that were frozen before.
    Freeze(Freeze),
    /// Say field by field which of them give another request by now. Exits with 1 where one does, or where none are frozen.
    Report(Of),
    /// Take what they give now for what they shall give.
    Accept(Of),
    /// Forget them.
    Forget(Of),
}

/// Which connection.
#[derive(Debug, Args)]
pub struct Of {
    /// The connection, by name or number.
    connection: String,
}

/// What to freeze.
#[derive(Debug, Args)]
pub struct Freeze {
    /// The connection, by name or number.
    connection: String,
    /// A file with one event a line, as for `preview`, at most 50. Without it, a sample of the newest events that were resolved: at most 20
    /// of which the connection makes a request, three of a name.
    #[arg(long)]
    events: Option<PathBuf>,
    /// The clock that their requests are built by from now on, RFC 3339; now if not given. Events of a file may be older than a platform
    /// takes them.
    #[arg(long)]
    now: Option<Timestamp>,
    /// What consent decided: allow, restricted, deny, or a JSON object.
    #[arg(long, default_value = "allow")]
    consent: String,
}

/// Runs it.
///
/// # Errors
/// There is no such connection, a file cannot be read, what the services answered, or drift.
pub async fn run(access: &Access, command: &Drift) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let called =
        |wanted: &str| names.connection_called(wanted).with_context(|| format!("no connection `{wanted}`"));
    match command {
        Drift::Freeze(freeze) => {
            let connection_id = called(&freeze.connection)?;
            let request = freeze.request(access, workspace_id, connection_id).await?;
            let frozen = access.delivery()?.freeze_golden(request).await?.into_inner();
            show_frozen(access.output, &frozen);
        }
        Drift::Report(of) => {
            let connection_id = called(&of.connection)?;
            let request = pb::ReportDriftRequest { workspace_id, connection_id };
            let report = access.delivery()?.report_drift(request).await?.into_inner();
            match access.output {
                Output::Json => println!("{:#}", document(&report)),
                Output::Table => print!("{}", text(&report)),
            }
            if report.events.is_empty() {
                bail!(
                    "no event is frozen for `{0}`: `tracklayer drift freeze {0}` freezes some",
                    of.connection
                );
            }
            if report.drifted > 0 {
                bail!("{} of {} golden events have drifted", report.drifted, report.events.len());
            }
        }
        Drift::Accept(of) => {
            let connection_id = called(&of.connection)?;
            let request = pb::AcceptDriftRequest { workspace_id, connection_id };
            let accepted = access.delivery()?.accept_drift(request).await?.into_inner().accepted;
            match access.output {
                Output::Json => println!("{:#}", json!({ "accepted": accepted })),
                Output::Table => println!("accepted what {accepted} golden events give now"),
            }
        }
        Drift::Forget(of) => {
            let connection_id = called(&of.connection)?;
            let request = pb::ForgetGoldenRequest { workspace_id, connection_id };
            let forgotten = access.delivery()?.forget_golden(request).await?.into_inner().forgotten;
            match access.output {
                Output::Json => println!("{:#}", json!({ "forgotten": forgotten })),
                Output::Table => println!("forgot {forgotten} golden events"),
            }
        }
    }
    Ok(())
}

impl Freeze {
    async fn request(
        &self,
        access: &Access,
        workspace_id: i64,
        connection_id: i64,
    ) -> anyhow::Result<pb::FreezeGoldenRequest> {
        let lines = match &self.events {
            Some(path) => from_file(path)?,
            None => recent(access, workspace_id)
                .await
                .context("could not read the newest events; --events FILE needs no journal")?,
        };
        let now = self
            .now
            .map(|now| prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() });
        let (consent, sample) = (self.consent.clone(), self.events.is_none());
        Ok(pb::FreezeGoldenRequest { workspace_id, connection_id, lines, now, consent, sample })
    }
}

fn from_file(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!("{} has no events; it needs one a line", path.display());
    }
    Ok(lines)
}

/// The newest events that were resolved, of each partition an equal part: one partition after another, the newest of each first.
async fn recent(access: &Access, workspace_id: i64) -> anyhow::Result<Vec<String>> {
    let mut delivery = access.delivery()?;
    let held = delivery.inspect_journal(pb::InspectJournalRequest { workspace_id }).await?.into_inner();
    let ends: Vec<pb::Position> =
        held.partitions.into_iter().filter_map(|partition| partition.resolved).collect();
    let share = RECENT.div_ceil(ends.len().max(1) as u64);
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for end in ends {
        let from = pb::Position { offset: end.offset.saturating_sub(share), ..end };
        let limit = u32::try_from(share)?;
        let request =
            pb::ReadJournalRequest { workspace_id, from: Some(from), limit, unmasked: true, resolved: true };
        let events = delivery.read_journal(request).await?.into_inner().events;
        for event in events.iter().rev().filter(|event| !event.resolved.is_empty()) {
            let line = line_of(event);
            bytes += line.len();
            if bytes > MOST_BYTES {
                return Ok(lines);
            }
            lines.push(line);
        }
    }
    if lines.is_empty() {
        bail!("the workspace has no resolved events");
    }
    Ok(lines)
}

/// Without what it has for people: all that is built of it stands in the stored bytes.
fn line_of(event: &pb::JournalEvent) -> String {
    let at = event.position.unwrap_or_default();
    let position = Position::new(at.generation, at.partition, at.offset);
    tracklayer_destination::preview::resolved::to_line(
        position,
        &Value::Null,
        &Value::Null,
        Some(&*event.resolved),
    )
}

fn show_frozen(output: Output, frozen: &pb::FreezeGoldenResponse) {
    if output == Output::Json {
        let names: Vec<Value> =
            frozen.names.iter().map(|name| json!({ "name": name.name, "events": name.events })).collect();
        println!("{:#}", json!({ "frozen": frozen.frozen, "names": names }));
        return;
    }
    println!("froze {} events", frozen.frozen);
    let rows: Vec<Vec<String>> =
        frozen.names.iter().map(|name| vec![name.name.clone(), name.events.to_string()]).collect();
    print!("{}", table(&["event", "frozen"], &rows));
}

fn has_drift(event: &pb::GoldenEvent) -> bool {
    event.unreadable || !event.differences.is_empty()
}

/// What has changed since an event was frozen, as far as it is known.
fn changed(event: &pb::GoldenEvent, report: &pb::ReportDriftResponse) -> String {
    let mut changes = Vec::new();
    if event.version != report.version {
        changes.push(format!("release {} is {} now", event.version, report.version));
    }
    if event.revision != report.revision {
        changes.push(format!("revision {} of the connection is {} now", event.revision, report.revision));
    }
    if changes.is_empty() {
        // Money settings of the workspace are part of no connection.
        changes.push("neither the release nor the connection; perhaps the workspace's settings".to_owned());
    }
    changes.join(", ")
}

fn text(report: &pb::ReportDriftResponse) -> String {
    let mut text = String::new();
    for event in report.events.iter().filter(|event| has_drift(event)) {
        let at = time(event.frozen_at.as_ref());
        let head = format!("{} {} ({}), frozen {at}", event.number, event.name, event.message_id);
        if event.unreadable {
            text.push_str(&format!("{}: sealed under another master key: freeze anew\n\n", event.number));
            continue;
        }
        text.push_str(&format!("{head}\nchanged: {}\n", changed(event, report)));
        let or_nothing = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let rows: Vec<Vec<String>> = event
            .differences
            .iter()
            .map(|field| vec![field.path.clone(), or_nothing(&field.was), or_nothing(&field.is)])
            .collect();
        text.push_str(&table(&["field", "was", "is"], &rows));
        if event.truncated {
            text.push_str("and more\n");
        }
        text.push('\n');
    }
    let same = report.events.iter().filter(|event| !has_drift(event)).count();
    text.push_str(&format!("{same} of {} golden events give the same request\n", report.events.len()));
    text
}

fn document(report: &pb::ReportDriftResponse) -> Value {
    let field = |field: &pb::DriftedField| json!({ "path": field.path, "was": field.was, "is": field.is });
    let event = |event: &pb::GoldenEvent| {
        json!({
            "number": event.number, "event": event.name, "message_id": event.message_id,
            "frozen_at": time(event.frozen_at.as_ref()), "version": event.version, "revision": event.revision,
            "drifted": has_drift(event), "unreadable": event.unreadable, "truncated": event.truncated,
            "differences": event.differences.iter().map(field).collect::<Vec<_>>(),
        })
    };
    json!({
        "drifted": report.drifted, "version": report.version, "revision": report.revision,
        "events": report.events.iter().map(event).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> pb::ReportDriftResponse {
        let field = pb::DriftedField {
            path: "requests[0].body.data[0].custom_data.value".to_owned(),
            was: Some("5".to_owned()),
            is: None,
        };
        let drifted = pb::GoldenEvent {
            number: 2,
            name: "Order Completed".to_owned(),
            message_id: "m-2".to_owned(),
            version: "0.1.0".to_owned(),
            revision: 3,
            differences: vec![field],
            ..Default::default()
        };
        let same = pb::GoldenEvent { number: 1, ..drifted.clone() };
        let same = pb::GoldenEvent { differences: Vec::new(), ..same };
        pb::ReportDriftResponse {
            events: vec![same, drifted],
            drifted: 1,
            version: "0.1.0".to_owned(),
            revision: 4,
        }
    }

    #[test]
    fn a_report_says_what_is_different_and_what_has_changed() {
        let shown = text(&report());
        assert!(shown.contains("2 Order Completed (m-2)") && !shown.contains("1 Order Completed"), "{shown}");
        assert!(shown.contains("changed: revision 3 of the connection is 4 now"), "{shown}");
        assert!(shown.contains("custom_data.value") && shown.contains("1 of 2 golden events"), "{shown}");
        let mut other = report();
        (other.version, other.revision) = ("0.2.0".to_owned(), 3);
        assert!(text(&other).contains("changed: release 0.1.0 is 0.2.0 now"));
        other.version = "0.1.0".to_owned();
        assert!(text(&other).contains("neither the release nor the connection"));
    }

    #[test]
    fn programs_get_the_same() {
        let document = document(&report());
        assert_eq!((&document["drifted"], &document["events"][0]["drifted"]), (&json!(1), &json!(false)));
        let field = &document["events"][1]["differences"][0];
        assert_eq!((&field["was"], &field["is"]), (&json!("5"), &Value::Null));
    }
}
