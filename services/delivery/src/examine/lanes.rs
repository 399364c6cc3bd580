//! The lanes and sources of a workspace: leases that nobody holds, who is behind, who holds and why, who is silent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tracklayer_ids::{ConnectionId, Partition, WorkspaceId};
use tracklayer_proto::control::v1::WorkspaceConfig;
use tracklayer_rpc::follow::Snapshot;

use super::{Examiner, Finding};
use crate::holds;
use crate::inspection::Lag;
use crate::lease::Duty;
use crate::progress::width;
use crate::store::StoreError;
use crate::store::examine::Hold;

/// From here on somebody is behind, seconds.
const BEHIND: u64 = 300;
/// From here on somebody is far behind, or has held for long, seconds.
const FAR_BEHIND: u64 = 3_600;
/// Without an event for so long a source is silent, minutes.
const SILENT: i64 = 24 * 60;
/// Most of a kind that are named; the rest is counted.
const NAMED: usize = 5;

impl Examiner {
    pub(super) async fn lanes(&self, workspace: WorkspaceId, snapshot: &Snapshot) -> Vec<Finding> {
        let Some(config) = snapshot.workspaces.get(&workspace) else { return Vec::new() };
        let now = Timestamp::now();
        let ids = config.connections.iter().map(|connection| ConnectionId(connection.connection_id));
        let on_hold: BTreeMap<ConnectionId, holds::Hold> =
            ids.filter_map(|id| Some((id, self.holds.of(workspace, id).at(now)?))).collect();
        let mut findings = vec![match width(self.journal.as_ref(), workspace, config.partitions).await {
            Ok(width) => self
                .leases(workspace, config, width)
                .await
                .unwrap_or_else(|error| Finding::unseen("leases", &error)),
            Err(error) => Finding::unseen("leases", &error),
        }];
        findings.push(match self.inspection.lags(workspace).await {
            Ok(mut lags) => {
                // Who is held is behind by an operator's will.
                lags.retain(|lag| !on_hold.contains_key(&lag.duty.connection));
                backlog(config, &lags)
            }
            Err(error) => Finding::unseen("backlog", &error),
        });
        findings.extend(held_by_operators(config, &on_hold));
        match self.store.holds(workspace).await {
            Ok(mut holding) => {
                // Nobody waits for the lane of a connection that was removed.
                holding.retain(|hold| {
                    is_configured(config, hold.connection) && !on_hold.contains_key(&hold.connection)
                });
                findings.extend(holds(config, &holding));
            }
            Err(error) => findings.push(Finding::unseen("lanes", &error)),
        }
        findings.push(
            self.sources(workspace, config).await.unwrap_or_else(|error| Finding::unseen("sources", &error)),
        );
        findings.into_iter().map(|finding| finding.of(workspace)).collect()
    }

    async fn leases(
        &self,
        workspace: WorkspaceId,
        config: &WorkspaceConfig,
        width: u32,
    ) -> Result<Finding, StoreError> {
        let mut duties = Vec::new();
        for partition in (0..width).map(Partition) {
            duties.push(Duty::resolve(workspace, partition));
            let ids = config.connections.iter().map(|connection| ConnectionId(connection.connection_id));
            duties.extend(ids.map(|connection| Duty { workspace, connection, partition }));
        }
        let unheld = self.store.unheld(&duties).await?;
        Ok(leases(config, duties.len(), &unheld))
    }

    async fn sources(&self, workspace: WorkspaceId, config: &WorkspaceConfig) -> Result<Finding, StoreError> {
        let minute = Timestamp::now().as_second().div_euclid(60);
        let events = self.store.events_of_sources(minute - SILENT, minute + 1).await?;
        let heard = events.iter().filter(|of| of.workspace == workspace).map(|of| of.source.0).collect();
        Ok(sources(config, &heard))
    }
}

fn is_configured(config: &WorkspaceConfig, connection: ConnectionId) -> bool {
    config.connections.iter().any(|known| known.connection_id == connection.0)
}

/// What somebody is called whose cursor or lease it is.
fn reader(config: &WorkspaceConfig, connection: ConnectionId) -> String {
    if connection.0 == 0 {
        return "resolve".to_owned();
    }
    let named = config.connections.iter().find(|known| known.connection_id == connection.0);
    named.map_or_else(|| format!("connection {connection}"), |named| named.name.clone())
}

/// The first few, and how many more there are.
fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named: Vec<String> = names.take(NAMED).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// What follows from leases that nobody holds.
#[must_use]
pub fn leases(config: &WorkspaceConfig, wanted: usize, unheld: &[Duty]) -> Finding {
    const CHECK: &str = "leases";
    if unheld.is_empty() {
        return Finding::ok(CHECK, format!("all {wanted} are held"));
    }
    let named =
        |duty: &Duty| format!("{} of partition {}", reader(config, duty.connection), duty.partition.0);
    Finding::problem(
        CHECK,
        format!("{} of {wanted} are held by nobody: {}", unheld.len(), some(unheld.iter().map(named))),
        "a lease is taken within `lease_ms`: look again, then see delivery's log for why none takes it",
    )
}

/// What follows from how far the cursors are behind; those of connections that were removed are nobody's business.
#[must_use]
pub fn backlog(config: &WorkspaceConfig, lags: &[Lag]) -> Finding {
    const CHECK: &str = "backlog";
    let is_known = |lag: &&Lag| {
        let mut known = config.connections.iter().map(|connection| connection.connection_id);
        lag.duty.is_resolve() || known.any(|id| id == lag.duty.connection.0)
    };
    let mut behind: Vec<&Lag> =
        lags.iter().filter(is_known).filter(|lag| lag.behind.seconds >= BEHIND).collect();
    behind.sort_by_key(|lag| std::cmp::Reverse(lag.behind.seconds));
    let Some(furthest) = behind.first() else {
        return Finding::ok(CHECK, format!("nobody is {} minutes behind", BEHIND / 60));
    };
    let named = |lag: &&Lag| {
        let (who, partition) = (reader(config, lag.duty.connection), lag.duty.partition.0);
        format!("{who} of partition {partition} by {} s ({} events)", lag.behind.seconds, lag.behind.events)
    };
    let found = format!("behind: {}", some(behind.iter().map(named)));
    let advice = "see why it holds, or whether it gets through less than comes in: `tracklayer journal lag`";
    if furthest.behind.seconds >= FAR_BEHIND {
        Finding::problem(CHECK, found, advice)
    } else {
        Finding::warning(CHECK, found, advice)
    }
}

/// What follows from connections that operators hold. A freeze ends by itself, a pause has to be thought of.
#[must_use]
pub fn held_by_operators(
    config: &WorkspaceConfig,
    on_hold: &BTreeMap<ConnectionId, holds::Hold>,
) -> Vec<Finding> {
    const CHECK: &str = "holds";
    if on_hold.is_empty() {
        return vec![Finding::ok(CHECK, "no connection is paused or frozen")];
    }
    let finding = |(connection, hold): (&ConnectionId, &holds::Hold)| {
        let found = format!("{}: {}, {}", reader(config, *connection), hold.kind(), hold.detail());
        match hold {
            holds::Hold::Frozen { until: Some(_), .. } => Finding::ok(CHECK, found),
            holds::Hold::Frozen { until: None, .. } => Finding::problem(
                CHECK,
                found,
                "remove that window (`tracklayer connections freeze remove`), or upgrade",
            ),
            holds::Hold::Paused { .. } => Finding::warning(
                CHECK,
                found,
                "what it holds keeps the journal's days and grows old: see `tracklayer connections held`, and resume it",
            ),
        }
    };
    on_hold.iter().map(finding).collect()
}

/// What follows from lanes that hold.
#[must_use]
pub fn holds(config: &WorkspaceConfig, holding: &[Hold]) -> Vec<Finding> {
    const CHECK: &str = "lanes";
    if holding.is_empty() {
        return vec![Finding::ok(CHECK, "none holds")];
    }
    let finding = |hold: &Hold| {
        let who = reader(config, hold.connection);
        let found = format!("{who}: {} lanes hold, for {} s: {}", hold.lanes, hold.seconds, hold.why);
        if hold.why.starts_with(holds::RELEASING) {
            return Finding::ok(CHECK, format!("{who}: {} lanes are {}", hold.lanes, hold.why));
        }
        let advice = "nothing is lost: events wait until the cause is gone";
        if hold.seconds >= FAR_BEHIND {
            Finding::problem(CHECK, found, advice)
        } else {
            Finding::warning(CHECK, found, advice)
        }
    };
    holding.iter().map(finding).collect()
}

/// What follows from which sources had an event within a day.
#[must_use]
pub fn sources(config: &WorkspaceConfig, heard: &BTreeSet<i64>) -> Finding {
    const CHECK: &str = "sources";
    let enabled = config.sources.iter().filter(|source| source.enabled);
    let silent: Vec<_> = enabled.clone().filter(|source| !heard.contains(&source.source_id)).collect();
    if silent.is_empty() {
        return Finding::ok(CHECK, format!("all {} had an event within a day", enabled.count()));
    }
    Finding::warning(
        CHECK,
        format!("no event within a day: {}", some(silent.iter().map(|source| source.name.clone()))),
        "see whether it still sends; a source that was just made, or sends less than daily, needs nothing",
    )
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::Position;
    use tracklayer_journal::inspect::Behind;
    use tracklayer_proto::control::v1::{ConnectionConfig, SourceConfig};

    use super::super::Level;
    use super::*;

    fn config() -> WorkspaceConfig {
        let source = |id: i64, name: &str, enabled| SourceConfig {
            source_id: id,
            name: name.to_owned(),
            enabled,
            ..SourceConfig::default()
        };
        WorkspaceConfig {
            connections: vec![ConnectionConfig {
                connection_id: 7,
                name: "meta".to_owned(),
                ..ConnectionConfig::default()
            }],
            sources: vec![source(1, "shop", true), source(2, "app", true), source(3, "old", false)],
            ..WorkspaceConfig::default()
        }
    }

    fn duty(connection: i64, partition: u32) -> Duty {
        let (workspace, connection) = (WorkspaceId(1), ConnectionId(connection));
        Duty { workspace, connection, partition: Partition(partition) }
    }

    fn lag(connection: i64, seconds: u64) -> Lag {
        let behind = Behind { events: 10, seconds };
        Lag { duty: duty(connection, 0), next: Position::new(1, 0, 0), behind }
    }

    #[test]
    fn leases_that_nobody_holds_are_named_up_to_a_few() {
        assert_eq!(leases(&config(), 8, &[]).level, Level::Ok);
        let unheld: Vec<Duty> = (0..4).flat_map(|p| [duty(0, p), duty(7, p)]).collect();
        let found = leases(&config(), 8, &unheld);
        assert_eq!(found.level, Level::Problem);
        assert!(
            found
                .found
                .starts_with("8 of 8 are held by nobody: resolve of partition 0, meta of partition 0,")
        );
        assert!(found.found.ends_with(" and 3 more"), "{}", found.found);
    }

    #[test]
    fn who_is_behind_is_named_the_furthest_first_and_removed_connections_are_not() {
        let level = |lags: &[Lag]| backlog(&config(), lags).level;
        assert_eq!(level(&[lag(0, 0), lag(7, 299), lag(9, 99_999)]), Level::Ok);
        assert_eq!(level(&[lag(7, 300)]), Level::Warning);
        let far = backlog(&config(), &[lag(0, 400), lag(7, 3_600)]);
        assert_eq!(far.level, Level::Problem);
        assert!(
            far.found.starts_with("behind: meta of partition 0 by 3600 s (10 events), resolve"),
            "{far:?}"
        );
    }

    #[test]
    fn a_hold_is_told_with_its_reason_and_is_a_problem_after_an_hour() {
        let hold = |seconds| Hold {
            connection: ConnectionId(7),
            lanes: 2,
            why: "auth: the token is expired".to_owned(),
            seconds,
        };
        assert_eq!(holds(&config(), &[])[0].level, Level::Ok);
        let found = holds(&config(), &[hold(60)]).remove(0);
        assert_eq!(
            (found.level, found.found.as_str()),
            (Level::Warning, "meta: 2 lanes hold, for 60 s: auth: the token is expired")
        );
        assert_eq!(holds(&config(), &[hold(3_600)])[0].level, Level::Problem);
    }

    #[test]
    fn a_pause_is_a_warning_and_a_freeze_that_ends_is_none() {
        let level = |hold| held_by_operators(&config(), &[(ConnectionId(7), hold)].into()).remove(0);
        assert_eq!(held_by_operators(&config(), &BTreeMap::new())[0].level, Level::Ok);
        let paused =
            level(holds::Hold::Paused { since: None, by: "ann".to_owned(), reason: "audit".to_owned() });
        assert_eq!(
            (paused.level, paused.found.as_str()),
            (Level::Warning, "meta: paused, by operator `ann`: audit")
        );
        let until = Some("2026-11-28T00:00:00Z".parse().unwrap());
        assert_eq!(level(holds::Hold::Frozen { until, reasons: vec![] }).level, Level::Ok);
        assert_eq!(level(holds::Hold::Frozen { until: None, reasons: vec![] }).level, Level::Problem);
    }

    #[test]
    fn a_source_that_is_on_and_silent_is_named() {
        assert_eq!(sources(&config(), &[1, 2].into()).level, Level::Ok);
        let found = sources(&config(), &[2].into());
        assert_eq!((found.level, found.found.as_str()), (Level::Warning, "no event within a day: shop"));
    }
}
