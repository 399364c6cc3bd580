//! What a file is called.

use sha2::{Digest as _, Sha256};
use tracklayer_ids::{ConnectionId, Position};

/// A file's name: who wrote which events of the journal. The same events have the same name, whoever writes them and when; others have
/// another one, also where they begin and end at the same two: events that are tried again come into files of their own, between the
/// first and the last of an earlier file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileName<'a> {
    /// Tells installations apart that write into one place.
    pub installation: &'a str,
    /// The connection.
    pub connection: ConnectionId,
    /// Its events, in order, all of one partition and generation.
    pub events: &'a [Position],
}

/// Bytes of the hash of the offsets that are in the name.
const MARK_BYTES: usize = 6;

impl std::fmt::Display for FileName<'_> {
    /// In order of the journal where it is sorted, for each partition.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nothing = Position::new(0, 0, 0);
        let (first, last) = (self.events.first().unwrap_or(&nothing), self.events.last().unwrap_or(&nothing));
        let mut hash = Sha256::new();
        self.events.iter().for_each(|event| hash.update(event.offset.0.to_be_bytes()));
        write!(
            f,
            "{}-c{}-p{:03}-g{:05}-{:016}-{:016}-{}.parquet",
            self.installation,
            self.connection.0,
            first.partition.0,
            first.generation.0,
            first.offset.0,
            last.offset.0,
            hex::encode(&hash.finalize()[..MARK_BYTES])
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(offsets: &[u64]) -> String {
        let events: Vec<Position> = offsets.iter().map(|offset| Position::new(2, 3, *offset)).collect();
        FileName { installation: "0a1b2c3d", connection: ConnectionId(7), events: &events }.to_string()
    }

    #[test]
    fn a_file_has_the_name_that_it_always_had() {
        assert_eq!(
            name(&[41, 42, 12_345]),
            "0a1b2c3d-c7-p003-g00002-0000000000000041-0000000000012345-eed96be3dc3c.parquet"
        );
    }

    #[test]
    fn other_events_between_the_same_two_are_another_file() {
        let names = [name(&[1, 9]), name(&[1, 2, 9]), name(&[1, 3, 9]), name(&[1, 2, 3, 9])];
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert_eq!(name(&[1, 2, 9]), names[1]);
    }
}
