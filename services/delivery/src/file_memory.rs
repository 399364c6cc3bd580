//! How much lanes that write files may have in memory: one bound in bytes for all lanes of the process, and half of it for those of one
//! workspace, so that one whose bucket is slow leaves room for the others.
//!
//! A lane asks for room before it reads what goes into files, and while it has none: nobody waits for whoever waits for it. It waits,
//! in line, for a part of what it could use, takes what else is free without another wait, and makes its files smaller where that is
//! less. What it turns out not to need it gives back at once, the rest when its files are committed or the lane is held: then it lets
//! go of the events, too, and reads them again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracklayer_destination::Deliverable;
use tracklayer_ids::WorkspaceId;

use crate::entry::Entry;

/// The smallest bound, bytes. An eighth of a workspace's half of it still is a write of a few events of any size.
pub const LEAST_BYTES: u64 = 64_000_000;
/// The largest, bytes: more than a machine has.
pub const MOST_BYTES: u64 = 1_000_000_000_000;

/// What an event takes for each of its stored bytes: itself, its row, the row as it is read for the file, the columns, and the file.
/// Measured in `tests/file_memory.rs`, as the two below.
const PER_BYTE: u64 = 9;
/// What its JSON nearly always takes for each of them when it is parsed.
const PARSED_PER_BYTE: u64 = 6;
/// What it takes however small it is.
const PER_EVENT: u64 = 8_000;
/// Room is counted in pieces of so many bytes.
const PIECE: u64 = 1_000;
/// A lane waits for this part of what its workspace may have, or for less where it could not use so much.
const PARTS: u32 = 8;

/// What so many events of so many stored bytes nearly always take in memory on their way into files, bytes: what room is asked for before
/// they are read.
#[must_use]
pub fn usual(events: usize, bytes: usize) -> u64 {
    let per_byte = PER_BYTE + PARSED_PER_BYTE;
    PER_EVENT.saturating_mul(events as u64).saturating_add(per_byte.saturating_mul(bytes as u64))
}

/// What an event takes, bytes. Many short values take a multiple of their text.
#[must_use]
pub fn reckoned(entry: &Entry) -> u64 {
    let parsed = entry.deliverable.as_ref().map_or(0, Deliverable::parsed_bytes);
    PER_EVENT + PER_BYTE * entry.raw.len() as u64 + parsed as u64
}

/// The bound, shared by all lanes of a process.
#[derive(Debug, Clone)]
pub struct FileMemory {
    all: Arc<Semaphore>,
    of_workspaces: Arc<Mutex<HashMap<WorkspaceId, Arc<Semaphore>>>>,
    pieces: u32,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub struct Room {
    /// Of the workspace's part.
    own: OwnedSemaphorePermit,
    /// Of all.
    all: OwnedSemaphorePermit,
}

impl FileMemory {
    /// Lets lanes have so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        metrics::describe_gauge!(
            "tracklayer_delivery_file_memory_bytes",
            "what lanes are reckoned to have in memory for files, of `file_memory_bytes`"
        );
        let pieces = u32::try_from(bytes.clamp(PIECE * 2, MOST_BYTES) / PIECE).unwrap_or(u32::MAX);
        Self { all: Arc::new(Semaphore::new(pieces as usize)), of_workspaces: Arc::default(), pieces }
    }

    /// Bytes that lanes have at the moment.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        u64::from(self.pieces).saturating_sub(self.all.available_permits() as u64) * PIECE
    }

    /// Most bytes that the lanes of one workspace may have.
    #[must_use]
    pub fn of_a_workspace(&self) -> u64 {
        u64::from(self.pieces / 2) * PIECE
    }

    /// Room for at most so many bytes, for a lane that has none. It may be less: at least an eighth of what a workspace may have.
    pub async fn some(&self, workspace: WorkspaceId, most: u64) -> Room {
        let most = self.pieces_of(most);
        let least = most.min((self.pieces / 2 / PARTS).max(1));
        let mut room = self.wait(workspace, least).await;
        let (own, all) = (Arc::clone(room.own.semaphore()), Arc::clone(room.all.semaphore()));
        let more = (most - least).min(free(&own)).min(free(&all));
        // Another one may have been faster: then it is the least.
        if more > 0
            && let (Ok(own), Ok(all)) = (own.try_acquire_many_owned(more), all.try_acquire_many_owned(more))
        {
            room.own.merge(own);
            room.all.merge(all);
            gauge().increment(f64::from(more) * PIECE as f64);
        }
        room
    }

    /// Room for so many bytes, for a lane that has none: for what can only be read as a whole. No more than a workspace may have.
    pub async fn whole(&self, workspace: WorkspaceId, bytes: u64) -> Room {
        self.wait(workspace, self.pieces_of(bytes)).await
    }

    fn pieces_of(&self, bytes: u64) -> u32 {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX);
        pieces.clamp(1, (self.pieces / 2).max(1))
    }

    /// First of the workspace's part, then of all: who has of all waits for nobody.
    async fn wait(&self, workspace: WorkspaceId, pieces: u32) -> Room {
        let of_workspace = {
            let mut parts = self.of_workspaces.lock().unwrap_or_else(PoisonError::into_inner);
            let whole = || Arc::new(Semaphore::new((self.pieces / 2).max(1) as usize));
            Arc::clone(parts.entry(workspace).or_insert_with(whole))
        };
        loop {
            let own = Arc::clone(&of_workspace).acquire_many_owned(pieces).await;
            let all = Arc::clone(&self.all).acquire_many_owned(pieces).await;
            // Neither is ever closed.
            if let (Ok(own), Ok(all)) = (own, all) {
                gauge().increment(f64::from(pieces) * PIECE as f64);
                return Room { own, all };
            }
        }
    }
}

fn gauge() -> metrics::Gauge {
    metrics::gauge!("tracklayer_delivery_file_memory_bytes")
}

fn free(part: &Semaphore) -> u32 {
    u32::try_from(part.available_permits()).unwrap_or(u32::MAX)
}

impl Room {
    /// How large it is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.all.num_permits() as u64 * PIECE
    }

    /// Keeps as much as is needed, and gives back the rest.
    pub fn keep(&mut self, bytes: u64) {
        let before = self.bytes();
        let kept = usize::try_from(bytes.div_ceil(PIECE)).unwrap_or(usize::MAX).max(1);
        for part in [&mut self.own, &mut self.all] {
            drop(part.split(part.num_permits().saturating_sub(kept)));
        }
        gauge().decrement((before - self.bytes()) as f64);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        gauge().decrement(self.bytes() as f64);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const ONE: WorkspaceId = WorkspaceId(1);
    const TWO: WorkspaceId = WorkspaceId(2);
    const THREE: WorkspaceId = WorkspaceId(3);

    #[tokio::test]
    async fn a_workspace_has_at_most_half_and_what_is_not_needed_is_given_back() {
        let memory = FileMemory::new(1_600_000);
        let mut one = memory.some(ONE, u64::MAX).await;
        assert_eq!((one.bytes(), memory.in_use()), (800_000, 800_000));
        assert!(memory.some(ONE, 1).now_or_never().is_none(), "its own half is used up");
        let two = memory.some(TWO, 300_500).now_or_never().unwrap();
        assert_eq!(two.bytes(), 301_000, "no more than it could use");
        one.keep(250_000);
        assert_eq!((one.bytes(), memory.in_use()), (250_000, 551_000));
        let again = memory.some(ONE, u64::MAX).now_or_never().unwrap();
        assert_eq!(again.bytes(), 550_000, "what is left of its half");
        drop((one, two, again));
        assert_eq!(memory.in_use(), 0);
    }

    #[tokio::test]
    async fn who_finds_little_takes_that_and_who_needs_all_of_it_waits_in_line() {
        let memory = FileMemory::new(1_600_000);
        let one = memory.whole(ONE, 800_000).await;
        let two = memory.whole(TWO, 650_000).await;
        let little = memory.some(THREE, 800_000).now_or_never().unwrap();
        assert_eq!(little.bytes(), 150_000, "more than its least and less than it could use");
        let mut whole = Box::pin(memory.whole(THREE, 400_000));
        assert!(whole.as_mut().now_or_never().is_none());
        let mut small = Box::pin(memory.some(TWO, 100_000));
        assert!(small.as_mut().now_or_never().is_none());
        drop(little);
        assert!(small.as_mut().now_or_never().is_none(), "who came later does not overtake");
        drop(one);
        assert_eq!(whole.now_or_never().unwrap().bytes(), 400_000);
        assert_eq!(small.now_or_never().unwrap().bytes(), 100_000);
        drop(two);
    }

    #[tokio::test]
    async fn however_many_lanes_ask_each_gets_room_and_the_bound_holds() {
        let memory = FileMemory::new(1_600_000);
        let lanes = (0..64u32).map(|lane| {
            let memory = memory.clone();
            tokio::spawn(async move {
                for round in 0..20u64 {
                    let workspace = WorkspaceId(i64::from(lane % 3));
                    let mut room = match lane % 2 {
                        0 => memory.some(workspace, 700_000).await,
                        _ => memory.whole(workspace, 100_000 * (round % 9)).await,
                    };
                    assert!(memory.in_use() <= 1_600_000);
                    tokio::task::yield_now().await;
                    room.keep(50_000);
                    tokio::task::yield_now().await;
                }
            })
        });
        let all = futures::future::join_all(lanes.collect::<Vec<_>>());
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), all).await;
        ended.expect("nobody waits for ever").into_iter().for_each(|lane| lane.unwrap());
        assert_eq!(memory.in_use(), 0);
    }
}
