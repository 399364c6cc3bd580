//! The received journal, read along: what is read and past may be dropped from it while a seed runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tracklayer_ids::{Generation, Offset, Partition, Position, WorkspaceId};
use tracklayer_journal::{Journal, Most, Place};
use tracklayer_proto::event::v1::Event as StoredEvent;

/// Blocks of one read.
const BLOCKS: i64 = 64;
/// Pause until what is on its way is looked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// Where each message_id stands, as far as it was read.
#[derive(Debug)]
pub struct Reading {
    journal: Arc<dyn Journal>,
    workspace: WorkspaceId,
    places: BTreeMap<Partition, Place>,
    pub found: BTreeMap<String, BTreeSet<Position>>,
}

impl Reading {
    pub fn new(journal: Arc<dyn Journal>, workspace: WorkspaceId) -> Self {
        Self { journal, workspace, places: BTreeMap::new(), found: BTreeMap::new() }
    }

    /// Reads to the present end of all partitions.
    ///
    /// # Errors
    /// The journal, or a block that cannot be read.
    pub async fn go_on(&mut self) -> anyhow::Result<()> {
        // Before the reads: a generation that has a successor by then grows no more.
        let heads = self.journal.heads().await?;
        let layouts = self.journal.layouts().await?;
        let mine = layouts.iter().filter(|(workspace, _)| *workspace == self.workspace);
        let partitions = mine.map(|(_, layout)| layout.partitions).max().unwrap_or(0);
        for partition in (0..partitions).map(Partition) {
            let head = heads.iter().find(|h| h.workspace == self.workspace && h.partition == partition);
            let begin = Position::new(1, partition.0, 0).into();
            let mut place = *self.places.get(&partition).unwrap_or(&begin);
            loop {
                let blocks = self.journal.read(self.workspace, place, Most::blocks(BLOCKS)).await?;
                let mut read = 0;
                for block in &blocks {
                    for (step, bytes) in block.events()?.into_iter().enumerate() {
                        let at =
                            Position { offset: Offset(block.first.offset.0 + step as u64), ..block.first };
                        if at.offset < place.at.offset {
                            continue;
                        }
                        let event = StoredEvent::decode(bytes)?;
                        self.found.entry(event.message_id).or_default().insert(at);
                        read += 1;
                    }
                }
                if read > 0 {
                    place = place.after(&blocks, read);
                } else if head.is_some_and(|head| head.generation > place.at.generation) {
                    let next = Generation(place.at.generation.0 + 1);
                    place = Position { generation: next, offset: Offset(0), ..place.at }.into();
                } else {
                    // Over Kafka a read that gives nothing says only that nothing has come yet.
                    let end = self.journal.count(self.workspace, place, &mut |_, _| {}).await?;
                    if end.at == place.at {
                        break;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
            self.places.insert(partition, place);
        }
        Ok(())
    }
}
