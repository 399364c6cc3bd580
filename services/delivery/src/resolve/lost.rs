//! Passing a block that cannot be read and that an operator has given up: a lost event at each of its positions, by the fenced
//! commit that every range has.

use prost::Message as _;
use prost_types::Timestamp;
use tracklayer_ids::{Offset, Position, SourceId};
use tracklayer_journal::{Block, BlockBuilder, Condition, Damage, Place, Record, not_aside};
use tracklayer_proto::event::v1::ResolvedEvent;

use super::{FIRST_RECORD, ResolveError, Resolver, Stand, message_hash};
use crate::dedup::Memory;
use crate::lease::Lease;
use crate::store::StoreError;
use crate::store::resolved::{ResolvedCommit, Span};
use crate::store::twins::TwinRows;

/// The last minute that a time can be of, of the year 9999: a header that is rotten in part may say any other.
const LAST_MINUTE: i64 = 4_223_371_679;

impl Resolver {
    /// Passes the block in which the loop stands, if it cannot be read and was given up. `false`: it was not, or it can be read by
    /// now; nothing was done.
    ///
    /// # Errors
    /// See [`ResolveError`]; nothing was committed then.
    pub(super) async fn pass_lost(&self, lease: &Lease, stand: &mut Stand) -> Result<bool, ResolveError> {
        let workspace = lease.duty.workspace;
        let Some(place) = stand.at else { return Ok(false) };
        let Condition::Damaged(damage) = self.journal.look_at(workspace, place).await? else {
            return Ok(false);
        };
        let given_up = self.skips.find(workspace, damage.first).await?;
        if damage.is_newer() || given_up.is_none_or(|block| block.first != damage.first) {
            return Ok(false);
        }
        let snapshot = self.config.snapshot().ok_or(ResolveError::NoConfiguration)?;
        // Nothing is claimed. The commit names a generation all the same, and it has to be one whose claims are there.
        let none = self.dedup.claim(workspace, &[], &Memory::of_config(&snapshot)).await?;

        let lost = lost_events(&damage, place.at);
        let block = block_of(&lost)?;
        let commit = ResolvedCommit {
            first: place.at,
            block: &block,
            message_hashes: lost.iter().map(|event| message_hash(&event.message_id)).collect(),
            dedup_generation: none.generation,
            reused: Vec::new(),
            twins: TwinRows::new(),
        };
        let events = lost.len() as u64;
        let next = behind(&damage, place, events);
        let span = next.record.map(|to| Span { from: place.record.unwrap_or(FIRST_RECORD), to });
        not_aside(self.resolved.commit_span(lease, &commit, span)).await?;
        *stand = Stand { at: Some(next), alarms: std::mem::take(&mut stand.alarms), ..Stand::default() };
        self.progress.partition(workspace, place.at.partition).resolved_here(next.at);
        metrics::counter!("tracklayer_resolve_lost_events_total").increment(events);
        tracing::error!(
            workspace = workspace.0,
            first = %place.at,
            next = %next.at,
            events,
            why = %damage.why,
            "a block that cannot be read was skipped, as an operator has asked: its events are lost"
        );
        Ok(true)
    }
}

/// The block that stands in the place of a resolved one that cannot be read.
pub(crate) fn block_in_place_of(damage: &Damage) -> Result<Block, StoreError> {
    block_of(&lost_events(damage, damage.first))
}

fn block_of(lost: &[ResolvedEvent]) -> Result<Block, StoreError> {
    let mut builder = BlockBuilder::default();
    for event in lost {
        let minute = event.received_at.as_ref().map_or(0, |at| at.seconds.div_euclid(60));
        builder.push(SourceId(event.source_id), minute, &event.encode_to_vec());
    }
    builder.finish().map_err(|_| StoreError::Corrupt { what: "a block to be written" })
}

/// What stands at the positions of a block from one of them on: nothing but that it is lost, and whose it was where the header says so.
fn lost_events(damage: &Damage, from: Position) -> Vec<ResolvedEvent> {
    let before = from.offset.0.saturating_sub(damage.first.offset.0);
    let events = usize::try_from(damage.end().0.saturating_sub(from.offset.0)).unwrap_or(usize::MAX).max(1);
    let counts = damage.counts_behind(before);
    let whose =
        counts.iter().flat_map(|count| (0..count.count).map(move |_| (count.source_id, Some(count.minute))));
    let why = format!("its block cannot be read ({}), and an operator has skipped it", damage.why);
    let lost = |(source_id, minute): (i64, Option<i64>)| ResolvedEvent {
        poisoned: why.clone(),
        lost: true,
        source_id,
        received_at: minute
            .filter(|minute| (0..=LAST_MINUTE).contains(minute))
            .map(|minute| Timestamp { seconds: minute * 60, nanos: 0 }),
        ..ResolvedEvent::default()
    };
    whose.chain(std::iter::repeat((0, None))).take(events).map(lost).collect()
}

/// The place behind the block.
fn behind(damage: &Damage, place: Place, events: u64) -> Place {
    Place {
        at: Position { offset: Offset(place.at.offset.0 + events), ..place.at },
        record: damage.record.map(|record| Record {
            offset: record.offset + 1,
            step: 0,
            mark: Some(record.mark),
        }),
    }
}

#[cfg(test)]
mod tests {
    use tracklayer_journal::{BlockError, RecordAt, SourceMinuteCount};

    use super::*;

    fn damage(counts: &[(i64, i64, u32)]) -> Damage {
        let count = |(source_id, minute, count): &(i64, i64, u32)| SourceMinuteCount {
            source_id: *source_id,
            minute: *minute,
            count: *count,
        };
        Damage {
            first: Position::new(1, 0, 10),
            events: 4,
            is_counted: true,
            counts: counts.iter().map(count).collect(),
            record: Some(RecordAt { offset: 7, mark: -3 }),
            why: BlockError::Compression,
        }
    }

    fn whose(events: &[ResolvedEvent]) -> Vec<(i64, i64)> {
        assert!(events.iter().all(|event| event.lost && !event.poisoned.is_empty()), "{events:?}");
        let minute = |event: &ResolvedEvent| event.received_at.map_or(-1, |at| at.seconds / 60);
        events.iter().map(|event| (event.source_id, minute(event))).collect()
    }

    #[test]
    fn each_position_is_lost_and_the_sums_of_the_header_stay() {
        let known = damage(&[(1, 5, 3), (2, 6, 1)]);
        let from = |offset| whose(&lost_events(&known, Position::new(1, 0, offset)));
        assert_eq!(from(10), [(1, 5), (1, 5), (1, 5), (2, 6)]);
        assert_eq!(from(12), [(1, 5), (2, 6)], "what was resolved before it rotted is not lost");
        let rotten = damage(&[(1, i64::MAX, 4)]);
        assert_eq!(whose(&lost_events(&rotten, rotten.first)), [(1, -1); 4], "a time that there is not");
        let unknown = damage(&[]);
        assert_eq!(whose(&lost_events(&unknown, unknown.first)), [(0, -1); 4]);
    }

    #[test]
    fn in_a_log_of_records_it_goes_on_with_the_next_record() {
        let place = Place {
            at: Position::new(1, 0, 12),
            record: Some(Record { offset: 7, step: 2, mark: Some(-3) }),
        };
        let next = behind(&damage(&[]), place, 2);
        assert_eq!(next.at, Position::new(1, 0, 14));
        assert_eq!(next.record, Some(Record { offset: 8, step: 0, mark: Some(-3) }));
    }
}
