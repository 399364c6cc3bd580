//! `tracklayer twins`: by pair of sources who came first and what has no twin; by source which of its events had one.

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
pub struct Twins {
    /// Events that were received since then: so long ago (90m, 48h, 7d), or at a time (2026-11-23T12:00:00Z).
    #[arg(long, default_value = "24h", value_parser = parse_since)]
    since: Since,
    /// And before then, likewise; up to now where it is not given.
    #[arg(long, value_parser = parse_since)]
    until: Option<Since>,
}

/// Runs it.
///
/// # Errors
/// What the services answered.
pub async fn run(access: &Access, command: &Twins) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let now = Timestamp::now();
    let since = Some(command.since.before(now).context("--since")?);
    let until = command.until.map(|until| until.before(now)).transpose().context("--until")?;
    let request = pb::GetTwinsRequest { workspace_id, since, until };
    let answer = access.delivery()?.get_twins(request).await?.into_inner();
    match access.output {
        Output::Json => println!("{:#}", document(&answer, &names)),
        Output::Table => print!("{}", tables(&answer, &names)),
    }
    Ok(())
}

/// Two sources, the one with the lower number first.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    a_first: u64,
    b_first: u64,
    by_order: u64,
}

impl Pair {
    const fn twins(self) -> u64 {
        self.a_first + self.b_first
    }
}

fn pairs(answer: &pb::GetTwinsResponse) -> BTreeMap<(i64, i64), Pair> {
    let mut pairs: BTreeMap<(i64, i64), Pair> = BTreeMap::new();
    for one_way in &answer.pairs {
        let (first, second) = (one_way.first_source_id, one_way.second_source_id);
        let pair = pairs.entry((first.min(second), first.max(second))).or_default();
        let twins = one_way.by_message_id + one_way.by_order;
        if first < second {
            pair.a_first += twins;
        } else {
            pair.b_first += twins;
        }
        pair.by_order += one_way.by_order;
    }
    pairs
}

/// What a source sent, each once.
fn events_of(answer: &pb::GetTwinsResponse, source: i64) -> u64 {
    answer.sources.iter().find(|of| of.source_id == source).map_or(0, |of| of.events)
}

fn tables(answer: &pb::GetTwinsResponse, names: &Names) -> String {
    let mut text =
        format!("received from {} to {}\n\n", time(answer.since.as_ref()), time(answer.until.as_ref()));
    if answer.sources.is_empty() {
        text.push_str("nothing was received\n");
        return text;
    }
    let pair_row = |((a, b), pair): ((i64, i64), Pair)| {
        let (of_a, of_b) = (events_of(answer, a), events_of(answer, b));
        vec![
            names.source(a),
            names.source(b),
            pair.a_first.to_string(),
            pair.b_first.to_string(),
            pair.by_order.to_string(),
            format!("{:.1}", percent(pair.twins(), of_a)),
            of_a.saturating_sub(pair.twins()).to_string(),
            format!("{:.1}", percent(pair.twins(), of_b)),
            of_b.saturating_sub(pair.twins()).to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = pairs(answer).into_iter().map(pair_row).collect();
    if rows.is_empty() {
        text.push_str("no event had a twin of another source\n");
    } else {
        let head = [
            "source A",
            "source B",
            "A first",
            "B first",
            "by order",
            "of A's with a B %",
            "A's without",
            "of B's with an A %",
            "B's without",
        ];
        text.push_str(&table(&head, &rows));
    }
    let source_row = |of: &pb::SourceTwins| {
        let mut row = vec![names.source(of.source_id)];
        let figures = [of.events, of.first, of.second, of.alone, of.repeats, of.further];
        row.extend(figures.iter().map(u64::to_string));
        row
    };
    let rows: Vec<Vec<String>> = answer.sources.iter().map(source_row).collect();
    text.push('\n');
    let head = ["source", "events", "first, with a twin", "second", "alone", "own repeats", "further copies"];
    text.push_str(&table(&head, &rows));
    text
}

fn document(answer: &pb::GetTwinsResponse, names: &Names) -> Value {
    let pair = |((a, b), pair): ((i64, i64), Pair)| {
        let (of_a, of_b) = (events_of(answer, a), events_of(answer, b));
        json!({
            "a_id": a, "a": names.source(a), "b_id": b, "b": names.source(b),
            "a_first": pair.a_first, "b_first": pair.b_first, "by_order": pair.by_order,
            "a_with_b_percent": percent(pair.twins(), of_a), "a_without_b": of_a.saturating_sub(pair.twins()),
            "b_with_a_percent": percent(pair.twins(), of_b), "b_without_a": of_b.saturating_sub(pair.twins()),
        })
    };
    let source = |of: &pb::SourceTwins| {
        json!({
            "source_id": of.source_id, "source": names.source(of.source_id), "events": of.events,
            "first": of.first, "second": of.second, "alone": of.alone,
            "repeats": of.repeats, "further": of.further,
        })
    };
    json!({
        "since": time(answer.since.as_ref()), "until": time(answer.until.as_ref()),
        "pairs": pairs(answer).into_iter().map(pair).collect::<Vec<_>>(),
        "sources": answer.sources.iter().map(source).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The browser has sent 80 events, the server 100; 75 of them are the same.
    fn answer() -> pb::GetTwinsResponse {
        let browser = pb::SourceTwins {
            source_id: 1,
            events: 80,
            first: 70,
            second: 5,
            alone: 5,
            ..Default::default()
        };
        let server = pb::SourceTwins {
            source_id: 2,
            events: 100,
            first: 5,
            second: 70,
            alone: 25,
            repeats: 3,
            further: 2,
        };
        let pair = |first_source_id, second_source_id, by_message_id, by_order| pb::TwinPair {
            first_source_id,
            second_source_id,
            by_message_id,
            by_order,
        };
        pb::GetTwinsResponse {
            sources: vec![browser, server],
            pairs: vec![pair(1, 2, 66, 4), pair(2, 1, 5, 0)],
            ..Default::default()
        }
    }

    #[test]
    fn a_pair_is_one_line_whoever_came_first() {
        let shown = tables(&answer(), &Names::default());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = shown.lines().map(words).collect();
        let has = |line: &str| assert!(lines.contains(&words(line)), "{line}\n{shown}");
        has("1 2 70 5 4 93.8 5 75.0 25");
        has("1 80 70 5 5 0 0");
        has("2 100 5 70 25 3 2");
        let nothing = tables(&pb::GetTwinsResponse::default(), &Names::default());
        assert!(nothing.contains("nothing was received"), "{nothing}");
    }

    #[test]
    fn programs_get_the_same() {
        let document = document(&answer(), &Names::default());
        let pair = &document["pairs"][0];
        assert_eq!((&pair["a_first"], &pair["b_first"]), (&json!(70), &json!(5)));
        assert_eq!((&pair["b_with_a_percent"], &pair["b_without_a"]), (&json!(75.0), &json!(25)));
        assert_eq!(document["sources"][1]["further"], json!(2));
    }
}
