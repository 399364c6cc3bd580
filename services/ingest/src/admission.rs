//! How much may be in flight: requests and their bytes. Above it nothing is read, and the sender is told to come back.
//!
//! The room is [shared](tracklayer_journal::share) by the workspaces, and what each of them may hold by its sources: nobody gets all
//! of it, and a page that loops leaves room for the shop's server. Requests whose source is not known before their body has been read
//! are one holder together.
//!
//! What a request takes of it is memory, and more than its body: see [`for_body`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracklayer_ids::{SourceId, WorkspaceId};
use tracklayer_journal::share::{fits, most};

use crate::error::IngestError;

/// What a request takes at least: its head, and what is kept about it.
const LEAST_BYTES: usize = 1_024;
/// How many times the bytes of its body a request comes to occupy: the body, what its events say once more when they are parsed,
/// and as much again for the events themselves, each of which is a record of about a kilobyte beside its texts.
const TIMES_ITS_BODY: usize = 3;

/// For whom room is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A workspace; the only source of one, which has nobody to share with.
    Workspace(WorkspaceId),
    /// One of several sources of a workspace.
    Source(WorkspaceId, SourceId),
    /// Not known yet: the write key is in the body.
    Unknown,
}

impl Holder {
    /// Of whose room its own is a part; none: of all there is.
    #[must_use]
    pub const fn part_of(self) -> Option<Self> {
        match self {
            Self::Source(workspace, _) => Some(Self::Workspace(workspace)),
            Self::Workspace(_) | Self::Unknown => None,
        }
    }
}

/// What a request with a body of so many bytes comes to occupy.
#[must_use]
pub const fn for_body(bytes: usize) -> usize {
    bytes.saturating_mul(TIMES_ITS_BODY)
}

/// Counts what is in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    limit: Room,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    requests: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: Room,
    by_holder: HashMap<Holder, Room>,
}

/// Room for one request; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Admission,
    holder: Holder,
    bytes: usize,
}

impl Admission {
    /// With room for so many requests and bytes.
    #[must_use]
    pub fn new(requests: u32, bytes: u64) -> Self {
        let limit = Room { requests: requests as usize, bytes: usize::try_from(bytes).unwrap_or(usize::MAX) };
        Self { limit, taken: Arc::default() }
    }

    /// Takes room for a request of at most so many bytes, or refuses at once.
    ///
    /// # Errors
    /// [`IngestError::Overloaded`].
    pub fn admit(&self, holder: Holder, bytes: usize) -> Result<Admitted, IngestError> {
        let bytes = bytes.max(LEAST_BYTES);
        self.lock().take(holder, Room { requests: 1, bytes }, self.limit)?;
        Ok(Admitted { admission: self.clone(), holder, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// Takes more room if less than so many bytes are held: the request turned out to be larger than it looked.
    ///
    /// # Errors
    /// [`IngestError::Overloaded`]; what was held stays held.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), IngestError> {
        let more = bytes.saturating_sub(self.bytes);
        self.admission.lock().take(self.holder, Room { requests: 0, bytes: more }, self.admission.limit)?;
        self.bytes += more;
        Ok(())
    }

    /// Gives back what is held above so many bytes: the request turned out to be smaller than it might have been.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes.max(LEAST_BYTES));
        self.admission.lock().give_back(self.holder, Room { requests: 0, bytes: less });
        self.bytes -= less;
    }

    /// Says whose it is, now that it is known.
    ///
    /// # Errors
    /// [`IngestError::Overloaded`]: the source or its workspace holds too much already.
    pub fn belongs_to(&mut self, holder: Holder) -> Result<(), IngestError> {
        if self.holder == holder {
            return Ok(());
        }
        let room = Room { requests: 1, bytes: self.bytes };
        let mut taken = self.admission.lock();
        taken.give_back(self.holder, room);
        if let Err(overloaded) = taken.take(holder, room, self.admission.limit) {
            taken.add(self.holder, room);
            return Err(overloaded);
        }
        self.holder = holder;
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.lock().give_back(self.holder, Room { requests: 1, bytes: self.bytes });
    }
}

impl Taken {
    fn take(&mut self, holder: Holder, wanted: Room, limit: Room) -> Result<(), IngestError> {
        if !self.fits(holder, wanted, limit) {
            return Err(IngestError::Overloaded { retry_after: Duration::from_secs(1) });
        }
        self.add(holder, wanted);
        Ok(())
    }

    fn fits(&self, holder: Holder, wanted: Room, limit: Room) -> bool {
        let held = self.held(holder);
        let Some(whole) = holder.part_of() else { return held.may_take(wanted, self.all, limit) };
        // What fits into the part fits into the whole.
        let of_whole = self.held(whole);
        held.may_take(wanted, of_whole, of_whole.most(self.all, limit))
    }

    fn held(&self, holder: Holder) -> Room {
        self.by_holder.get(&holder).copied().unwrap_or_default()
    }

    fn add(&mut self, holder: Holder, room: Room) {
        self.all = self.all.with(room);
        for holder in [Some(holder), holder.part_of()].into_iter().flatten() {
            let held = self.by_holder.entry(holder).or_default();
            *held = held.with(room);
        }
    }

    fn give_back(&mut self, holder: Holder, room: Room) {
        self.all = self.all.without(room);
        for holder in [Some(holder), holder.part_of()].into_iter().flatten() {
            let Some(held) = self.by_holder.get_mut(&holder) else { continue };
            *held = held.without(room);
            if *held == Room::default() {
                self.by_holder.remove(&holder);
            }
        }
    }
}

impl Room {
    /// Whether who holds this may have so much more of a room of which so much is taken.
    const fn may_take(self, wanted: Self, taken: Self, limit: Self) -> bool {
        fits(self.requests, wanted.requests, taken.requests, limit.requests)
            && fits(self.bytes, wanted.bytes, taken.bytes, limit.bytes)
    }

    /// The room that who holds this may share out.
    const fn most(self, taken: Self, limit: Self) -> Self {
        Self {
            requests: most(self.requests, taken.requests, limit.requests),
            bytes: most(self.bytes, taken.bytes, limit.bytes),
        }
    }

    const fn with(self, room: Self) -> Self {
        Self { requests: self.requests + room.requests, bytes: self.bytes + room.bytes }
    }

    const fn without(self, room: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(room.requests),
            bytes: self.bytes.saturating_sub(room.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Holder = Holder::Workspace(WorkspaceId(1));
    const TWO: Holder = Holder::Workspace(WorkspaceId(2));
    const BROWSER: Holder = Holder::Source(WorkspaceId(1), SourceId(1));
    const SERVER: Holder = Holder::Source(WorkspaceId(1), SourceId(2));

    #[test]
    fn what_is_over_the_limit_is_refused_until_something_ends() {
        let admission = Admission::new(2, 10 * 1_024);
        let first = admission.admit(ONE, 8 * 1_024).unwrap();
        assert!(matches!(admission.admit(TWO, 3 * 1_024), Err(IngestError::Overloaded { .. })));
        let second = admission.admit(TWO, 1_024).unwrap();
        assert!(
            matches!(admission.admit(Holder::Unknown, 1), Err(IngestError::Overloaded { .. })),
            "a third"
        );
        drop((first, second));
        assert!(admission.admit(ONE, 10 * 1_024).is_ok());
    }

    /// Room that a holder gets if it takes whatever it can.
    fn flood(admission: &Admission, holder: Holder, bytes: usize) -> Vec<Admitted> {
        std::iter::from_fn(|| admission.admit(holder, bytes).ok()).collect()
    }

    #[test]
    fn a_workspace_that_floods_leaves_room_for_others() {
        for (requests, bytes, each) in [(1_000_000, 1_000 * 1_024, 1_024), (1_000, 1 << 40, 1)] {
            let admission = Admission::new(requests, bytes);
            let first = flood(&admission, ONE, each);
            assert_eq!(first.len(), 800);
            let second = flood(&admission, TWO, each);
            assert_eq!(second.len(), 160, "four fifths of the rest");
            assert!(admission.admit(Holder::Unknown, each).is_ok());
            drop(first);
            assert!(admission.admit(ONE, each).is_ok());
            assert_eq!(flood(&admission, TWO, each).len(), 640);
        }
    }

    #[test]
    fn a_source_that_floods_leaves_room_for_others_of_its_workspace() {
        for (requests, bytes, each) in [(1_000_000, 1_000 * 1_024, 1_024), (1_000, 1 << 40, 1)] {
            let admission = Admission::new(requests, bytes);
            let browser = flood(&admission, BROWSER, each);
            assert_eq!(browser.len(), 762, "nearly the four fifths of its workspace");
            let server = flood(&admission, SERVER, each);
            assert_eq!(server.len(), 37);
            let refused = admission.admit(BROWSER, each).unwrap_err();
            assert!(matches!(refused, IngestError::Overloaded { .. }), "it is told to come back");
            assert_eq!(flood(&admission, TWO, each).len(), 161, "both together leave a workspace its share");
            drop(browser);
            assert!(flood(&admission, SERVER, each).len() > 500);
        }
    }

    #[test]
    fn sources_are_sources_of_their_workspace() {
        let admission = Admission::new(1_000, 1 << 40);
        let of_workspace = flood(&admission, ONE, 1);
        assert_eq!(of_workspace.len(), 800, "a source that is alone");
        assert!(admission.admit(SERVER, 1).is_err(), "its workspace has its share");
        let of_other = Holder::Source(WorkspaceId(2), SourceId(2));
        let mut known_late = admission.admit(Holder::Unknown, 1).unwrap();
        assert!(known_late.belongs_to(SERVER).is_err());
        known_late.belongs_to(of_other).unwrap();
        assert_eq!(admission.lock().held(TWO).requests, 1);
        drop((of_workspace, known_late));
        let taken = admission.lock();
        assert_eq!((taken.all, taken.by_holder.len()), (Room::default(), 0), "everything is given back");
    }

    #[test]
    fn a_request_that_turns_out_larger_is_counted_as_what_it_is() {
        let admission = Admission::new(100, 100 * 1_024);
        let mut small = admission.admit(ONE, 10).unwrap();
        small.grow_to(500).unwrap();
        assert!(small.grow_to(101 * 1_024).is_err());
        small.grow_to(70 * 1_024).unwrap();
        assert!(admission.admit(TWO, 31 * 1_024).is_err());
        drop(small);
        assert!(admission.admit(TWO, 31 * 1_024).is_ok());
    }

    #[test]
    fn a_request_that_turns_out_smaller_gives_the_rest_back() {
        let admission = Admission::new(100, 100 * 1_024);
        let mut unknown = admission.admit(ONE, 90 * 1_024).unwrap();
        assert!(admission.admit(TWO, 11 * 1_024).is_err());
        unknown.shrink_to(91 * 1_024);
        unknown.shrink_to(10);
        assert_eq!(admission.lock().all, Room { requests: 1, bytes: LEAST_BYTES });
        assert!(admission.admit(TWO, 99 * 1_024).is_ok());
        drop(unknown);
        let taken = admission.lock();
        assert_eq!((taken.all, taken.by_holder.len()), (Room::default(), 0));
    }

    #[test]
    fn a_request_counts_for_its_workspace_once_that_is_known() {
        let admission = Admission::new(1_000, 1 << 40);
        let held = flood(&admission, ONE, 1);
        let mut known_late = admission.admit(Holder::Unknown, 1).unwrap();
        assert!(known_late.belongs_to(ONE).is_err(), "it has its share already");
        known_late.belongs_to(TWO).unwrap();
        drop((held, known_late));
        let taken = admission.lock();
        assert_eq!((taken.all, taken.by_holder.len()), (Room::default(), 0), "everything is given back");
    }
}
