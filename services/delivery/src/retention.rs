//! Gives back the journal's room: what every cursor is past, and what nobody may want any more for a rebuild of the claims.
//!
//! Only over a journal beside the database. The holder of a partition's resolve lease sees to its partition: what it reads is
//! never behind what it has committed.

use std::time::{Duration, Instant};

use tracklayer_ids::{ConnectionId, Position};
use tracklayer_journal::{Journal, JournalError, Kind, Place};

use crate::lease::Duty;
use crate::store::StoreError;
use crate::store::cursors::CursorStore;
use crate::store::resolved::ResolvedStore;

/// How often a partition is trimmed.
const EVERY: Duration = Duration::from_secs(60);

/// Why a partition was not trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// Own tables, or the log of resolved blocks.
    #[error("could not trim what is resolved")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("could not trim what was received")]
    Journal(#[from] JournalError),
}

/// When a partition was trimmed last.
#[derive(Debug)]
pub struct Trim {
    last: Instant,
}

impl Default for Trim {
    fn default() -> Self {
        Self { last: Instant::now() }
    }
}

impl Trim {
    /// Whether it is time again; if so, the time begins anew.
    pub fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= EVERY;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Trims a partition: `received` before where resolve stands, `resolved` before the last of the connections' lanes, as far as
/// it is older than any claim may be.
///
/// # Errors
/// See [`TrimError`]; what was not trimmed now is by a later call.
pub async fn trim(
    journal: &dyn Journal,
    resolved: &ResolvedStore,
    cursors: &CursorStore,
    duty: Duty,
    connections: &[ConnectionId],
    longest_claim: Duration,
) -> Result<(), TrimError> {
    if journal.kind() == Kind::Postgres {
        return Ok(());
    }
    let place: Place = cursors.resolve(duty.workspace, duty.partition).await?;
    journal.trim(&[(duty.workspace, place)]).await?;
    let last_lane: Option<Position> = cursors.last_lane(duty.workspace, duty.partition, connections).await?;
    // A connection whose lane has not begun begins behind what is resolved.
    let before = last_lane.unwrap_or(place.at);
    let forgotten = jiff::Timestamp::now() - longest_claim;
    resolved.trim(duty.workspace, before, forgotten).await?;
    Ok(())
}
