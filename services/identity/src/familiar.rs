//! Profiles that this process has read, so that who comes again costs a look at whether his is still what it was.
//!
//! What is remembered is only a guess: the lookup of every batch reads the version of each component anew, and what has
//! another one by then is looked up. Click ids are no part of it, nor what was blocked or erased.

use std::collections::HashMap;
use std::sync::Arc;

use tracklayer_ids::WorkspaceId;

use crate::difference::ProfileId;
use crate::identifier::ValueMac;
use crate::store::lookup::{Known, KnownProfile, RememberedProfile};

/// What is remembered, counted in members of each identifier's profile, about 50 bytes each if no two share one: 25 MB at worst.
/// Enough for 150,000 identifiers of people with three.
const CAPACITY: u64 = 450_000;
/// Most identifiers of a profile that is remembered: a larger one costs more to confirm than to read.
const MAX_MEMBERS: usize = 32;

/// Workspace and the first half of the hash: 128 bits, which no two identifiers share.
type Key = (i64, [u8; 16]);

/// The profiles of identifiers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Familiar {
    profiles: moka::sync::Cache<Key, Arc<RememberedProfile>>,
}

impl Default for Familiar {
    fn default() -> Self {
        let weigh =
            |_: &Key, state: &Arc<RememberedProfile>| u32::try_from(state.members.len()).unwrap_or(u32::MAX);
        Self { profiles: moka::sync::Cache::builder().max_capacity(CAPACITY).weigher(weigh).build() }
    }
}

impl Familiar {
    /// What is remembered of an identifier's profile.
    #[must_use]
    pub fn of(&self, workspace: WorkspaceId, mac: ValueMac) -> Option<Arc<RememberedProfile>> {
        self.profiles.get(&key(workspace, mac))
    }

    /// Remembers what was read. Hubs and contested identifiers are read every time: they are few, and what they mean for an
    /// answer is more than their profile.
    pub fn note<'k>(
        &self,
        workspace: WorkspaceId,
        known: impl IntoIterator<Item = (ValueMac, &'k Known)>,
        profiles: &HashMap<ProfileId, KnownProfile>,
    ) {
        for (mac, known) in known {
            let place = known.place.filter(|place| !place.hub && !place.contested);
            let state = place.and_then(|place| Some(&profiles.get(&place.profile)?.state));
            match state.filter(|state| state.members.len() <= MAX_MEMBERS) {
                Some(state) => self.profiles.insert(key(workspace, mac), Arc::clone(state)),
                None => self.forget(workspace, mac),
            }
        }
    }

    /// Forgets what turned out to be another by now.
    pub fn forget(&self, workspace: WorkspaceId, mac: ValueMac) {
        self.profiles.invalidate(&key(workspace, mac));
    }
}

fn key(workspace: WorkspaceId, mac: ValueMac) -> Key {
    (workspace.0, std::array::from_fn(|n| mac.0[n]))
}
