//! Profiles that this process has read, so that who comes again costs a look at whether his is still what it was.
//!
//! What is remembered is only a guess: the lookup of every batch reads the version of each component anew, and what has
//! another one by then is looked up. What was blocked or erased is no part of it.
//!
//! Whoever writes a click id counts the version of the component that he sees its identifier in (`0006_click_versions.sql`).
//! One who was under way while that component became what was read here may have seen another or none, and his click id comes
//! without a new version. So a profile counts as remembered only once it was read again, the same, when all who were under
//! way at its first reading were done: whoever began later sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracklayer_ids::WorkspaceId;

use crate::click_ids::Clicks;
use crate::identifier::ValueMac;
use crate::memory::Generations;
use crate::store::lookup::{FEW_MEMBERS, Known, KnownProfile, Moment, ProfileState};

/// What is remembered, in bytes if no two identifiers shared a profile. Those of people do: one of three with two click ids
/// counts for 1.3 kB and takes half of it, and there is room for some 70,000 of them.
const CAPACITY: usize = 96 << 20;
/// What an entry takes without its profile.
const ENTRY_BYTES: usize = 80;

/// Workspace and the first half of the hash: 128 bits, which no two identifiers share.
type Key = (i64, [u8; 16]);

/// What is remembered of an identifier.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Its profile, with the newest click ids of all members.
    pub profile: KnownProfile,
    /// Click ids seen on itself.
    pub clicks: Clicks,
    /// The end of those who were under way when this state was first read; `None` once it was read after all of them.
    unsettled: Option<i64>,
}

/// The profiles of identifiers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Familiar {
    memories: Arc<Mutex<Generations<Key, Memory>>>,
}

impl Default for Familiar {
    fn default() -> Self {
        Self { memories: Arc::new(Mutex::new(Generations::new(CAPACITY, weigh))) }
    }
}

impl Familiar {
    /// What is remembered of the profiles of identifiers, each with its place, handed to `each`.
    pub fn recall(
        &self,
        workspace: WorkspaceId,
        macs: impl Iterator<Item = ValueMac>,
        mut each: impl FnMut(usize, Option<&Memory>),
    ) {
        let mut memories = self.lock();
        for (place, mac) in macs.enumerate() {
            each(place, memories.get(&key(workspace, mac)).filter(|memory| memory.unsettled.is_none()));
        }
    }

    /// Remembers what was read. Hubs and contested identifiers are read every time: they are few, and what they mean for an
    /// answer is more than their profile. So are large profiles, which cost more to keep than to read.
    pub fn note<'k>(
        &self,
        workspace: WorkspaceId,
        moment: Moment,
        known: impl IntoIterator<Item = (ValueMac, &'k Known, Option<&'k KnownProfile>)>,
    ) {
        let mut memories = self.lock();
        for (mac, known, profile) in known {
            let key = key(workspace, mac);
            let is_plain = known.place.is_some_and(|place| !place.hub && !place.contested);
            let profile = profile.filter(|profile| is_plain && profile.state.members.len() <= FEW_MEMBERS);
            let Some(profile) = profile else {
                memories.forget(&key);
                continue;
            };
            let before = memories.get(&key).filter(|before| before.profile.state.id() == profile.state.id());
            let under_way = match before.map(|before| before.unsettled) {
                // What two batches read at a time need not be noted in that order.
                Some(None) => continue,
                Some(Some(under_way)) => under_way,
                None => moment.under_way,
            };
            let unsettled = Some(under_way).filter(|under_way| moment.over < *under_way);
            let shared = known.clicks == profile.clicks;
            let clicks = if shared { profile.clicks.clone() } else { known.clicks.clone() };
            memories.note(key, Memory { profile: profile.clone(), clicks, unsettled });
        }
    }

    /// Forgets what is another by now.
    pub fn forget(&self, workspace: WorkspaceId, macs: impl IntoIterator<Item = ValueMac>) {
        let mut memories = self.lock();
        macs.into_iter().for_each(|mac| memories.forget(&key(workspace, mac)));
    }

    fn lock(&self) -> MutexGuard<'_, Generations<Key, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weigh(memory: &Memory) -> usize {
    let members = &memory.profile.state.members;
    ENTRY_BYTES
        + size_of::<ProfileState>()
        + size_of_val(members.as_slice())
        + memory.profile.clicks.bytes()
        + memory.clicks.bytes()
}

fn key(workspace: WorkspaceId, mac: ValueMac) -> Key {
    (workspace.0, mac.half())
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::SubjectKey;

    use super::*;
    use crate::difference::{ComponentId, ProfileId};
    use crate::store::lookup::Place;

    const MAC: ValueMac = ValueMac([7; 32]);
    const WORKSPACE: WorkspaceId = WorkspaceId(1);

    fn read(familiar: &Familiar, version: i64, (over, under_way): (i64, i64), hub: bool) {
        let (profile, component) = (ProfileId(1), ComponentId(2));
        let key = SubjectKey([3; 16]);
        let state = ProfileState { profile, component, version, key, person: true, members: vec![key] };
        let known_profile = KnownProfile { state: Arc::new(state), clicks: Clicks::default() };
        let place = Some(Place { component, profile, hub, contested: false });
        let known = Known { place, ..Known::default() };
        familiar.note(WORKSPACE, Moment { over, under_way }, [(MAC, &known, Some(&known_profile))]);
    }

    fn remembered(familiar: &Familiar) -> Option<i64> {
        let mut version = None;
        familiar.recall(WORKSPACE, [MAC].into_iter(), |_, memory| {
            version = memory.map(|memory| memory.profile.state.version);
        });
        version
    }

    #[test]
    fn a_profile_is_remembered_once_all_who_were_under_way_at_its_first_reading_are_done() {
        let familiar = Familiar::default();
        read(&familiar, 1, (10, 20), false);
        assert_eq!(remembered(&familiar), None);
        read(&familiar, 1, (19, 30), false);
        assert_eq!(remembered(&familiar), None, "19 may still write");
        read(&familiar, 1, (20, 40), false);
        assert_eq!(remembered(&familiar), Some(1));
        read(&familiar, 1, (12, 21), false);
        assert_eq!(remembered(&familiar), Some(1), "an earlier reading takes nothing back");
        read(&familiar, 2, (50, 60), false);
        assert_eq!(remembered(&familiar), None, "another state begins anew");
        read(&familiar, 2, (60, 61), false);
        assert_eq!(remembered(&familiar), Some(2));
        read(&familiar, 3, (65, 65), false);
        assert_eq!(remembered(&familiar), Some(3), "nobody was under way");
        read(&familiar, 3, (70, 71), true);
        assert_eq!(remembered(&familiar), None, "a hub is read every time");
    }
}
