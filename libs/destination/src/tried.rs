//! A connection document on a sample of events, before it is saved: how many events it takes, what becomes of the others, and what
//! its expressions could not make of them. Counted from the very answers that `preview` gives.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use tracklayer_proto::event::v1::ClickIds;

use crate::deliverable::{Consent, Deliverable};
use crate::document::{SettingsErrors, WorkspaceDefaults};
use crate::maps::Maps;
use crate::outcome::SkipReason;
use crate::preview::{ConsentChoice, parse_text, preview};
use crate::registry::kind_of;

/// How often something happened, and the message id of the first event to which it did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count {
    /// Events.
    pub events: u64,
    /// The first one.
    pub first: String,
}

/// What became of a sample.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tried {
    /// Events of the sample.
    pub events: u64,
    /// Those that would be sent.
    pub sent: u64,
    /// Those that would not, by code.
    pub not_sent: BTreeMap<String, Count>,
    /// What expressions failed at: the expression's place in the document, and why.
    pub errors: BTreeMap<(String, String), Count>,
    /// Places of fields that have a value at none of the events that would be sent: mistyped, most likely.
    pub without_value: Vec<String>,
    /// What `preview` says of the first events that would be sent.
    pub examples: Vec<Value>,
}

/// Tries a document on events in the Segment spec, one a line as for [`preview`]. Nothing is sent. `examples`: how many requests to keep.
///
/// # Errors
/// The document is not valid.
pub fn try_on<'l>(
    document: &Value,
    workspace: &WorkspaceDefaults,
    lines: impl IntoIterator<Item = &'l str>,
    now: Timestamp,
    consent: &ConsentChoice,
    examples: usize,
) -> Result<Tried, SettingsErrors> {
    let lines: Vec<&str> = lines.into_iter().collect();
    let answers = preview(document, workspace, lines.iter().copied(), now, consent)?;
    let mut tried = Tried::default();
    let maps = Maps::compile(kind_of(document)?, document)?;
    let mut without: Option<BTreeSet<String>> = maps.as_ref().map(|maps| maps.field_places().collect());
    for (line, answer) in lines.into_iter().zip(answers) {
        let event: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
        let was_sent = tried.add(&event, &answer, examples);
        if let (Some(maps), Some(without), true) = (&maps, &mut without, was_sent)
            && let Ok(event) = parse_text(line, now)
        {
            let event = Deliverable::new(event, ClickIds::default(), "", Consent::Allow, None);
            let nothing: BTreeSet<String> = maps.without_value(&event).collect();
            without.retain(|place| nothing.contains(place));
        }
    }
    if tried.sent > 0 {
        tried.without_value = without.into_iter().flatten().collect();
    }
    Ok(tried)
}

impl Tried {
    /// Counts an event; true: it would be sent.
    fn add(&mut self, event: &Value, answer: &Value, examples: usize) -> bool {
        let id = event["messageId"].as_str().unwrap_or("(no messageId)");
        self.events += 1;
        let texts = |value: &Value, keys: [&str; 2]| {
            keys.map(|key| value[key].as_str().unwrap_or_default().to_owned())
        };
        for refused in answer["refused"].as_array().into_iter().flatten() {
            let [code, reason] = texts(refused, ["code", "reason"]);
            if code == SkipReason::ExpressionFailed.as_str() {
                // "`filter`: why (code)".
                let (place, why) = reason.split_once(": ").unwrap_or(("", &reason));
                count(&mut self.errors, (place.trim_matches('`').to_owned(), why.to_owned()), id);
            }
            count(&mut self.not_sent, code, id);
        }
        for note in answer["notes"].as_array().into_iter().flatten() {
            let [code, field] = texts(note, ["code", "field"]);
            if code.starts_with("expression_") {
                let why = note["reason"].as_str().unwrap_or_default();
                count(&mut self.errors, (field, format!("{why} ({code})")), id);
            }
        }
        let requests = answer["requests"].as_array().filter(|requests| !requests.is_empty());
        if let Some(requests) = requests {
            self.sent += 1;
            if self.examples.len() < examples {
                self.examples.push(json!({ "messageId": id, "event": event["event"], "requests": requests }));
            }
        }
        requests.is_some()
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, Count>, key: K, id: &str) {
    let count = counts.entry(key).or_insert_with(|| Count { events: 0, first: id.to_owned() });
    count.events += 1;
}
