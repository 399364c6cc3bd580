//! `tracklayer quality`: by connection, event and key, how many events could be matched by it; an estimate of Meta's score, and Meta's own.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_proto::delivery::v1 as pb;

use super::Access;
use super::names::Names;
use super::output::{Output, percent, table, time};
use super::since::{Since, parse_since};

/// Of which events.
#[derive(Debug, Args)]
pub struct Quality {
    /// Only of this connection, by name or number.
    #[arg(long)]
    connection: Option<String>,
    /// Events that were received since then: so long ago (90m, 48h, 7d), or at a time (2026-11-23T12:00:00Z).
    #[arg(long, default_value = "24h", value_parser = parse_since)]
    since: Since,
}

/// Runs it.
///
/// # Errors
/// There is no such connection, or what the services answered.
pub async fn run(access: &Access, command: &Quality) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let connection_id = match &command.connection {
        Some(wanted) => {
            names.connection_called(wanted).with_context(|| format!("no connection `{wanted}`"))?
        }
        None => 0,
    };
    let since = Some(command.since.before(Timestamp::now()).context("--since")?);
    let request = pb::GetMatchQualityRequest { workspace_id, connection_id, since, until: None };
    let answer = access.delivery()?.get_match_quality(request).await?.into_inner();
    match access.output {
        Output::Json => println!("{:#}", document(&answer, &names)),
        Output::Table => print!("{}", tables(&answer, &names)),
    }
    Ok(())
}

/// What the platforms say, by connection and event.
struct Said<'a>(BTreeMap<(i64, &'a str), (&'a pb::PlatformReading, &'a pb::PlatformFigure)>);

impl<'a> Said<'a> {
    fn of(answer: &'a pb::GetMatchQualityResponse) -> Self {
        let figures = answer.readings.iter().flat_map(|reading| {
            let of_event = move |figure: &'a pb::PlatformFigure| {
                ((reading.connection_id, figure.event_name.as_str()), (reading, figure))
            };
            reading.figures.iter().map(of_event)
        });
        Self(figures.collect())
    }

    fn about(
        &self,
        event: &pb::EventMatchQuality,
    ) -> Option<(&'a pb::PlatformReading, &'a pb::PlatformFigure)> {
        self.0.get(&(event.connection_id, event.event_name.as_str())).copied()
    }
}

fn coverage_of(figure: &pb::PlatformFigure, key: &str) -> Option<f64> {
    figure.coverage.iter().find(|coverage| coverage.key == key).map(|coverage| coverage.percent)
}

/// A figure with one decimal, or nothing.
fn shown(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.1}"))
}

fn tables(answer: &pb::GetMatchQualityResponse, names: &Names) -> String {
    let said = Said::of(answer);
    let mut text =
        format!("received from {} to {}\n\n", time(answer.since.as_ref()), time(answer.until.as_ref()));
    if answer.events.is_empty() {
        text.push_str("no event was sent to a platform that matches persons\n");
    }
    let of_event = |event: &pb::EventMatchQuality| {
        let theirs = said.about(event);
        vec![
            names.connection(event.connection_id),
            event.event_name.clone(),
            event.events.to_string(),
            shown(event.estimate),
            shown(theirs.and_then(|(_, figure)| figure.score)),
            theirs.map(|(reading, _)| time(reading.read_at.as_ref())).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = answer.events.iter().map(of_event).collect();
    if !rows.is_empty() {
        let head = ["connection", "event", "events", "EMQ, our estimate", "EMQ, Meta's own", "Meta's as of"];
        text.push_str(&table(&head, &rows));
    }
    let rows: Vec<Vec<String>> = answer
        .events
        .iter()
        .flat_map(|event| event.keys.iter().map(|key| key_row(event, key, &said, names)).collect::<Vec<_>>())
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        let head = ["connection", "event", "key", "present %", "valid %", "Meta's own %", "of no use"];
        text.push_str(&table(&head, &rows));
    }
    if answer.events.iter().any(|event| event.estimate.is_some()) {
        text.push_str("\nThe estimate is ours: Meta does not publish how it reckons Event Match Quality. See docs/match-quality.md.\n");
    }
    for reading in answer.readings.iter().filter(|reading| !reading.problem.is_empty()) {
        let name = names.connection(reading.connection_id);
        let at = time(reading.asked_at.as_ref());
        text.push_str(&format!("{name}: no figure of the platform's own at {at}: {}\n", reading.problem));
    }
    if answer.truncated {
        text.push_str("There are more events than these: ask for one connection, or for less time.\n");
    }
    text
}

fn key_row(
    event: &pb::EventMatchQuality,
    key: &pb::KeyQuality,
    said: &Said<'_>,
    names: &Names,
) -> Vec<String> {
    let why: Vec<String> =
        key.left_out.iter().map(|left| format!("{} {}", left.events, left.reason)).collect();
    let theirs = said.about(event).and_then(|(_, figure)| coverage_of(figure, &key.key));
    vec![
        names.connection(event.connection_id),
        event.event_name.clone(),
        key.key.clone(),
        format!("{:.1}", percent(key.sent + key.of_no_use, event.events)),
        format!("{:.1}", percent(key.sent, event.events)),
        shown(theirs),
        why.join(", "),
    ]
}

fn document(answer: &pb::GetMatchQualityResponse, names: &Names) -> Value {
    let said = Said::of(answer);
    let key = |event: &pb::EventMatchQuality, key: &pb::KeyQuality| {
        let reasons: BTreeMap<&str, u64> =
            key.left_out.iter().map(|left| (left.reason.as_str(), left.events)).collect();
        json!({
            "key": key.key, "sent": key.sent, "of_no_use": key.of_no_use, "reasons": reasons,
            "present_percent": percent(key.sent + key.of_no_use, event.events),
            "valid_percent": percent(key.sent, event.events),
            "platform_percent": said.about(event).and_then(|(_, figure)| coverage_of(figure, &key.key)),
        })
    };
    let event = |event: &pb::EventMatchQuality| {
        let theirs = said.about(event);
        let keys: Vec<Value> = event.keys.iter().map(|of_event| key(event, of_event)).collect();
        json!({
            "connection_id": event.connection_id, "connection": names.connection(event.connection_id),
            "event": event.event_name, "events": event.events, "keys": keys, "estimate": event.estimate,
            "platform_score": theirs.and_then(|(_, figure)| figure.score),
            "platform_read_at": theirs.map(|(reading, _)| time(reading.read_at.as_ref())),
        })
    };
    let reading = |reading: &pb::PlatformReading| {
        let read_at = reading.read_at.as_ref().map(|at| time(Some(at)));
        json!({
            "connection_id": reading.connection_id, "connection": names.connection(reading.connection_id),
            "asked_at": time(reading.asked_at.as_ref()), "read_at": read_at, "problem": reading.problem,
        })
    };
    json!({
        "since": time(answer.since.as_ref()), "until": time(answer.until.as_ref()), "truncated": answer.truncated,
        "events": answer.events.iter().map(event).collect::<Vec<_>>(),
        "readings": answer.readings.iter().map(reading).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> pb::GetMatchQualityResponse {
        let left_out = vec![pb::KeyLeftOut { reason: "no_digits".to_owned(), events: 1 }];
        let keys = vec![
            pb::KeyQuality { key: "email".to_owned(), sent: 3, ..pb::KeyQuality::default() },
            pb::KeyQuality { key: "phone".to_owned(), sent: 1, of_no_use: 1, left_out },
        ];
        let purchase = pb::EventMatchQuality {
            connection_id: 7,
            event_name: "Purchase".to_owned(),
            events: 4,
            keys,
            estimate: Some(2.26),
        };
        let coverage = vec![pb::PlatformCoverage { key: "email".to_owned(), percent: 80.0 }];
        let figure = pb::PlatformFigure { event_name: "Purchase".to_owned(), score: Some(6.2), coverage };
        let read_at = Some(prost_types::Timestamp { seconds: 0, nanos: 0 });
        let reading = pb::PlatformReading {
            connection_id: 7,
            asked_at: read_at,
            read_at,
            problem: String::new(),
            figures: vec![figure],
        };
        let failed =
            pb::PlatformReading { connection_id: 8, problem: "refused".to_owned(), ..Default::default() };
        pb::GetMatchQualityResponse {
            events: vec![purchase],
            readings: vec![reading, failed],
            ..Default::default()
        }
    }

    #[test]
    fn present_is_what_went_out_and_what_was_of_no_use() {
        let shown = tables(&answer(), &Names::default());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = shown.lines().map(words).collect();
        let has = |line: &str| assert!(lines.contains(&words(line)), "{line}\n{shown}");
        has("7 Purchase 4 2.3 6.2 1970-01-01T00:00:00.000Z");
        has("7 Purchase email 75.0 75.0 80.0");
        has("7 Purchase phone 50.0 25.0 - 1 no_digits");
        assert!(shown.contains("Meta does not publish how it reckons"), "{shown}");
        assert!(
            shown.contains("8: no figure of the platform's own at") && shown.contains("refused"),
            "{shown}"
        );
    }

    #[test]
    fn programs_get_the_same() {
        let document = document(&answer(), &Names::default());
        let phone = &document["events"][0]["keys"][1];
        assert_eq!((&phone["present_percent"], &phone["valid_percent"]), (&json!(50.0), &json!(25.0)));
        assert_eq!(phone["reasons"], json!({ "no_digits": 1 }));
        assert_eq!(document["events"][0]["platform_score"], json!(6.2));
        assert_eq!(document["readings"][1]["problem"], "refused");
    }
}
