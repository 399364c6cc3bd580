//! `tracklayer stats`: live counts per source and connection.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tracklayer_proto::delivery::v1::{GetStatsRequest, GetStatsResponse};

use super::Access;
use super::names::Names;
use super::output::{Output, table};

/// The counts of a workspace with their names.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Accepted per source.
    pub accepted: BTreeMap<String, u64>,
    /// Per connection: state and reason → events.
    pub connections: BTreeMap<String, ConnectionCounts>,
}

/// One connection's.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCounts {
    /// Events per state and reason.
    pub states: BTreeMap<(String, String), u64>,
    /// Receipt to delivery, milliseconds: p50, p95, p99.
    pub latency_ms: [u32; 3],
    /// Requests.
    pub requests: u64,
    /// Beyond the cursor.
    pub waiting: u64,
    /// open, or why it holds.
    pub health: String,
}

impl ConnectionCounts {
    /// Events in a state, whatever the reason.
    #[must_use]
    pub fn in_state(&self, state: &str) -> u64 {
        self.states.iter().filter(|((s, _), _)| s == state).map(|(_, n)| n).sum()
    }
}

impl Counts {
    /// Reads them.
    ///
    /// # Errors
    /// What the services answered.
    pub async fn read(access: &Access, workspace_id: i64) -> anyhow::Result<Self> {
        let names = Names::read(access, workspace_id).await?;
        let stats = access.delivery()?.get_stats(GetStatsRequest { workspace_id }).await?.into_inner();
        Ok(Self::from_answer(&stats, &names))
    }

    fn from_answer(stats: &GetStatsResponse, names: &Names) -> Self {
        let mut counts = Self::default();
        for source in &stats.sources {
            counts.accepted.insert(names.source(source.source_id), source.accepted);
        }
        for connection in &stats.connections {
            let entry = counts.connections.entry(names.connection(connection.connection_id)).or_default();
            for count in &connection.counts {
                *entry.states.entry((count.state.clone(), count.reason.clone())).or_default() += count.count;
            }
            entry.latency_ms = [connection.p50_ms, connection.p95_ms, connection.p99_ms];
            entry.requests = connection.requests;
            entry.waiting = connection.waiting;
            entry.health.clone_from(&connection.health);
        }
        counts
    }

    /// Accepted over all sources.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.accepted.values().sum()
    }

    /// Whether nothing is on its way: nothing waits and nothing is held.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.connections.values().all(|c| c.waiting == 0 && c.in_state("held") == 0)
    }

    /// As tables.
    #[must_use]
    pub fn tables(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.accepted.iter().map(|(s, n)| vec![s.clone(), n.to_string()]).collect();
        let mut text = table(&["source", "accepted"], &rows);
        text.push('\n');
        let states = ["delivered", "shadowed", "duplicate", "filtered", "blocked", "held", "dead"];
        let rows: Vec<Vec<String>> = self
            .connections
            .iter()
            .map(|(name, c)| {
                let mut row = vec![name.clone()];
                row.extend(states.iter().map(|state| c.in_state(state).to_string()));
                row.push(c.waiting.to_string());
                row.push(c.requests.to_string());
                row.extend(c.latency_ms.iter().map(ToString::to_string));
                row.push(c.health.clone());
                row
            })
            .collect();
        let mut head = vec!["connection"];
        head.extend(states);
        head.extend(["waiting", "requests", "p50 ms", "p95 ms", "p99 ms", "health"]);
        text.push_str(&table(&head, &rows));
        let reasons: Vec<Vec<String>> = self
            .connections
            .iter()
            .flat_map(|(name, c)| {
                c.states.iter().filter(|((_, reason), _)| !reason.is_empty()).map(
                    move |((state, reason), n)| {
                        vec![name.clone(), state.clone(), reason.clone(), n.to_string()]
                    },
                )
            })
            .collect();
        if !reasons.is_empty() {
            text.push('\n');
            text.push_str(&table(&["connection", "state", "why", "events"], &reasons));
        }
        text
    }

    /// As JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        let connections: BTreeMap<&String, Value> = self
            .connections
            .iter()
            .map(|(name, c)| {
                let states: Vec<Value> = c
                    .states
                    .iter()
                    .map(|((state, reason), n)| json!({ "state": state, "reason": reason, "events": n }))
                    .collect();
                let value = json!({
                    "states": states, "waiting": c.waiting, "requests": c.requests, "health": c.health,
                    "latency_ms": { "p50": c.latency_ms[0], "p95": c.latency_ms[1], "p99": c.latency_ms[2] },
                });
                (name, value)
            })
            .collect();
        json!({ "accepted": self.accepted, "connections": connections })
    }
}

/// Runs `tracklayer stats`.
///
/// # Errors
/// What the services answered.
pub async fn run(access: &Access) -> anyhow::Result<()> {
    let workspace = access.workspace().await?;
    let counts = Counts::read(access, workspace.workspace_id).await?;
    match access.output {
        Output::Json => println!("{:#}", counts.document()),
        Output::Table => print!("{}", counts.tables()),
    }
    Ok(())
}
