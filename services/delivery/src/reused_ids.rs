//! What is told of message_ids that are used for more than one event: counts that stay, metrics, and now and then a line in the log.
//!
//! Such events count, each as one of its own ([`crate::dedup`]); that the sender's numbering is broken is for people to hear of. What is told is
//! what was committed: a round that is repeated tells nothing twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracklayer_ids::{Offset, Position, SourceId, WorkspaceId};
use tracklayer_proto::event::v1::ResolvedEvent;

use crate::dedup::Reuse;
use crate::resolve::message_hash;

const REUSED: &str = "tracklayer_dedup_id_reused_total";
const OF_TWO_ORDERS: &str = "tracklayer_dedup_ids_of_two_orders_total";
/// A resolve loop writes a line for a source and a cause at most this often.
const PAUSE: Duration = Duration::from_secs(60);

/// Events of a source that count though their message_id was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReusedIds {
    /// Of their receipt, hours since the Unix epoch.
    pub hour: i64,
    /// Whose.
    pub source: SourceId,
    /// For what the ids were used before.
    pub reuse: Reuse,
    /// How many.
    pub events: u64,
}

/// How many of these events are such, by hour, source and cause. `reuses`: beside each event what was found of its message_id.
#[must_use]
pub fn count(events: &[ResolvedEvent], reuses: &[Option<Reuse>]) -> Vec<ReusedIds> {
    let mut counts: BTreeMap<(i64, i64, Reuse), u64> = BTreeMap::new();
    for (event, reuse) in events.iter().zip(reuses) {
        let Some(reuse) = *reuse else { continue };
        let hour = event.received_at.as_ref().map_or(0, |at| at.seconds.div_euclid(3_600));
        *counts.entry((hour, event.source_id, reuse)).or_default() += 1;
    }
    let counted =
        |((hour, source, reuse), events)| ReusedIds { hour, source: SourceId(source), reuse, events };
    counts.into_iter().map(counted).collect()
}

/// Describes the metrics.
pub fn describe() {
    metrics::describe_counter!(
        REUSED,
        "events that count though their message_id was used before for another event or another order, by workspace and source; as many \
         series as sources that send such. The sender has to give each event an id of its own"
    );
    metrics::describe_counter!(
        OF_TWO_ORDERS,
        "those of tracklayer_dedup_id_reused_total whose message_id was another order's (sources with dedup_by_order_id), by workspace and \
         source. What else the sender numbers so, and has no order, is lost as a repetition"
    );
}

/// What a resolve loop has told, and has not told yet.
#[derive(Debug, Default)]
pub struct Alarms {
    by_cause: BTreeMap<(SourceId, Reuse), Alarm>,
}

/// Of one source and cause.
#[derive(Debug, Default)]
struct Alarm {
    told_at: Option<Instant>,
    /// Events since.
    untold: u64,
}

impl Alarm {
    /// Of how many events a line is to be written now; none: one was written just before.
    fn due(&mut self, events: u64, now: Instant) -> Option<u64> {
        self.untold += events;
        if self.told_at.is_some_and(|told_at| now.saturating_duration_since(told_at) < PAUSE) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Alarms {
    /// Tells of the events that were committed from a position on.
    pub fn tell(
        &mut self,
        workspace: WorkspaceId,
        first: Position,
        events: &[ResolvedEvent],
        reuses: &[Option<Reuse>],
    ) {
        // One of each source and cause, and how many there are.
        let mut found: BTreeMap<(SourceId, Reuse), (Position, &str, u64)> = BTreeMap::new();
        for ((event, reuse), offset) in events.iter().zip(reuses).zip(first.offset.0..) {
            let Some(reuse) = *reuse else { continue };
            let position = Position { offset: Offset(offset), ..first };
            let of_cause = found.entry((SourceId(event.source_id), reuse)).or_insert((
                position,
                event.message_id.as_str(),
                0,
            ));
            of_cause.2 += 1;
        }
        for ((source, reuse), (position, message_id, events)) in found {
            let of = [("workspace", workspace.0.to_string()), ("source", source.0.to_string())];
            metrics::counter!(REUSED, &of).increment(events);
            if reuse == Reuse::OtherOrder {
                metrics::counter!(OF_TWO_ORDERS, &of).increment(events);
            }
            let alarm = self.by_cause.entry((source, reuse)).or_default();
            let Some(events) = alarm.due(events, Instant::now()) else { continue };
            tracing::warn!(
                workspace = workspace.0,
                source = source.0,
                used_before_for = reuse.as_str(),
                events,
                position = %position,
                message_hash = %format!("{:016x}", message_hash(message_id)),
                "message_ids are used for more than one event: all of these count, but the sender must give each its own"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn what_is_reused_is_counted_by_hour_source_and_cause() {
        let event = |seconds, source_id| ResolvedEvent {
            received_at: Some(Timestamp { seconds, nanos: 0 }),
            source_id,
            ..ResolvedEvent::default()
        };
        let (event_of, order_of) = (Some(Reuse::OtherEvent), Some(Reuse::OtherOrder));
        let events = [event(3_599, 1), event(0, 1), event(3_600, 1), event(0, 2), event(1, 1), event(2, 1)];
        let reuses = [event_of, event_of, event_of, order_of, order_of, None];
        let told: Vec<_> = count(&events, &reuses)
            .into_iter()
            .map(|counted| (counted.hour, counted.source.0, counted.reuse, counted.events))
            .collect();
        use Reuse::{OtherEvent, OtherOrder};
        assert_eq!(
            told,
            [(0, 1, OtherEvent, 2), (0, 1, OtherOrder, 1), (0, 2, OtherOrder, 1), (1, 1, OtherEvent, 1)]
        );
        assert_eq!(count(&events, &[None; 6]), []);
    }

    #[test]
    fn a_line_is_written_once_a_minute_and_tells_of_all_since_the_one_before() {
        let begin = Instant::now();
        let mut alarm = Alarm::default();
        let told: Vec<_> = [0, 1, 59, 60, 61, 120]
            .into_iter()
            .map(|seconds| alarm.due(10, begin + Duration::from_secs(seconds)))
            .collect();
        assert_eq!(told, [Some(10), None, None, Some(30), None, Some(20)]);
    }
}
