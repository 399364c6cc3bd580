//! Waiting until there is enough for files, and taking it up.
//!
//! What waits, waits in the journal: nothing of it is in memory but the time of the first. A lane that gathers stands behind, and
//! nobody waits for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracklayer_destination::FileTarget;
use tracklayer_destination::warehouse::folder;
use tracklayer_ids::{Offset, Position};

use super::{Lane, LaneError};
use crate::entry::Entry;
use crate::file_memory::reckoned;

/// Most files of one write, whatever names the events have.
const MAX_FILES: usize = 256;
/// Entries that are read at a time: what is read beyond the end of a write is let go again.
const STRIDE: usize = 100;
/// The least pause before another look.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// The first event of what waits.
#[derive(Debug)]
pub(super) struct Gathering {
    at: Position,
    received: Timestamp,
    seen: Instant,
    age: Duration,
}

impl Gathering {
    /// How long it may still wait for others. By the clock it was received at, or by how long it was seen to wait: whatever a clock
    /// says, nothing waits longer than its age once it was seen.
    pub(super) fn left(&self, now: Timestamp) -> Duration {
        let waited = Duration::try_from(now.duration_since(self.received)).unwrap_or_default();
        self.age.saturating_sub(waited.max(self.seen.elapsed())).max(LEAST_PAUSE)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.received) >= SignedDuration::try_from(self.age).unwrap_or_default()
            || self.seen.elapsed() >= self.age
    }
}

impl Lane {
    /// Whether what waits is enough for files, or has waited long enough. Also where there is nothing: that is not to be waited for.
    pub(super) async fn has_enough(
        &mut self,
        cursor: Position,
        resolved: Position,
        target: &FileTarget,
    ) -> Result<bool, LaneError> {
        let is_begun = !self.range.is_empty() || self.writes.end_from(cursor).is_some();
        // In the next generation others wait for this one to be through.
        let is_last = resolved.generation > cursor.generation;
        let waiting = resolved.offset.0.saturating_sub(cursor.offset.0);
        if is_begun || is_last || waiting >= target.rows_per_file as u64 {
            self.gathering = None;
            return Ok(true);
        }
        if self
            .gathering
            .as_ref()
            .is_none_or(|gathering| gathering.at != cursor || gathering.age != target.age)
        {
            self.gathering = None;
            let first = self.context.entries.from(&self.lease, cursor, 1, None).await?.into_iter().next();
            let Some(first) = first else { return Ok(true) };
            let received = Timestamp::from_millisecond(first.received_ms).unwrap_or_default();
            self.gathering = Some(Gathering { at: cursor, received, seen: Instant::now(), age: target.age });
        }
        let now = self.context.clock.now();
        let is_over = self.gathering.as_ref().is_none_or(|gathering| gathering.is_over(now));
        if is_over {
            self.gathering = None;
        }
        Ok(is_over)
    }

    /// What the next write is made of: all up to `until` where something was begun, else as much as may be in one and as there is room for.
    pub(super) async fn gather(
        &mut self,
        cursor: Position,
        until: Option<Position>,
        target: &FileTarget,
    ) -> Result<Vec<Arc<Entry>>, LaneError> {
        let mut gathered: Vec<Arc<Entry>> = Vec::new();
        let (mut bytes, mut taken, mut folders) = (0, 0, HashSet::new());
        let room = self.room_bytes();
        'gathering: loop {
            let next = Position { offset: Offset(cursor.offset.0 + gathered.len() as u64), ..cursor };
            let entries = self.context.entries.from(&self.lease, next, STRIDE, None).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let with_it = taken + reckoned(&entry);
                let is_full = match until {
                    Some(until) => entry.position.offset >= until.offset,
                    None => {
                        folders.extend(entry.deliverable.as_ref().map(folder::of));
                        let is_large = bytes + entry.raw.len() > target.bytes_per_file || with_it > room;
                        gathered.len() >= target.rows_per_file
                            || folders.len() > MAX_FILES
                            // One that is too large by itself goes alone.
                            || (is_large && !gathered.is_empty())
                    }
                };
                if is_full {
                    break 'gathering;
                }
                bytes += entry.raw.len();
                taken = with_it;
                gathered.push(entry);
            }
        }
        self.keep_room(taken);
        Ok(gathered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_written_at_its_age_whatever_the_clocks_say() {
        let received: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let age = Duration::from_secs(60);
        let gathering = Gathering { at: Position::new(1, 0, 0), received, seen: Instant::now(), age };
        let at = |seconds: i64| received + SignedDuration::from_secs(seconds);
        assert!(!gathering.is_over(at(59)) && gathering.is_over(at(60)));
        assert_eq!(gathering.left(at(20)), Duration::from_secs(40));
        assert_eq!(gathering.left(at(-500)), age, "a clock that is behind");
        tokio::time::advance(Duration::from_secs(45)).await;
        assert_eq!(gathering.left(at(-500)), Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(gathering.is_over(at(-500)), "it was seen to wait for so long");
        assert_eq!(gathering.left(at(900)), LEAST_PAUSE);
    }
}
