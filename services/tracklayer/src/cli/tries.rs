//! `tracklayer connections try`, and the try that goes before `connections put`: a document on a sample of events.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracklayer_destination::WorkspaceDefaults;
use tracklayer_destination::preview::ConsentChoice;
use tracklayer_destination::tried::{Tried, try_on};
use tracklayer_proto::delivery::v1 as pb;

use super::connections::read_document;
use super::output::table;
use super::{Access, Output};
use crate::sample::people;

/// Most events that one answer of `ReadJournal` holds.
const PAGE: u64 = 1_000;
/// Visitors of the sample day.
const VISITORS: usize = 60;

/// Tries a connection document on a sample of events: how many it takes, what would be sent, what its expressions fail at. Nothing
/// is sent or saved.
#[derive(Debug, Args)]
pub struct Try {
    /// The document, JSON or YAML.
    pub file: PathBuf,
    /// What it is tried on.
    #[command(flatten)]
    pub sample: Sample,
    /// Requests to show, of the first events that would be sent: 2 unless it is said, none of events that the workspace received.
    #[arg(long)]
    pub show: Option<usize>,
    /// Show requests of events that the workspace received as well, with what they say of its customers.
    #[arg(long)]
    pub unmasked: bool,
    /// What consent decided: allow, restricted or deny.
    #[arg(long, default_value = "allow")]
    pub consent: String,
}

/// Events to try a document on. Without a choice: the newest that the workspace received, and the sample day if there are none.
#[derive(Debug, Args)]
pub struct Sample {
    /// A file with one Segment-spec event a line.
    #[arg(long, conflicts_with_all = ["sample_day", "recent"])]
    pub events: Option<PathBuf>,
    /// The events of Northline's sample day; needs no server.
    #[arg(long, conflicts_with = "recent")]
    pub sample_day: bool,
    /// How many of the newest events that the workspace received, over all partitions.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub recent: Option<u64>,
}

/// How many of the newest events unless it is said.
const RECENT: u64 = 500;
/// How many requests are shown unless it is said.
const SHOWN: usize = 2;

/// Events to try a document on.
#[derive(Debug)]
struct Events {
    /// What they are, for people.
    what: String,
    /// One Segment-spec event each.
    lines: Vec<String>,
    /// Whether customers of the workspace made them.
    are_received: bool,
    /// Whether they are there for lack of others, and say little of what the workspace receives.
    stand_in: bool,
}

impl Sample {
    /// Whether the events are at hand, without a server.
    #[must_use]
    pub const fn is_at_hand(&self) -> bool {
        self.events.is_some() || self.sample_day
    }

    fn at_hand(&self) -> anyhow::Result<Option<Events>> {
        Ok(match &self.events {
            Some(path) => Some(from_file(path)?),
            None => self.sample_day.then(sample_day),
        })
    }
}

/// Runs `connections try` on events of the workspace.
///
/// # Errors
/// A file or a service cannot be read, the document is not valid, or expressions fail at events of the sample.
pub async fn run(access: &Access, command: &Try) -> anyhow::Result<()> {
    let document = read_document(&command.file)?;
    let (sample, workspace) = sample_of(access, &command.sample).await?;
    show(command, &document, &workspace, &sample, access.output)
}

/// Runs it on events that are at hand, without a server.
///
/// # Errors
/// As [`run`].
pub fn run_at_hand(command: &Try, output: Output) -> anyhow::Result<ExitCode> {
    let document = read_document(&command.file)?;
    let sample = command.sample.at_hand()?.context("there are no events to try it on")?;
    show(command, &document, &WorkspaceDefaults::default(), &sample, output)?;
    Ok(ExitCode::SUCCESS)
}

fn show(
    command: &Try,
    document: &Value,
    workspace: &WorkspaceDefaults,
    sample: &Events,
    output: Output,
) -> anyhow::Result<()> {
    let tried = tried(document, workspace, sample, &command.consent, command.shown_of(sample)?)?;
    match output {
        Output::Json => println!("{:#}", as_json(&tried, &sample.what)),
        Output::Table => print!("{}", as_text(&tried, &sample.what)),
    }
    refuse_errors(&tried)
}

impl Try {
    /// How many requests are shown: those of real customers to nobody who did not ask for them.
    fn shown_of(&self, sample: &Events) -> anyhow::Result<usize> {
        match self.show {
            Some(show) if show > 0 && sample.are_received && !self.unmasked => {
                bail!("the requests tell of customers; --show {show} --unmasked shows them all the same")
            }
            None if sample.are_received && !self.unmasked => Ok(0),
            show => Ok(show.unwrap_or(SHOWN)),
        }
    }
}

/// The try before a document is saved. A document without expressions is not tried.
///
/// # Errors
/// It is not valid, or, unless errors are accepted, its expressions fail at events of the sample.
pub async fn before_saving(
    access: &Access,
    document: &Value,
    sample: &Sample,
    accept_errors: bool,
) -> anyhow::Result<()> {
    if !["filter", "names", "fields"].iter().any(|key| document.get(key).is_some()) {
        return Ok(());
    }
    let (sample, workspace) = sample_of(access, sample).await?;
    let tried = tried(document, &workspace, &sample, "allow", 0)?;
    // The document as saved is what goes to standard output.
    eprint!("{}", as_text(&tried, &sample.what));
    if accept_errors {
        return Ok(());
    }
    let refused = refuse_errors(&tried).and_then(|()| match sample.stand_in {
        true => Ok(()),
        false => refuse_blind(&tried),
    });
    refused.context("not saved; --accept-errors saves it all the same")
}

/// Refuses what no error tells of: a place that is mistyped is one that no event has.
fn refuse_blind(tried: &Tried) -> anyhow::Result<()> {
    if tried.sent == 0 {
        bail!("none of {} events would be sent", tried.events);
    }
    if !tried.without_value.is_empty() {
        bail!("no event that would be sent has a value for {}", tried.without_value.join(", "));
    }
    Ok(())
}

fn refuse_errors(tried: &Tried) -> anyhow::Result<()> {
    let failed: u64 = tried.errors.values().map(|count| count.events).sum();
    if failed > 0 {
        bail!("expressions fail {failed} times on the sample; docs/mapping.md tells what the reasons mean");
    }
    Ok(())
}

fn tried(
    document: &Value,
    workspace: &WorkspaceDefaults,
    sample: &Events,
    consent: &str,
    examples: usize,
) -> anyhow::Result<Tried> {
    let consent = ConsentChoice::parse(consent)?;
    let lines = sample.lines.iter().map(String::as_str);
    Ok(try_on(document, workspace, lines, Timestamp::now(), &consent, examples)?)
}

/// The events, and what the workspace says about money. Unless its own events are asked for, the sample day stands in for those that
/// cannot be had.
async fn sample_of(access: &Access, sample: &Sample) -> anyhow::Result<(Events, WorkspaceDefaults)> {
    let workspace = access.workspace().await?;
    let defaults = WorkspaceDefaults {
        value_from: workspace.value_from.clone(),
        value_fallback: Some(workspace.value_fallback.clone()).filter(|fallback| !fallback.is_empty()),
    };
    if let Some(at_hand) = sample.at_hand()? {
        return Ok((at_hand, defaults));
    }
    let received = recent(access, workspace.workspace_id, sample.recent.unwrap_or(RECENT)).await;
    let events = match received {
        Ok(lines) if !lines.is_empty() => {
            let what =
                format!("the newest {} events that workspace {} received", lines.len(), workspace.name);
            Events { what, lines, are_received: true, stand_in: false }
        }
        Err(error) if sample.recent.is_some() => {
            return Err(error
                .context("could not read the newest events; --sample-day or --events FILE need no journal"));
        }
        Ok(_) => stand_in("the journal shows none of the workspace"),
        Err(error) => stand_in(&format!("those of the workspace could not be read: {error:#}")),
    };
    Ok((events, defaults))
}

fn stand_in(why: &str) -> Events {
    let day = sample_day();
    Events { what: format!("{} ({why})", day.what), stand_in: true, ..day }
}

fn from_file(path: &Path) -> anyhow::Result<Events> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        bail!("{} has no events; it needs one Segment-spec event a line", path.display());
    }
    Ok(Events {
        what: format!("{} events of {}", lines.len(), path.display()),
        lines,
        are_received: false,
        stand_in: false,
    })
}

fn sample_day() -> Events {
    let now = Timestamp::now().to_string();
    let day = people::day(1, VISITORS);
    let events = day.visitors.iter().flat_map(|visitor| &visitor.calls).flat_map(|call| &call.events);
    let lines: Vec<String> = events
        .map(|event| {
            let mut event = event.clone();
            event["timestamp"] = json!(now);
            event.to_string()
        })
        .collect();
    Events {
        what: format!("{} events of the sample day", lines.len()),
        lines,
        are_received: false,
        stand_in: false,
    }
}

/// The newest events of each partition, in equal parts.
async fn recent(access: &Access, workspace_id: i64, count: u64) -> anyhow::Result<Vec<String>> {
    let mut delivery = access.delivery()?;
    let request = pb::InspectJournalRequest { workspace_id };
    let heads: Vec<pb::Position> = delivery
        .inspect_journal(request)
        .await?
        .into_inner()
        .partitions
        .into_iter()
        .filter_map(|partition| partition.head)
        .collect();
    let share = count.div_ceil(heads.len().max(1) as u64).clamp(1, PAGE);
    let mut lines = Vec::new();
    for head in heads {
        let from = pb::Position { offset: head.offset.saturating_sub(share), ..head };
        let limit = u32::try_from(share)?;
        let request =
            pb::ReadJournalRequest { workspace_id, from: Some(from), limit, unmasked: true, resolved: false };
        let events = delivery.read_journal(request).await?.into_inner().events;
        lines.extend(events.iter().filter_map(|event| as_segment(&event.event_json)));
    }
    lines.truncate(usize::try_from(count)?);
    Ok(lines)
}

/// A journal's event in the Segment spec; none if its bytes could not be read.
fn as_segment(shown: &str) -> Option<String> {
    const SAME: [(&str, &str); 10] = [
        ("type", "type"),
        ("name", "event"),
        ("message_id", "messageId"),
        ("anonymous_id", "anonymousId"),
        ("user_id", "userId"),
        ("group_id", "groupId"),
        ("previous_id", "previousId"),
        ("timestamp", "timestamp"),
        ("properties", "properties"),
        ("traits", "traits"),
    ];
    let shown: Value = serde_json::from_str(shown).ok()?;
    let shown = shown.as_object()?;
    let is_there = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    let mut event = Map::new();
    for (ours, spec) in SAME {
        if let Some(value) = shown.get(ours).filter(is_there) {
            event.insert(spec.to_owned(), value.clone());
        }
    }
    // A page or screen has its name elsewhere.
    if matches!(event.get("type").and_then(Value::as_str), Some("page" | "screen"))
        && let Some(name) = event.remove("event")
    {
        event.insert("name".to_owned(), name);
    }
    let mut context = shown.get("context").and_then(Value::as_object).cloned().unwrap_or_default();
    for (ours, spec) in [("ip", "ip"), ("user_agent", "userAgent")] {
        if let Some(value) = shown.get(ours).filter(is_there) {
            context.entry(spec).or_insert_with(|| value.clone());
        }
    }
    event.insert("context".to_owned(), Value::Object(context));
    Some(Value::Object(event).to_string())
}

fn as_json(tried: &Tried, sample: &str) -> Value {
    let not_sent = tried.not_sent.iter();
    let errors = tried.errors.iter();
    json!({
        "sample": sample, "events": tried.events, "sent": tried.sent,
        "not_sent": not_sent.map(|(code, count)| json!({ "code": code, "events": count.events, "first": count.first })).collect::<Vec<_>>(),
        "errors": errors.map(|((place, why), count)| {
            json!({ "place": place, "reason": why, "events": count.events, "first": count.first })
        }).collect::<Vec<_>>(),
        "without_value": tried.without_value, "examples": tried.examples,
    })
}

fn as_text(tried: &Tried, sample: &str) -> String {
    let mut text = format!("tried on {sample}: {} of {} would be sent\n", tried.sent, tried.events);
    if !tried.not_sent.is_empty() {
        let rows: Vec<Vec<String>> = tried
            .not_sent
            .iter()
            .map(|(code, count)| vec![code.clone(), count.events.to_string(), count.first.clone()])
            .collect();
        text.push_str(&format!("\n{}", table(&["not sent", "events", "the first"], &rows)));
    }
    if !tried.errors.is_empty() {
        let rows: Vec<Vec<String>> = tried
            .errors
            .iter()
            .map(|((place, why), count)| {
                vec![place.clone(), count.events.to_string(), count.first.clone(), why.clone()]
            })
            .collect();
        text.push_str(&format!(
            "\n{}",
            table(&["expression that fails", "events", "the first", "why"], &rows)
        ));
    }
    if !tried.without_value.is_empty() {
        text.push_str(&format!(
            "\nno event that would be sent has a value for {}\n",
            tried.without_value.join(", ")
        ));
    }
    for example in &tried.examples {
        text.push_str(&format!(
            "\n{} ({}):\n",
            example["event"].as_str().unwrap_or("call"),
            example["messageId"].as_str().unwrap_or("")
        ));
        for request in example["requests"].as_array().into_iter().flatten() {
            text.push_str(&format!("{request:#}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_event_is_tried_as_it_was_sent() {
        let shown = json!({
            "message_id": "m-1", "type": "page", "name": "Home", "anonymous_id": "a-1", "user_id": "", "ip": "203.0.113.7",
            "user_agent": "UA", "properties": { "a": 1 }, "traits": null, "context": { "page": {} }, "warnings": [],
            "timestamp": "2026-11-27T12:00:00Z",
        });
        let event: Value = serde_json::from_str(&as_segment(&shown.to_string()).unwrap()).unwrap();
        assert_eq!(
            event,
            json!({
                "type": "page", "name": "Home", "messageId": "m-1", "anonymousId": "a-1", "timestamp": "2026-11-27T12:00:00Z",
                "properties": { "a": 1 }, "context": { "page": {}, "ip": "203.0.113.7", "userAgent": "UA" },
            })
        );
        assert_eq!(as_segment("null"), None);
    }

    #[test]
    fn requests_of_customers_are_shown_to_who_asks_for_them() {
        let shown = |args: &[&str], are_received: bool| {
            #[derive(clap::Parser)]
            struct Line {
                #[command(flatten)]
                command: Try,
            }
            let line = <Line as clap::Parser>::parse_from(["try", "a.json"].iter().chain(args));
            line.command.shown_of(&Events { are_received, ..sample_day() }).ok()
        };
        assert_eq!((shown(&[], false), shown(&[], true)), (Some(2), Some(0)));
        assert_eq!((shown(&["--show", "5"], false), shown(&["--show", "5"], true)), (Some(5), None));
        assert_eq!(shown(&["--show", "0"], true), Some(0));
        assert_eq!(shown(&["--show", "5", "--unmasked"], true), Some(5));
        assert_eq!(shown(&["--unmasked"], true), Some(2));
    }

    #[test]
    fn the_sample_day_has_something_for_a_filter_to_choose_from() {
        let document = json!({
            "kind": "meta_capi", "mode": "live", "settings": { "dataset_id": "1", "access_token": "t" },
            "filter": "event == \"Order Completed\"",
            "fields": { "custom_data.half": "properties.revenue / 2", "custom_data.bad": "properties.currency * 2" },
        });
        let tried = tried(&document, &WorkspaceDefaults::default(), &sample_day(), "allow", 1).unwrap();
        assert!(tried.sent > 0 && tried.not_sent["filter"].events > 0, "{tried:?}");
        assert_eq!(tried.sent + tried.not_sent.values().map(|count| count.events).sum::<u64>(), tried.events);
        // The day has orders whose currency is none.
        let passed = tried.sent + tried.not_sent["missing_currency"].events;
        let told = as_text(&tried, "a sample");
        let error = tried
            .errors
            .iter()
            .next()
            .map(|((place, why), count)| (place.as_str(), why.as_str(), count.events));
        let why = "a value has another type than its expression needs (expression_type)";
        assert_eq!(error, Some(("fields.custom_data.bad", why, passed)), "{told}");
        assert!(told.contains("expression that fails") && told.contains("\"half\":"), "{told}");
        assert!(refuse_errors(&tried).is_err());
    }

    #[test]
    fn a_place_that_no_event_has_is_told() {
        let tried = |filter: &str, field: &str| {
            let document = json!({
                "kind": "meta_capi", "mode": "live", "settings": { "dataset_id": "1", "access_token": "t" },
                "filter": filter, "fields": { "custom_data.half": field, "custom_data.name": "event" },
            });
            super::tried(&document, &WorkspaceDefaults::default(), &sample_day(), "allow", 0).unwrap()
        };
        let good = tried("event == \"Order Completed\"", "properties.revenue / 2");
        assert!(good.without_value.is_empty() && refuse_blind(&good).is_ok(), "{good:?}");
        for mistyped in ["properties.revenu / 2", "properties.revenu"] {
            let blind = tried("event == \"Order Completed\"", mistyped);
            assert_eq!(blind.without_value, ["fields.custom_data.half"]);
            assert!(refuse_errors(&blind).is_ok() && refuse_blind(&blind).is_err());
            assert!(as_text(&blind, "a sample").contains("has a value for fields.custom_data.half"));
        }
        let nothing = tried("properties.chanel == \"web\"", "properties.revenue / 2");
        assert_eq!((nothing.sent, refuse_blind(&nothing).is_err()), (0, true));
    }
}
