//! Sources whose message_ids do not tell their events apart. Such events count, each as one of its own; who sends them has to hear of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracklayer_ids::{SourceId, WorkspaceId};
use tracklayer_proto::control::v1::WorkspaceConfig;
use tracklayer_rpc::follow::Snapshot;

use super::{Examiner, Finding};
use crate::dedup::Reuse;
use crate::store::examine::Reused;

const CHECK: &str = "message-ids";
/// How far back is looked, hours.
const HOURS: i64 = 24;

impl Examiner {
    pub(super) async fn senders(&self, workspace: WorkspaceId, snapshot: &Snapshot) -> Vec<Finding> {
        let Some(config) = snapshot.workspaces.get(&workspace) else { return Vec::new() };
        let since = Timestamp::now().as_second().div_euclid(3_600) - HOURS;
        let findings = match self.store.reused_ids(workspace, since).await {
            Ok(reused) => reused_ids(config, &reused),
            Err(error) => vec![Finding::unseen(CHECK, &error)],
        };
        findings.into_iter().map(|finding| finding.of(workspace)).collect()
    }
}

/// What follows from message_ids that were used before, within a day: one finding for each source.
#[must_use]
pub fn reused_ids(config: &WorkspaceConfig, reused: &[Reused]) -> Vec<Finding> {
    if reused.is_empty() {
        return vec![Finding::ok(CHECK, "none was used for two events within a day")];
    }
    // For another event, for another order.
    let mut by_source: BTreeMap<SourceId, (u64, u64)> = BTreeMap::new();
    for of in reused {
        let (of_events, of_orders) = by_source.entry(of.source).or_default();
        match of.reuse {
            Reuse::OtherEvent => *of_events += of.events,
            Reuse::OtherOrder => *of_orders += of.events,
        }
    }
    let finding = |(source, (of_events, of_orders)): (SourceId, (u64, u64))| {
        let named = config.sources.iter().find(|known| known.source_id == source.0);
        let who = named.map_or_else(|| format!("source {source}"), |known| known.name.clone());
        let found = format!(
            "{who}: {} events within a day had a message_id that was used before, {of_events} of them for an event of another name, \
             {of_orders} for another order; each was kept and counts by itself",
            of_events + of_orders
        );
        if of_orders > 0 {
            return Finding::problem(
                CHECK,
                found,
                "most likely its message_id is a constant, a counter that begins anew, or the visitor's or the cart's id: give each order \
                 an id of its own (docs/dedup.md). What else it numbers so, and has no order, is lost as a repetition",
            );
        }
        Finding::warning(
            CHECK,
            found,
            "most likely its message_id is an order's or a row's number that other events have as well: put the event's name before it, \
             or let the SDK make it (docs/dedup.md)",
        )
    };
    by_source.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use tracklayer_proto::control::v1::SourceConfig;

    use super::super::Level;
    use super::*;

    #[test]
    fn each_source_whose_ids_were_used_before_is_told_and_one_of_two_orders_is_a_problem() {
        let source = SourceConfig { source_id: 1, name: "shop".to_owned(), ..SourceConfig::default() };
        let config = WorkspaceConfig { sources: vec![source], ..WorkspaceConfig::default() };
        assert_eq!(reused_ids(&config, &[])[0].level, Level::Ok);
        let of = |source, reuse, events| Reused { source: SourceId(source), reuse, events };
        let reused = [of(1, Reuse::OtherEvent, 3), of(1, Reuse::OtherOrder, 2), of(9, Reuse::OtherEvent, 4)];
        let told: Vec<_> =
            reused_ids(&config, &reused).into_iter().map(|finding| (finding.level, finding.found)).collect();
        let [(Level::Problem, shop), (Level::Warning, removed)] = &told[..] else { panic!("{told:?}") };
        assert!(shop.starts_with("shop: 5 events within a day") && shop.contains("3 of them"), "{shop}");
        assert!(shop.contains(" 2 for another order"), "{shop}");
        assert!(removed.starts_with("source 9: 4 events"), "{removed}");
    }
}
