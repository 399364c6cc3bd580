//! Blocks in a journal, without an appender before it.

use tracklayer_ids::{Partition, WorkspaceId};
use tracklayer_journal::{AppendError, Appended, Block, Journal, NewBlock, Spread};

/// What a workspace that has no layout yet is spread over. It changes none that is there.
const FOUR: Spread = Spread { partitions: 4, revision: 0 };

/// How often the layout may change in the meantime.
const TRIES: usize = 1_000;

/// Appends a block to a partition of the layout that is open.
///
/// # Panics
/// If its head is of another one.
///
/// # Errors
/// The journal.
pub async fn append(
    journal: &dyn Journal,
    workspace: WorkspaceId,
    partition: Partition,
    block: &Block,
) -> Result<Appended, AppendError> {
    for _ in 0..TRIES {
        let generation = journal.layout(workspace, FOUR).await?.generation;
        let new = NewBlock { workspace, partition, generation, block: block.clone() };
        match journal.append(&[new]).await?[..] {
            [Appended::Stale] => {}
            [appended] => return Ok(appended),
            _ => unreachable!("one block, one answer"),
        }
    }
    panic!("the head of partition {} is not of the layout that is open", partition.0)
}
