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

/// What decides a visitor's partition: a hash of anonymous_id, else user_id. Delivery keeps an order for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(pub u64);

impl PartitionKey {
    /// The key of a visitor: the same anonymous_id (else user_id) always has the same one.
    #[must_use]
    pub fn of(anonymous_id: &str, user_id: &str) -> Self {
        let key = if anonymous_id.is_empty() { user_id } else { anonymous_id };
        Self(xxhash_rust::xxh3::xxh3_64(key.as_bytes()))
    }

    /// Which of so many partitions it is.
    #[must_use]
    pub fn partition(self, partitions: u32) -> Partition {
        Partition(u32::try_from(self.0 % u64::from(partitions.max(1))).unwrap_or(0))
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
        assert_eq!(PartitionKey::of("a-1", ""), PartitionKey::of("a-1", "u-9"));
        assert_ne!(PartitionKey::of("a-1", ""), PartitionKey::of("", "u-9"));
        assert_eq!(PartitionKey(11).partition(4), Partition(3));
        assert_eq!(PartitionKey(11).partition(0), Partition(0), "no number of partitions is none");
    }
}
