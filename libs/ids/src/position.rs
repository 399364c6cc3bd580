//! Where an event stands in a workspace's journal.

use serde::{Deserialize, Serialize};

/// One history of a journal. A promotion, a truncation or a changed number of partitions opens the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

/// One of a workspace's partitions, chosen by hash of anonymous_id, else user_id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u32);

impl Partition {
    /// The partition of a visitor: the same anonymous_id (else user_id) always lands in the same one.
    #[must_use]
    pub fn of(anonymous_id: &str, user_id: &str, partitions: u32) -> Self {
        let key = if anonymous_id.is_empty() { user_id } else { anonymous_id };
        let hash = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
        Self(u32::try_from(hash % u64::from(partitions.max(1))).unwrap_or(0))
    }
}

/// Number of an event within its generation and partition, from 0, without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

/// (generation, partition, offset): one for each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// History.
    pub generation: Generation,
    /// Partition of the workspace.
    pub partition: Partition,
    /// Number within both.
    pub offset: Offset,
}

impl Position {
    /// From raw numbers.
    #[must_use]
    pub fn new(generation: u32, partition: u32, offset: u64) -> Self {
        Self { generation: Generation(generation), partition: Partition(partition), offset: Offset(offset) }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.generation.0, self.partition.0, self.offset.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_keeps_the_partition_whatever_user_id_joins() {
        assert_eq!(Partition::of("a-1", "", 4), Partition::of("a-1", "u-9", 4));
        assert_eq!(Partition::of("", "u-9", 1), Partition(0));
    }
}
