//! What `tracklayer events show` tells of one message_id.

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

/// Every occurrence of a message_id, in the order of acceptance.
#[derive(Debug, Clone, Deserialize)]
pub struct Story {
    /// They.
    pub occurrences: Vec<Occurrence>,
}

/// One time that it was accepted.
#[derive(Debug, Clone, Deserialize)]
pub struct Occurrence {
    /// generation/partition/offset.
    pub position: String,
    /// Name of the source.
    pub source: String,
    /// The event as accepted.
    pub event: Value,
    /// Position of the first occurrence, where this is a duplicate of it.
    pub duplicate_of: Option<String>,
    /// The profile.
    pub canonical_key: String,
    /// Whether dedup, identity and consent are through with it.
    pub resolved: bool,
    /// What became of it, per connection.
    pub deliveries: Vec<Delivery>,
}

/// What became of an occurrence at one connection.
#[derive(Debug, Clone, Deserialize)]
pub struct Delivery {
    /// Name of the connection.
    pub connection: String,
    /// delivered, shadowed, duplicate, filtered, blocked, held, dead, waiting.
    pub state: String,
    /// Why, where it was not simply delivered.
    pub reason: String,
    /// What consent said.
    pub consent: String,
    /// Requests that carried it.
    pub attempts: u32,
    /// More for people.
    pub detail: String,
}

impl Story {
    pub(crate) fn parse(document: &Value) -> anyhow::Result<Self> {
        Self::deserialize(document).with_context(|| format!("not a story: {document:#}"))
    }

    /// Whether nothing of it is on its way: it was accepted, is resolved, and every connection has come to an end with it.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        let on_its_way = |delivery: &Delivery| matches!(delivery.state.as_str(), "waiting" | "held" | "");
        !self.occurrences.is_empty()
            && self.occurrences.iter().all(|occurrence| {
                let duplicate = occurrence.duplicate_of.is_some();
                occurrence.resolved
                    && (duplicate || !occurrence.deliveries.is_empty())
                    && !occurrence.deliveries.iter().any(on_its_way)
            })
    }

    /// The occurrence that is delivered: the only one that is no duplicate.
    ///
    /// # Panics
    /// There is none or more than one.
    #[must_use]
    pub fn first(&self) -> &Occurrence {
        let mut first = self.occurrences.iter().filter(|occurrence| occurrence.duplicate_of.is_none());
        match (first.next(), first.next()) {
            (Some(only), None) => only,
            _ => panic!("not exactly one first occurrence: {self:#?}"),
        }
    }

    /// The names of the sources that sent it.
    #[must_use]
    pub fn sources(&self) -> Vec<&str> {
        self.occurrences.iter().map(|occurrence| occurrence.source.as_str()).collect()
    }
}

impl Occurrence {
    /// What became of it at a connection.
    ///
    /// # Panics
    /// Nothing is known of that connection.
    #[must_use]
    pub fn at(&self, connection: &str) -> &Delivery {
        self.deliveries
            .iter()
            .find(|delivery| delivery.connection == connection)
            .unwrap_or_else(|| panic!("nothing at {connection}: {self:#?}"))
    }
}
