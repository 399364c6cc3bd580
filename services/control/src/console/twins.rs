//! Sources that send the same events: who comes first, and what only one of the two has seen.

use std::collections::BTreeMap;

use serde::Serialize;
use tracklayer_ids::SourceId;

use super::delivery::Twins;
use super::format;
use crate::source::Source;

/// Two sources, the one with the lower number first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TwinRow {
    /// One's name.
    pub a: String,
    /// The other's.
    pub b: String,
    /// Events of both that came from one first.
    pub a_first: u64,
    /// And from the other.
    pub b_first: u64,
    /// Events that only one of the two has sent.
    pub a_without_b: u64,
    /// And only the other.
    pub b_without_a: u64,
}

impl TwinRow {
    /// A row for each pair that sent the same events, by the sources' numbers.
    #[must_use]
    pub fn all(sources: &[Source], twins: &Twins) -> Vec<Self> {
        let mut pairs: BTreeMap<(SourceId, SourceId), (u64, u64)> = BTreeMap::new();
        for (first, second, events) in &twins.pairs {
            let counts = pairs.entry(((*first).min(*second), (*first).max(*second))).or_default();
            let count = if first < second { &mut counts.0 } else { &mut counts.1 };
            *count += *events;
        }
        let name = |id: SourceId| {
            let source = sources.iter().find(|source| source.id == id);
            source.map_or_else(|| id.0.to_string(), |source| source.name.clone())
        };
        let without =
            |id: SourceId, both: u64| twins.events.get(&id).copied().unwrap_or(0).saturating_sub(both);
        pairs
            .into_iter()
            .map(|((a, b), (a_first, b_first))| Self {
                a: name(a),
                b: name(b),
                a_first,
                b_first,
                a_without_b: without(a, a_first + b_first),
                b_without_a: without(b, a_first + b_first),
            })
            .collect()
    }

    /// Events that both have sent.
    #[must_use]
    pub const fn both(&self) -> u64 {
        self.a_first + self.b_first
    }

    /// Who came first, and how often.
    #[must_use]
    pub fn first_text(&self) -> String {
        let (a, b) = (format::count(self.a_first), format::count(self.b_first));
        format!("{} {a}, {} {b}", self.a, self.b)
    }

    /// Both, as it is shown.
    #[must_use]
    pub fn both_text(&self) -> String {
        format::count(self.both())
    }

    /// What only one of the two has sent, and which part of its events that is: for the one, then for the other.
    #[must_use]
    pub fn alone_texts(&self) -> [String; 2] {
        let text =
            |alone: u64| format!("{} ({})", format::count(alone), format::share(alone, alone + self.both()));
        [text(self.a_without_b), text(self.b_without_a)]
    }
}
