//! Page "Event": the story of one message_id, told from delivery's answer. Pure.

use jiff::Timestamp;
use serde_json::Value;
use tracklayer_ids::{ConnectionId, SourceId};

use super::delivery::{Delivered, NoAnswer, Occurrence};
use super::format;
use super::live::explain;
use super::words::{self, Decision, State};
use crate::connection::Connection;
use crate::source::Source;

/// What the page found.
#[derive(Debug, Clone, PartialEq)]
pub enum Search {
    /// Nothing was asked.
    Nothing,
    /// What was asked cannot be a message_id.
    NoMessageId(String),
    /// Never accepted in this workspace.
    NotFound,
    /// Delivery gave no answer.
    Problem(&'static str),
    /// The story.
    Story(Story),
}

/// The story.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// In a sentence or two.
    pub summary: Vec<String>,
    /// The one that counts first, then its twins and repeats.
    pub occurrences: Vec<OccurrenceView>,
}

/// One occurrence.
#[derive(Debug, Clone, PartialEq)]
pub struct OccurrenceView {
    /// "This one counts", "Twin", "Repeat".
    pub role: &'static str,
    /// Whether another one counts.
    pub is_duplicate: bool,
    /// Where it came from.
    pub source: String,
    /// browser, server, mobile, in words.
    pub channel: String,
    /// The source's default place, in words.
    pub place: String,
    /// When it was received.
    pub received_at: String,
    /// "1.2 s after the first".
    pub after: String,
    /// What it is: type and name.
    pub what: String,
    /// Where it stands in the journal.
    pub position: String,
    /// Where the one stands that counts, if this is not it.
    pub duplicate_of: String,
    /// Whether it counts though its message_id was used before for something else.
    pub reused_id: bool,
    /// The profile's key; empty where there is none.
    pub profile: String,
    /// Whether resolve has seen it.
    pub resolved: bool,
    /// What became of it.
    pub deliveries: Vec<DeliveryView>,
    /// The event, personal data masked.
    pub event_json: String,
}

/// What became of an occurrence at one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    /// The destination's name.
    pub destination: String,
    /// What its kind is called.
    pub kind: String,
    /// What became of it.
    pub state: Option<State>,
    /// Why, in words.
    pub reason: String,
    /// The reason's code, where the words are not the code.
    pub reason_code: String,
    /// What consent said.
    pub consent: Decision,
    /// How often it was tried.
    pub attempts: u32,
    /// Receipt to the state; empty where it was not tried.
    pub latency: String,
    /// When the state was committed.
    pub at: String,
    /// What the platform said.
    pub detail: String,
}

impl Search {
    /// Tells the story.
    #[must_use]
    pub fn of(
        answer: Result<Vec<Occurrence>, NoAnswer>,
        sources: &[Source],
        connections: &[Connection],
    ) -> Self {
        match answer {
            Err(no_answer) => Self::Problem(explain(no_answer)),
            Ok(occurrences) if occurrences.is_empty() => Self::NotFound,
            Ok(occurrences) => Self::Story(Story::of(&occurrences, sources, connections)),
        }
    }
}

impl Story {
    fn of(occurrences: &[Occurrence], sources: &[Source], connections: &[Connection]) -> Self {
        let first = &occurrences[0];
        let views: Vec<OccurrenceView> =
            occurrences.iter().map(|o| OccurrenceView::of(o, first, sources, connections)).collect();
        Self { summary: summary(&views), occurrences: views }
    }
}

impl OccurrenceView {
    fn of(
        occurrence: &Occurrence,
        first: &Occurrence,
        sources: &[Source],
        connections: &[Connection],
    ) -> Self {
        let source = sources.iter().find(|source| source.id == occurrence.source);
        let is_duplicate = occurrence.duplicate_of.is_some();
        let role = match (is_duplicate, occurrence.source == first.source) {
            (false, _) => "This one counts",
            (true, true) => "Repeat",
            (true, false) => "Twin",
        };
        Self {
            role,
            is_duplicate,
            source: source.map_or_else(|| unknown_source(occurrence.source), |source| source.name.clone()),
            channel: source
                .map(|source| words::channel(source.channel.as_str()).to_owned())
                .unwrap_or_default(),
            place: source.map(|source| words::place(&source.default_place).to_owned()).unwrap_or_default(),
            received_at: occurrence.received_at.map(format::exact_instant).unwrap_or_default(),
            after: after(first.received_at, occurrence.received_at),
            what: what(&occurrence.event),
            position: occurrence.position.map(|p| p.to_string()).unwrap_or_default(),
            duplicate_of: occurrence.duplicate_of.map(|p| p.to_string()).unwrap_or_default(),
            reused_id: occurrence.reused_id,
            profile: occurrence.canonical_key.clone(),
            resolved: occurrence.resolved,
            deliveries: occurrence.deliveries.iter().map(|d| DeliveryView::of(d, connections)).collect(),
            event_json: serde_json::to_string_pretty(&occurrence.event).unwrap_or_default(),
        }
    }
}

impl DeliveryView {
    fn of(delivered: &Delivered, connections: &[Connection]) -> Self {
        let connection = connections.iter().find(|connection| connection.id == delivered.connection);
        let reason = words::reason(&delivered.reason).to_owned();
        Self {
            destination: connection
                .map_or_else(|| unknown_connection(delivered.connection), |c| c.name.clone()),
            kind: connection.map(|c| words::kind(&c.kind).to_owned()).unwrap_or_default(),
            state: delivered.state,
            reason_code: if reason == delivered.reason { String::new() } else { delivered.reason.clone() },
            reason,
            consent: words::decision(&delivered.consent),
            attempts: delivered.attempts,
            latency: if delivered.attempts > 0 {
                format::milliseconds(delivered.latency_ms)
            } else {
                String::new()
            },
            at: delivered.at.map(format::exact_instant).unwrap_or_default(),
            detail: delivered.detail.clone(),
        }
    }
}

/// The story in a sentence or two, for who reads nothing else.
fn summary(occurrences: &[OccurrenceView]) -> Vec<String> {
    let mut sentences = Vec::new();
    let names: Vec<&str> = occurrences.iter().map(|o| o.source.as_str()).collect();
    sentences.push(match names.as_slice() {
        [one] => format!("Received once, from {one}."),
        [first, rest @ ..] => format!(
            "Received {} times: first from {first}, then from {}. Only the first one counts.",
            names.len(),
            rest.join(", ")
        ),
        [] => return sentences,
    });
    let deliveries = &occurrences[0].deliveries;
    if !occurrences[0].resolved {
        sentences.push("It waits to be resolved.".to_owned());
        return sentences;
    }
    if deliveries.is_empty() {
        sentences.push("The workspace had no destinations when it arrived.".to_owned());
        return sentences;
    }
    for state in State::ALL {
        let destinations: Vec<&str> =
            deliveries.iter().filter(|d| d.state == Some(state)).map(|d| d.destination.as_str()).collect();
        if !destinations.is_empty() {
            sentences.push(format!("{} {}.", verb(state), destinations.join(", ")));
        }
    }
    sentences
}

const fn verb(state: State) -> &'static str {
    match state {
        State::Delivered => "Delivered to",
        State::Shadowed => "Built but not sent (shadow) for",
        State::Blocked => "Blocked by consent for",
        State::Duplicate => "A duplicate for",
        State::Filtered => "Not wanted by",
        State::Held => "Held, to be tried again, for",
        State::Waiting => "Waiting for",
        State::Dead => "Dead, somebody must act, for",
    }
}

/// "track · Order Completed".
fn what(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    [text("type"), text("name")].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn after(first: Option<Timestamp>, this: Option<Timestamp>) -> String {
    let (Some(first), Some(this)) = (first, this) else { return String::new() };
    match u32::try_from(this.as_millisecond() - first.as_millisecond()) {
        Ok(0) | Err(_) => String::new(),
        Ok(ms) => format!("{} after the first", format::milliseconds(ms)),
    }
}

fn unknown_source(source: SourceId) -> String {
    format!("source {source}")
}

fn unknown_connection(connection: ConnectionId) -> String {
    format!("connection {connection}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tracklayer_ids::Position;

    use super::*;

    fn occurrence(source: i64, offset: u64, received_at: &str, duplicate_of: Option<u64>) -> Occurrence {
        Occurrence {
            position: Some(Position::new(1, 0, offset)),
            event: json!({"type": "track", "name": "Order Completed"}),
            source: SourceId(source),
            received_at: received_at.parse().ok(),
            duplicate_of: duplicate_of.map(|offset| Position::new(1, 0, offset)),
            reused_id: false,
            canonical_key: "ab12".to_owned(),
            resolved: true,
            deliveries: Vec::new(),
        }
    }

    fn delivered(connection: i64, state: State, reason: &str) -> Delivered {
        Delivered {
            connection: ConnectionId(connection),
            state: Some(state),
            reason: reason.to_owned(),
            consent: "deny: gpc (US-CA)".to_owned(),
            attempts: 0,
            latency_ms: 12,
            detail: String::new(),
            at: None,
        }
    }

    #[test]
    fn a_twin_from_another_source_is_told_apart_from_a_repeat_of_the_same() {
        let answer = vec![
            occurrence(1, 5, "2025-11-24T14:00:00Z", None),
            occurrence(2, 9, "2025-11-24T14:00:01.2Z", Some(5)),
            occurrence(1, 11, "2025-11-24T14:00:30Z", Some(5)),
        ];
        let Search::Story(story) = Search::of(Ok(answer), &[], &[]) else { panic!("no story") };
        let roles: Vec<_> = story.occurrences.iter().map(|o| o.role).collect();
        assert_eq!(roles, ["This one counts", "Twin", "Repeat"]);
        assert_eq!(story.occurrences[1].after, "1.2 s after the first");
        assert_eq!(story.occurrences[1].duplicate_of, "1/0/5");
        assert!(story.summary[0].starts_with("Received 3 times: first from source 1"), "{:?}", story.summary);
    }

    #[test]
    fn a_refusal_is_told_in_words_with_its_code_beside_it() {
        let mut first = occurrence(1, 5, "2025-11-24T14:00:00Z", None);
        first.deliveries =
            vec![delivered(7, State::Blocked, "gpc"), delivered(8, State::Dead, "platform_says_no")];
        let Search::Story(story) = Search::of(Ok(vec![first]), &[], &[]) else { panic!("no story") };
        let deliveries = &story.occurrences[0].deliveries;
        assert_eq!(deliveries[0].reason, "The browser sends Global Privacy Control");
        assert_eq!(deliveries[0].reason_code, "gpc");
        assert_eq!(deliveries[0].latency, "", "it was never tried");
        assert_eq!(
            (deliveries[1].reason.as_str(), deliveries[1].reason_code.as_str()),
            ("platform_says_no", "")
        );
        assert!(
            story.summary.contains(&"Blocked by consent for connection 7.".to_owned()),
            "{:?}",
            story.summary
        );
    }

    #[test]
    fn an_event_before_resolve_is_said_to_wait() {
        let mut first = occurrence(1, 5, "2025-11-24T14:00:00Z", None);
        first.resolved = false;
        let Search::Story(story) = Search::of(Ok(vec![first]), &[], &[]) else { panic!("no story") };
        assert_eq!(story.summary[1], "It waits to be resolved.");
        assert_eq!(Search::of(Ok(Vec::new()), &[], &[]), Search::NotFound);
        assert!(matches!(Search::of(Err(NoAnswer::Away), &[], &[]), Search::Problem(_)));
    }
}
