//! Page "Live": what stands on it, from the configuration and delivery's counts. Pure: the page and its JSON are two views of
//! the same value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tracklayer_ids::{ConnectionId, SourceId};

use super::counts::{Cell, StateCounts};
use super::delivery::{ConnectionStats, NoAnswer, Stats, Twins};
use super::format;
use super::twins::TwinRow;
use super::words::{self, State};
use crate::connection::Connection;
use crate::source::Source;
use crate::workspace::Workspace;

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct LiveView {
    /// The workspace's name.
    pub workspace: String,
    /// When the counts were taken.
    pub as_of: Timestamp,
    /// Why there are no counts.
    pub problem: Option<&'static str>,
    /// In the order of making.
    pub destinations: Vec<DestinationRow>,
    /// In the order of making.
    pub sources: Vec<SourceRow>,
    /// Sources that sent the same events within the last day.
    pub twins: Vec<TwinRow>,
}

/// A destination.
#[derive(Debug, Clone, Serialize)]
pub struct DestinationRow {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// off, shadow, live.
    pub mode: String,
    /// Which properties a purchase is worth there, where it is not what the workspace says.
    pub own_value_from: Option<String>,
    /// None while delivery is away, or has not heard of the connection.
    pub numbers: Option<Numbers>,
}

/// The numbers of a destination.
#[derive(Debug, Clone, Serialize)]
pub struct Numbers {
    /// By state.
    pub states: StateCounts,
    /// By state and reason, most first within a state.
    pub reasons: Vec<ReasonCount>,
    /// Receipt to delivery, milliseconds: 50th, 95th and 99th percentile.
    pub latencies_ms: [u32; 3],
    /// Requests sent.
    pub requests: u64,
    /// "open", or why it holds.
    pub health: String,
}

/// A source.
#[derive(Debug, Clone, Serialize)]
pub struct SourceRow {
    /// The source.
    pub source_id: SourceId,
    /// Its name.
    pub name: String,
    /// browser, server, mobile.
    pub channel: &'static str,
    /// Its default place.
    pub place: String,
    /// Whether it takes events.
    pub enabled: bool,
    /// Whether its commerce events are deduplicated by their order, too.
    pub dedup_by_order_id: bool,
    /// Events a second that it may send to each replica of ingest; 0: no limit; none: what the installation says.
    pub max_events_per_second: Option<u32>,
    /// None while delivery is away.
    pub accepted: Option<u64>,
    /// What became of its events, in the order of the destinations; what waits is not known by source.
    pub by_destination: Vec<Option<StateCounts>>,
}

/// A reason and how often it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// For which state.
    #[serde(serialize_with = "as_word")]
    pub state: State,
    /// The code.
    pub reason: String,
    /// Events.
    pub count: u64,
}

/// A headline number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Its colour.
    pub class: &'static str,
    /// What it counts.
    pub label: &'static str,
    /// The same, more exactly.
    pub note: String,
    /// The number.
    pub text: String,
}

/// A line of the table of reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonRow<'a> {
    /// The destination's name.
    pub destination: &'a str,
    /// How many lines are of this destination, said on the first of them; 0 on the others.
    pub lines: usize,
    /// What became of the events.
    pub state: State,
    /// Why, in words.
    pub label: &'a str,
    /// Why, as the ledger says it.
    pub code: &'a str,
    /// How many.
    pub text: String,
    /// Of all events of the destination.
    pub share: String,
}

impl LiveView {
    /// Puts the page together.
    #[must_use]
    pub fn of(
        workspace: &Workspace,
        sources: &[Source],
        connections: &[Connection],
        stats: Result<&Stats, NoAnswer>,
        twins: &Twins,
        now: Timestamp,
    ) -> Self {
        let numbers = stats.ok();
        Self {
            workspace: workspace.name.clone(),
            as_of: now,
            problem: stats.err().map(explain),
            destinations: connections.iter().map(|c| DestinationRow::of(workspace, c, numbers)).collect(),
            sources: sources.iter().map(|source| SourceRow::of(source, connections, numbers)).collect(),
            twins: TwinRow::all(sources, twins),
        }
    }

    /// Accepted by all sources.
    #[must_use]
    pub fn accepted(&self) -> Option<u64> {
        self.sources.iter().map(|source| source.accepted).sum()
    }

    /// The headline numbers, summed over all destinations.
    #[must_use]
    pub fn tiles(&self) -> Vec<Tile> {
        let numbers: Vec<&Numbers> =
            self.destinations.iter().filter_map(|row| row.numbers.as_ref()).collect();
        let total = |states: &[State]| {
            let sum = || states.iter().flat_map(|s| numbers.iter().map(|n| n.states.get(*s))).sum();
            (!numbers.is_empty()).then(sum)
        };
        let tile = |class, label, note: &str, number: Option<u64>| Tile {
            class,
            label,
            note: note.to_owned(),
            text: number.map_or_else(|| "–".to_owned(), format::count),
        };
        let destinations = match self.destinations.len() {
            1 => "to 1 destination".to_owned(),
            several => format!("to {several} destinations"),
        };
        vec![
            tile("accepted", "Accepted", "events from all sources", self.accepted()),
            tile("delivered", "Delivered", &destinations, total(&[State::Delivered])),
            tile("blocked", "Blocked", "by consent", total(&[State::Blocked])),
            tile("waiting", "On the way", "waiting or held", total(&[State::Waiting, State::Held])),
            tile("dead", "Dead", "somebody must act", total(&[State::Dead])),
        ]
    }

    /// Why events were not delivered, by destination.
    #[must_use]
    pub fn reasons(&self) -> Vec<ReasonRow<'_>> {
        let rows = self.destinations.iter().flat_map(|destination| {
            destination.numbers.iter().flat_map(move |numbers| {
                numbers.reasons.iter().enumerate().map(move |(index, reason)| ReasonRow {
                    destination: &destination.name,
                    lines: if index == 0 { numbers.reasons.len() } else { 0 },
                    state: reason.state,
                    label: words::reason(&reason.reason),
                    code: &reason.reason,
                    text: format::count(reason.count),
                    share: format::share(reason.count, numbers.states.total()),
                })
            })
        });
        rows.collect()
    }

    /// Whether anything was accepted, as far as is known.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.problem.is_none() && self.accepted() == Some(0)
    }

    /// The clock of the counts.
    #[must_use]
    pub fn clock(&self) -> String {
        format::clock(self.as_of)
    }
}

impl DestinationRow {
    fn of(workspace: &Workspace, connection: &Connection, stats: Option<&Stats>) -> Self {
        let numbers = stats.and_then(|stats| stats.connections.get(&connection.id)).map(Numbers::of);
        Self {
            connection_id: connection.id,
            name: connection.name.clone(),
            kind: connection.kind.clone(),
            mode: connection.mode.clone(),
            own_value_from: own_value_from(workspace, connection),
            numbers,
        }
    }

    /// What its kind is called.
    #[must_use]
    pub fn kind_label(&self) -> &str {
        words::kind(&self.kind)
    }

    /// Its counts by state, in the order of the table's head; dashes where there are none.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        self.numbers.as_ref().map_or_else(Cell::unknown, |numbers| numbers.states.cells())
    }

    /// Its percentiles; dashes where there are none.
    #[must_use]
    pub fn latencies(&self) -> [String; 3] {
        self.numbers.as_ref().map_or_else(|| ["–"; 3].map(str::to_owned), Numbers::latencies)
    }

    /// What its mode is called.
    #[must_use]
    pub fn mode_label(&self) -> &str {
        words::mode(&self.mode)
    }
}

impl Numbers {
    fn of(stats: &ConnectionStats) -> Self {
        let mut states = StateCounts::default();
        let mut reasons: BTreeMap<(State, &str), u64> = BTreeMap::new();
        for count in &stats.counts {
            states.add(count.state, count.count);
            if !count.reason.is_empty() && count.count > 0 {
                *reasons.entry((count.state, &count.reason)).or_default() += count.count;
            }
        }
        states.add(State::Waiting, stats.waiting);
        let mut reasons: Vec<ReasonCount> = reasons
            .into_iter()
            .map(|((state, reason), count)| ReasonCount { state, reason: reason.to_owned(), count })
            .collect();
        reasons.sort_by(|one, two| (one.state, two.count).cmp(&(two.state, one.count)));
        Self {
            states,
            reasons,
            latencies_ms: stats.latencies_ms,
            requests: stats.requests,
            health: stats.health.clone(),
        }
    }

    /// Why its lane holds, in words; none if it does not.
    #[must_use]
    pub fn hold(&self) -> Option<String> {
        let open = self.health.is_empty() || self.health == "open";
        (!open).then(|| words::health(&self.health))
    }

    /// The percentiles, as they are shown.
    #[must_use]
    pub fn latencies(&self) -> [String; 3] {
        if self.states.get(State::Delivered) == 0 {
            return ["–"; 3].map(str::to_owned);
        }
        self.latencies_ms.map(format::milliseconds)
    }
}

impl SourceRow {
    fn of(source: &Source, connections: &[Connection], stats: Option<&Stats>) -> Self {
        let by_destination = connections.iter().map(|connection| {
            let connection = stats?.connections.get(&connection.id)?;
            let mut states = StateCounts::default();
            for count in connection.counts.iter().filter(|count| count.source == source.id) {
                states.add(count.state, count.count);
            }
            Some(states)
        });
        Self {
            source_id: source.id,
            name: source.name.clone(),
            channel: source.channel.as_str(),
            place: source.default_place.clone(),
            enabled: source.enabled,
            dedup_by_order_id: source.dedup_by_order_id,
            max_events_per_second: source.max_events_per_second,
            accepted: stats.map(|stats| stats.accepted.get(&source.id).copied().unwrap_or(0)),
            by_destination: by_destination.collect(),
        }
    }

    /// What its channel is called.
    #[must_use]
    pub fn channel_label(&self) -> &str {
        words::channel(self.channel)
    }

    /// How much it may send, where it has a limit of its own.
    #[must_use]
    pub fn rate_text(&self) -> Option<String> {
        let rate = self.max_events_per_second.filter(|rate| *rate > 0)?;
        Some(format!("at most {} events/s", format::count(u64::from(rate))))
    }

    /// Accepted, as it is shown.
    #[must_use]
    pub fn accepted_text(&self) -> String {
        self.accepted.map_or_else(|| "–".to_owned(), format::count)
    }

    /// What its place means.
    #[must_use]
    pub fn place_label(&self) -> &str {
        words::place(&self.place)
    }
}

/// What a page says when delivery gave no answer.
#[must_use]
pub const fn explain(no_answer: NoAnswer) -> &'static str {
    match no_answer {
        NoAnswer::Away => {
            "Delivery cannot be reached at the moment, so there are no counts. Nothing is lost: events wait in the journal."
        }
        NoAnswer::Failed => "Delivery could not answer. Its log says why.",
    }
}

/// The connection's own `value_from`, if it says something else than the workspace: platforms that disagree about what a
/// purchase is worth are one of the reasons why numbers do not reconcile.
fn own_value_from(workspace: &Workspace, connection: &Connection) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(&connection.sealed_document).ok()?;
    let own: Vec<&str> = document.get("value_from")?.as_array()?.iter().filter_map(|v| v.as_str()).collect();
    (own != workspace.value_from).then(|| own.join(", then "))
}

fn as_word<S: serde::Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::delivery::StateCount;
    use super::*;

    fn stats(counts: &[(i64, State, &str, u64)], waiting: u64) -> ConnectionStats {
        ConnectionStats {
            counts: counts
                .iter()
                .map(|(source, state, reason, count)| StateCount {
                    source: SourceId(*source),
                    state: *state,
                    reason: (*reason).to_owned(),
                    count: *count,
                })
                .collect(),
            waiting,
            ..ConnectionStats::default()
        }
    }

    #[test]
    fn counts_of_all_sources_add_up_and_reasons_come_with_the_most_frequent_first() {
        let numbers = Numbers::of(&stats(
            &[
                (1, State::Delivered, "", 10),
                (2, State::Delivered, "", 5),
                (1, State::Blocked, "no_consent", 1),
                (1, State::Blocked, "gpc", 2),
                (2, State::Blocked, "gpc", 2),
                (2, State::Dead, "missing_value", 0),
            ],
            7,
        ));
        assert_eq!(numbers.states.get(State::Delivered), 15);
        assert_eq!(numbers.states.get(State::Blocked), 5);
        assert_eq!(numbers.states.get(State::Waiting), 7);
        assert_eq!(numbers.states.total(), 27);
        let reasons: Vec<_> = numbers.reasons.iter().map(|r| (r.reason.as_str(), r.count)).collect();
        assert_eq!(reasons, [("gpc", 4), ("no_consent", 1)]);
    }

    #[test]
    fn without_a_delivery_there_is_no_latency_to_show() {
        let mut quiet = stats(&[(1, State::Blocked, "gpc", 1)], 0);
        quiet.latencies_ms = [5, 6, 7];
        assert_eq!(Numbers::of(&quiet).latencies(), ["–", "–", "–"]);
        quiet.counts[0].state = State::Delivered;
        assert_eq!(Numbers::of(&quiet).latencies(), ["5 ms", "6 ms", "7 ms"]);
    }
}
