//! What a file is called.

use tracklayer_ids::{ConnectionId, Position};

/// A file's name: who wrote which stretch of the journal. No event has a place in two files of one folder, so that no two files
/// have one name but where they hold the same events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileName<'a> {
    /// Tells installations apart that write into one place.
    pub installation: &'a str,
    /// The connection.
    pub connection: ConnectionId,
    /// The earliest of its events, which other folders may share stretches with.
    pub first: Position,
    /// The latest of its events.
    pub last: Position,
}

impl std::fmt::Display for FileName<'_> {
    /// In order of the journal where it is sorted, for each partition.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}-c{}-p{:03}-g{:05}-{:016}-{:016}.parquet",
            self.installation,
            self.connection.0,
            self.first.partition.0,
            self.first.generation.0,
            self.first.offset.0,
            self.last.offset.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_name_that_it_always_had() {
        let name = FileName {
            installation: "0a1b2c3d",
            connection: ConnectionId(7),
            first: Position::new(2, 3, 41),
            last: Position::new(2, 3, 12_345),
        };
        assert_eq!(name.to_string(), "0a1b2c3d-c7-p003-g00002-0000000000000041-0000000000012345.parquet");
    }
}
