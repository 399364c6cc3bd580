//! What is found of a block that is looked at to its last byte, for whoever decides about one that cannot be read.

use tracklayer_ids::{Offset, Position};

use crate::block::{BlockHeader, SourceMinuteCount};
use crate::error::BlockError;
use crate::journal::RecordAt;
use crate::postgres::MAX_BLOCK_EVENTS;

/// What is found where a block should stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// No block, or none yet.
    Absent,
    /// A block of which everything can be read.
    Whole {
        /// Its first event.
        first: Position,
        /// How many it holds.
        events: u32,
    },
    /// A block that cannot be read.
    Damaged(Damage),
}

/// A block that cannot be read, and what is known of it all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its first event.
    pub first: Position,
    /// How many it takes positions for, at least one.
    pub events: u32,
    /// Whether that is how many were written into it. If not, nobody knows that any more: it takes one position, or one more than a
    /// reader has read of it.
    pub is_counted: bool,
    /// How many are of which source and minute, in the order of the header; empty where that does not say it.
    pub counts: Vec<SourceMinuteCount>,
    /// Where it stands in a log of records; none if the journal needs none.
    pub record: Option<RecordAt>,
    /// Why it cannot be read.
    pub why: BlockError,
}

impl Condition {
    /// Of stored bytes. `events` is how many positions are known to be the block's; none: only its header says it.
    #[must_use]
    pub fn of(
        first: Position,
        events: Option<u32>,
        header: Result<BlockHeader, BlockError>,
        payload: &[u8],
        record: Option<RecordAt>,
    ) -> Self {
        let (header, why) = match header {
            Err(why) => (None, why),
            // Nobody writes one without events, and nobody could stand behind it.
            Ok(header) if header.event_count == 0 => (None, BlockError::Header),
            Ok(header) => match header.events(payload) {
                Ok(_) => return Self::Whole { first, events: events.unwrap_or(header.event_count) },
                Err(why) => (Some(header), why),
            },
        };
        let header = header.filter(adds_up);
        let events = events.or_else(|| header.as_ref().map(|header| header.event_count));
        let header = header.filter(|header| Some(header.event_count) == events);
        Self::Damaged(Damage {
            first,
            events: events.unwrap_or(1),
            is_counted: events.is_some(),
            counts: header.map(|header| header.counts).unwrap_or_default(),
            record,
            why,
        })
    }
}

/// Whether what a header says of its events can be true: it is a header that the payload does not fit, and a flipped bit may be in
/// either.
fn adds_up(header: &BlockHeader) -> bool {
    let counted: u64 = header.counts.iter().map(|count| u64::from(count.count)).sum();
    counted == u64::from(header.event_count) && i64::from(header.event_count) <= MAX_BLOCK_EVENTS
}

impl Damage {
    /// The offset after its last event.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.first.offset.0 + u64::from(self.events))
    }

    /// Whether it is not damaged at all, as far as anybody can tell: a newer version wrote it, and reads it.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(self.why, BlockError::FeatureLevel { .. })
    }

    /// The counts without those of its first events. Whose these are is not said: those of the first counts.
    #[must_use]
    pub fn counts_behind(&self, events: u64) -> Vec<SourceMinuteCount> {
        let mut behind = events;
        let mut left = Vec::new();
        for count in &self.counts {
            let passed = u32::try_from(behind).unwrap_or(u32::MAX).min(count.count);
            behind -= u64::from(passed);
            if count.count > passed {
                left.push(SourceMinuteCount { count: count.count - passed, ..*count });
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::SourceId;

    use super::*;
    use crate::block::{Block, BlockBuilder};

    const FIRST: u64 = 10;

    fn block() -> Block {
        let mut builder = BlockBuilder::default();
        for (source, minute) in [(1, 5), (1, 5), (2, 5), (1, 6)] {
            builder.push(SourceId(source), minute, b"event");
        }
        builder.finish().unwrap()
    }

    fn condition(events: Option<u32>, header: &[u8], payload: &[u8]) -> Condition {
        Condition::of(Position::new(1, 0, FIRST), events, BlockHeader::read(header), payload, None)
    }

    fn damage(events: Option<u32>, header: &[u8], payload: &[u8]) -> Damage {
        match condition(events, header, payload) {
            Condition::Damaged(damage) => damage,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_block_that_can_be_read_is_whole() {
        let block = block();
        let whole = Condition::Whole { first: Position::new(1, 0, FIRST), events: 4 };
        assert_eq!(condition(Some(4), &block.header_bytes, &block.payload), whole);
        assert_eq!(condition(None, &block.header_bytes, &block.payload), whole);
    }

    #[test]
    fn of_a_rotten_payload_the_header_tells_whose_events_are_lost() {
        let mut block = block();
        block.payload[3] ^= 1;
        for known in [Some(4), None] {
            let damage = damage(known, &block.header_bytes, &block.payload);
            assert_eq!((damage.events, damage.is_counted, damage.end().0), (4, true, FIRST + 4));
            assert_eq!(damage.counts, block.header.counts);
            assert!(matches!(damage.why, BlockError::Checksum { .. }) && !damage.is_newer());
        }
    }

    #[test]
    fn of_a_rotten_header_only_a_row_tells_how_many_are_lost() {
        let block = block();
        let of_row = damage(Some(4), b"\xff", &block.payload);
        assert_eq!((of_row.events, of_row.is_counted, of_row.counts.len()), (4, true, 0));
        let of_nobody = damage(None, b"\xff", &block.payload);
        assert_eq!((of_nobody.events, of_nobody.is_counted), (1, false));
    }

    #[test]
    fn a_header_that_does_not_add_up_is_not_believed() {
        let block = block();
        let wrong = BlockHeader { event_count: 4_000_000_000, ..block.header.clone() };
        let wrong = prost::Message::encode_to_vec(&wrong);
        let damage = damage(None, &wrong, &block.payload);
        assert_eq!((damage.events, damage.is_counted, damage.counts.len()), (1, false, 0));
        let none = BlockHeader { event_count: 0, ..block.header };
        let none = prost::Message::encode_to_vec(&none);
        assert!(matches!(condition(None, &none, &block.payload), Condition::Damaged(_)));
    }

    #[test]
    fn what_a_newer_version_wrote_is_told_from_what_is_rotten() {
        let newer = BlockHeader { feature_level: crate::FEATURE_LEVEL + 1, ..block().header };
        assert!(damage(Some(4), &prost::Message::encode_to_vec(&newer), &block().payload).is_newer());
    }

    #[test]
    fn what_was_read_of_a_block_before_is_not_counted_again() {
        let mut block = block();
        block.payload[3] ^= 1;
        let damage = damage(Some(4), &block.header_bytes, &block.payload);
        let left = |events| -> Vec<(i64, i64, u32)> {
            let counts = damage.counts_behind(events);
            counts.iter().map(|count| (count.source_id, count.minute, count.count)).collect()
        };
        assert_eq!(left(0), [(1, 5, 2), (2, 5, 1), (1, 6, 1)]);
        assert_eq!(left(1), [(1, 5, 1), (2, 5, 1), (1, 6, 1)]);
        assert_eq!(left(3), [(1, 6, 1)]);
        assert_eq!(left(9), []);
    }
}
