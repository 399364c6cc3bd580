//! Profiles that this process has read, so that who comes again costs a look at whether his is still what it was.
//!
//! What is remembered is only a guess: the lookup of every batch reads the version of each component anew, and what has
//! another one by then is looked up. What was blocked or erased is no part of it.
//!
//! A profile is remembered once, however many identifiers it has; each of these remembers which profile it is in. Where this
//! process changes a profile itself and knows, from the versions before and after, that nothing else changed, the memory follows
//! ([`Familiar::follow`], once that is committed): somebody joined it, or click ids were seen. What other processes change is
//! read anew, as a whole, in one statement.
//!
//! Whoever writes a click id counts the version of the component that he sees its identifier in (`0006_click_versions.sql`).
//! One who was under way while that component became what was read here may have seen another or none, and his click id comes
//! without a new version. So a profile counts as remembered only once it was read again, the same, when all who were under
//! way at its first reading were done: whoever began later sees it. Of one that somebody joined, only that one's click ids
//! are read again until then: whoever writes some of the others waits for the lock that it was changed under. A profile that this
//! process has just made of new identifiers ([`Familiar::found`]) is not read at all: all of them have joined it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracklayer_ids::WorkspaceId;

use crate::click_ids::Clicks;
use crate::difference::ProfileId;
use crate::identifier::{Identifier, ValueMac};
use crate::memory::Generations;
use crate::store::lookup::{Known, KnownProfile, Lookup, Moment, Place, ProfileState};

/// What is remembered of profiles, in bytes: some 80,000 people of three identifiers with two click ids, or 18,000 of a hundred.
const PROFILES_BYTES: usize = 32 << 20;
/// What is remembered of identifiers, in bytes: some 500,000 without click ids of their own, or 200,000 with two.
const MEMBERS_BYTES: usize = 64 << 20;
/// What an entry takes without what hangs on it.
const ENTRY_BYTES: usize = 120;
/// The end of those who may have written click ids of somebody whose click ids were not read yet since he joined.
const NOT_READ: i64 = i64::MAX;

/// Workspace and the first half of the hash: 128 bits, which no two identifiers share.
type Key = (i64, [u8; 16]);

/// Who joined a profile since it was read, each with the end of those who may have written click ids of his without counting a
/// version.
pub type Joined = Arc<[(ValueMac, i64)]>;

/// What is remembered of an identifier.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Where it stands.
    pub place: Place,
    /// Its profile.
    pub state: Arc<ProfileState>,
    /// The newest click ids of the profile's identifiers, but for those in `joined`.
    pub clicks: Clicks,
    /// Identifiers of the profile whose click ids have to be read.
    pub joined: Joined,
    /// Click ids seen on itself, if these are remembered.
    pub own: Option<Clicks>,
}

/// A profile whose memory follows what this process changed about it.
#[derive(Debug)]
pub struct Followed<'a> {
    /// What it was.
    pub before: &'a ProfileState,
    /// What it is.
    pub now: &'a Arc<ProfileState>,
    /// Who joined it.
    pub joined: Vec<ValueMac>,
    /// Click ids that were seen on its identifiers.
    pub seen: Vec<(ValueMac, &'a Clicks)>,
}

/// Click ids that were read of identifiers of a remembered profile.
#[derive(Debug)]
pub struct ReadClicks<'a> {
    /// What it was, as remembered and as read.
    pub state: &'a ProfileState,
    /// Of those of whose own click ids nothing was remembered.
    pub own: Vec<(ValueMac, &'a Clicks)>,
    /// Of those who had joined it, as it was remembered when this was asked.
    pub joined: Vec<(ValueMac, &'a Clicks)>,
}

/// A remembered profile.
#[derive(Debug, Clone)]
struct Remembered {
    state: Arc<ProfileState>,
    /// The newest click ids of all its identifiers but those who joined.
    clicks: Clicks,
    /// Number of the reading that it comes from: what is remembered of click ids of its identifiers counts under the same.
    reading: u64,
    /// The end of those who were under way when it was first read; `None` once it was read after all of them.
    unsettled: Option<i64>,
    /// Who joined since.
    joined: Joined,
}

/// A remembered identifier.
#[derive(Debug, Clone)]
struct Member {
    profile: ProfileId,
    hub: bool,
    /// Click ids seen on itself, and under which reading of the profile.
    own: Option<(u64, Clicks)>,
}

#[derive(Debug)]
struct Memories {
    profiles: Generations<(i64, i64), Remembered>,
    members: Generations<Key, Member>,
    readings: u64,
}

/// The profiles of identifiers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Familiar {
    memories: Arc<Mutex<Memories>>,
}

impl Default for Familiar {
    fn default() -> Self {
        let (profiles, members) =
            (Generations::new(PROFILES_BYTES, weigh), Generations::new(MEMBERS_BYTES, weigh_member));
        Self { memories: Arc::new(Mutex::new(Memories { profiles, members, readings: 0 })) }
    }
}

impl Familiar {
    /// What is remembered of the profiles of identifiers, each with its place, handed to `each`.
    pub fn recall<'i>(
        &self,
        workspace: WorkspaceId,
        identifiers: impl Iterator<Item = &'i Identifier>,
        mut each: impl FnMut(usize, Option<Memory>),
    ) {
        let mut memories = self.lock();
        for (place, identifier) in identifiers.enumerate() {
            each(place, memories.recall(workspace, identifier));
        }
    }

    /// Remembers what was read: `asked`, in the order of the answer, and all others of their profiles. Contested identifiers are
    /// read every time: they are few, and what they mean for an answer is more than their profile.
    pub fn note(&self, workspace: WorkspaceId, asked: impl Iterator<Item = ValueMac>, lookup: &Lookup) {
        let mut memories = self.lock();
        for (id, profile) in &lookup.profiles {
            memories.note_profile(workspace, *id, profile, lookup);
        }
        for (mac, known) in asked.zip(&lookup.known) {
            memories.note_asked(workspace, mac, known, lookup);
        }
    }

    /// Remembers a profile that this process has stored, which must be committed: it has new identifiers alone. What click ids may
    /// have been seen on them is read until it is settled, as of those who join.
    pub fn found(&self, workspace: WorkspaceId, state: &Arc<ProfileState>, members: &[ValueMac]) {
        self.lock().found(workspace, state, members);
    }

    /// Follows what this process changed, which must be committed. What is another profile by now than the one that was changed
    /// is not touched: it does not hold, or somebody has read what came of it.
    pub fn follow(&self, workspace: WorkspaceId, followed: &Followed<'_>) {
        self.lock().follow(workspace, followed);
    }

    /// Notes click ids of identifiers, as they were read at a moment at which their profiles were what they are remembered as.
    pub fn settle(&self, workspace: WorkspaceId, moment: Moment, read: &[ReadClicks<'_>]) {
        if read.is_empty() {
            return;
        }
        let mut memories = self.lock();
        for read in read {
            memories.settle(workspace, moment, read);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memories> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memories {
    fn recall(&mut self, workspace: WorkspaceId, identifier: &Identifier) -> Option<Memory> {
        let member = self.members.get(&key(workspace, identifier.mac))?;
        let profile = self.profiles.get(&(workspace.0, member.profile.0))?;
        // It may have left the profile since it was noted.
        if profile.unsettled.is_some() || profile.state.members.binary_search(&identifier.key).is_err() {
            return None;
        }
        let own = member.own.as_ref().filter(|(reading, _)| *reading == profile.reading);
        let Remembered { state, clicks, joined, .. } = profile;
        Some(Memory {
            place: Place {
                component: state.component,
                profile: state.profile,
                hub: member.hub,
                contested: false,
            },
            state: Arc::clone(state),
            clicks: clicks.clone(),
            own: own.map(|(_, clicks)| clicks.clone()),
            joined: Arc::clone(joined),
        })
    }

    /// The profile as it is remembered, if it is in that state.
    fn profile(&mut self, workspace: WorkspaceId, state: &ProfileState) -> Option<&Remembered> {
        let profile = self.profiles.get(&(workspace.0, state.profile.0))?;
        (profile.state.id() == state.id()).then_some(profile)
    }

    fn note_profile(
        &mut self,
        workspace: WorkspaceId,
        id: ProfileId,
        profile: &KnownProfile,
        lookup: &Lookup,
    ) {
        let moment = lookup.moment;
        let before = self.profile(workspace, &profile.state).map(|before| (before.unsettled, &before.joined));
        let (end, joined) = match before {
            // What two batches read at a time need not be noted in that order.
            Some((None, _)) => return,
            // Who joined since is waited for on its own: somebody may join at every visit, and the rest is settled once.
            Some((Some(end), joined)) => {
                let ends = joined.iter().map(|(mac, end)| (*mac, end_of(*end, moment)));
                (end, ends.filter(|(_, end)| moment.over < *end).collect::<Joined>())
            }
            None => (moment.under_way, Joined::default()),
        };
        let unsettled = Some(end).filter(|end| moment.over < *end);
        self.readings += 1;
        let remembered = Remembered {
            state: Arc::clone(&profile.state),
            clicks: profile.clicks.clone(),
            reading: self.readings,
            unsettled,
            joined,
        };
        self.profiles.note((workspace.0, id.0), remembered);
        for member in lookup.members.get(&id).into_iter().flatten() {
            let at = key(workspace, member.mac);
            if member.contested {
                self.members.forget(&at);
            } else {
                self.members.note(at, Member { profile: id, hub: member.hub, own: None });
            }
        }
    }

    fn note_asked(&mut self, workspace: WorkspaceId, mac: ValueMac, known: &Known, lookup: &Lookup) {
        let at = key(workspace, mac);
        let plain = known.place.filter(|place| !place.contested);
        let Some((place, profile)) =
            plain.and_then(|place| Some((place, lookup.profiles.get(&place.profile)?)))
        else {
            self.members.forget(&at);
            return;
        };
        // Where the profile was remembered already, this may have been read before all were done.
        let remembered = self.profile(workspace, &profile.state);
        let same = remembered.filter(|remembered| Arc::ptr_eq(&remembered.state, &profile.state));
        // So may those of who joined.
        let settled = same.filter(|remembered| !remembered.joined.iter().any(|(joined, _)| *joined == mac));
        let own = settled.map(|remembered| {
            let shared = known.clicks == profile.clicks;
            (remembered.reading, if shared { profile.clicks.clone() } else { known.clicks.clone() })
        });
        self.members.note(at, Member { profile: place.profile, hub: place.hub, own });
    }

    fn found(&mut self, workspace: WorkspaceId, state: &Arc<ProfileState>, members: &[ValueMac]) {
        self.readings += 1;
        let remembered = Remembered {
            state: Arc::clone(state),
            clicks: Clicks::default(),
            reading: self.readings,
            unsettled: None,
            joined: members.iter().map(|mac| (*mac, NOT_READ)).collect(),
        };
        self.profiles.note((workspace.0, state.profile.0), remembered);
        for mac in members {
            let member = Member { profile: state.profile, hub: false, own: None };
            self.members.note(key(workspace, *mac), member);
        }
    }

    fn follow(&mut self, workspace: WorkspaceId, followed: &Followed<'_>) {
        let Some(mut profile) = self.profile(workspace, followed.before).cloned() else { return };
        profile.state = Arc::clone(followed.now);
        for (mac, seen) in &followed.seen {
            let at = key(workspace, *mac);
            let own = self.members.get(&at).and_then(|member| {
                let (reading, own) = member.own.as_ref()?;
                (*reading == profile.reading).then(|| (member.hub, own.clone()))
            });
            if let Some((hub, mut own)) = own {
                own.merge(seen);
                let own = Some((profile.reading, own));
                self.members.note(at, Member { profile: profile.state.profile, hub, own });
            }
            // Of the others, the click ids are read again anyway.
            if !profile.joined.iter().any(|(joined, _)| joined == mac) {
                profile.clicks.merge(seen);
            }
        }
        if !followed.joined.is_empty() {
            let joined = followed.joined.iter().map(|mac| (*mac, NOT_READ));
            profile.joined = profile.joined.iter().copied().chain(joined).collect();
        }
        for mac in &followed.joined {
            let member = Member { profile: profile.state.profile, hub: false, own: None };
            self.members.note(key(workspace, *mac), member);
        }
        self.profiles.note((workspace.0, profile.state.profile.0), profile);
    }

    fn settle(&mut self, workspace: WorkspaceId, moment: Moment, read: &ReadClicks<'_>) {
        let state = read.state;
        let Some(profile) = self.profile(workspace, state) else { return };
        let reading = profile.reading;
        let mut known = read.own.clone();
        if !read.joined.is_empty() {
            let mut profile = profile.clone();
            let mut joined = profile.joined.to_vec();
            for (mac, clicks) in &read.joined {
                // Who is none of them any more was settled by what somebody else read later: this may be less.
                let Some(place) = joined.iter().position(|(joined, _)| joined == mac) else { continue };
                let end = end_of(joined[place].1, moment);
                if moment.over < end {
                    joined[place].1 = end;
                } else {
                    joined.remove(place);
                    profile.clicks.merge(clicks);
                    known.push((*mac, *clicks));
                }
            }
            profile.joined = joined.into();
            self.profiles.note((workspace.0, state.profile.0), profile);
        }
        for (mac, clicks) in known {
            let at = key(workspace, mac);
            if let Some(member) = self.members.get(&at).filter(|member| member.profile == state.profile) {
                let member = Member { own: Some((reading, clicks.clone())), ..member.clone() };
                self.members.note(at, member);
            }
        }
    }
}

/// The end of those who may have written click ids unseen: those who were under way at the first moment they were read.
fn end_of(end: i64, moment: Moment) -> i64 {
    if end == NOT_READ { moment.under_way } else { end }
}

fn weigh(profile: &Remembered) -> usize {
    ENTRY_BYTES
        + size_of::<ProfileState>()
        + size_of_val(profile.state.members.as_slice())
        + size_of_val(&*profile.joined)
        + profile.clicks.bytes()
}

fn weigh_member(member: &Member) -> usize {
    ENTRY_BYTES + member.own.as_ref().map_or(0, |(_, clicks)| clicks.bytes())
}

fn key(workspace: WorkspaceId, mac: ValueMac) -> Key {
    (workspace.0, mac.half())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tracklayer_ids::SubjectKey;

    use super::*;
    use crate::click_ids::ClickKind;
    use crate::difference::ComponentId;
    use crate::policy::TypeIndex;
    use crate::store::lookup::Member as Read;

    const WORKSPACE: WorkspaceId = WorkspaceId(1);

    fn identifier(n: u8) -> Identifier {
        Identifier { type_index: TypeIndex(0), mac: ValueMac([n; 32]), key: SubjectKey([n; 16]) }
    }

    fn state(version: i64, members: &[u8]) -> Arc<ProfileState> {
        let (profile, component) = (ProfileId(1), ComponentId(2));
        let members: Vec<SubjectKey> = members.iter().map(|n| identifier(*n).key).collect();
        let key = identifier(7).key;
        Arc::new(ProfileState { profile, component, version, key, person: true, members })
    }

    fn clicks(value: &str) -> Clicks {
        let mut clicks = Clicks::default();
        clicks.see(ClickKind::Gclid, value, Timestamp::UNIX_EPOCH);
        clicks
    }

    fn read(familiar: &Familiar, version: i64, moment: (i64, i64), contested: bool) {
        read_of(familiar, state(version, &[7, 8]), &[7], moment, contested);
    }

    fn read_of(
        familiar: &Familiar,
        state: Arc<ProfileState>,
        asked: &[u8],
        (over, under_way): (i64, i64),
        contested: bool,
    ) {
        let place = Place { component: state.component, profile: state.profile, hub: false, contested };
        let member = |key: &SubjectKey| Read { mac: identifier(key.0[0]).mac, hub: false, contested };
        let members: Vec<Read> = state.members.iter().map(member).collect();
        let lookup = Lookup {
            known: vec![Known { place: Some(place), ..Known::default() }; asked.len()],
            members: [(state.profile, members)].into_iter().collect(),
            profiles: [(state.profile, KnownProfile { state, clicks: Clicks::default() })]
                .into_iter()
                .collect(),
            moment: Moment { over, under_way },
            ..Lookup::default()
        };
        familiar.note(WORKSPACE, asked.iter().map(|n| identifier(*n).mac), &lookup);
    }

    fn recall(familiar: &Familiar, n: u8) -> Option<Memory> {
        let mut found = None;
        familiar.recall(WORKSPACE, [&identifier(n)].into_iter(), |_, memory| found = memory);
        found
    }

    fn joined_of(memory: &Memory) -> Vec<ValueMac> {
        memory.joined.iter().map(|(mac, _)| *mac).collect()
    }

    /// Click ids of 9, who joined, are read.
    fn settle_joined(
        familiar: &Familiar,
        state: &ProfileState,
        (over, under_way): (i64, i64),
        seen: &Clicks,
    ) {
        let joined = vec![(identifier(9).mac, seen)];
        let read = ReadClicks { state, own: Vec::new(), joined };
        familiar.settle(WORKSPACE, Moment { over, under_way }, &[read]);
    }

    fn remembered(familiar: &Familiar) -> Option<i64> {
        recall(familiar, 7).map(|memory| memory.state.version)
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
        assert_eq!(remembered(&familiar), None, "who is contested is read every time");
    }

    #[test]
    fn who_was_not_asked_about_is_known_to_be_in_the_profile_but_not_what_was_seen_on_it() {
        let familiar = Familiar::default();
        read(&familiar, 1, (5, 5), false);
        assert!(recall(&familiar, 7).unwrap().own.is_some());
        assert!(recall(&familiar, 8).unwrap().own.is_none());
        assert!(recall(&familiar, 9).is_none());
        let (state, seen) = (state(1, &[]), clicks("g"));
        let own = vec![(identifier(8).mac, &seen)];
        let moment = Moment { over: 6, under_way: 6 };
        familiar.settle(WORKSPACE, moment, &[ReadClicks { state: &state, own, joined: Vec::new() }]);
        assert_eq!(recall(&familiar, 8).unwrap().own, Some(clicks("g")));
    }

    #[test]
    fn who_joined_is_read_until_all_are_done_who_may_not_have_seen_it() {
        let familiar = Familiar::default();
        read(&familiar, 1, (5, 5), false);
        let (before, now) = (state(1, &[7, 8]), state(2, &[7, 8, 9]));
        let joined = || vec![identifier(9).mac];
        let of_another = state(4, &[7]);
        for before in [&of_another, &before] {
            let followed = Followed { before, now: &now, joined: joined(), seen: Vec::new() };
            familiar.follow(WORKSPACE, &followed);
            assert_eq!(remembered(&familiar), Some(if before.version == 1 { 2 } else { 1 }));
        }
        assert_eq!(joined_of(&recall(&familiar, 9).unwrap()), joined());
        let late = clicks("late");
        for ((over, under_way), settled) in [((10, 20), false), ((19, 30), false), ((20, 40), true)] {
            settle_joined(&familiar, &now, (over, under_way), &late);
            let memory = recall(&familiar, 7).unwrap();
            assert_eq!(memory.joined.is_empty(), settled, "over {over}");
            assert_eq!(memory.clicks == late, settled, "over {over}");
            assert!(memory.own.is_some(), "of the others nothing has to be read");
        }
        assert_eq!(recall(&familiar, 9).unwrap().own, Some(late));
    }

    #[test]
    fn who_asked_while_somebody_had_just_joined_and_answers_last_takes_nothing_back() {
        let familiar = Familiar::default();
        read(&familiar, 1, (5, 5), false);
        let (before, now) = (state(1, &[7, 8]), state(2, &[7, 8, 9]));
        let joined = vec![identifier(9).mac];
        familiar.follow(WORKSPACE, &Followed { before: &before, now: &now, joined, seen: Vec::new() });
        // One looks before the writer is done, two after; the first to look is the last to tell.
        settle_joined(&familiar, &now, (10, 20), &Clicks::default());
        settle_joined(&familiar, &now, (20, 30), &clicks("late"));
        settle_joined(&familiar, &now, (12, 21), &Clicks::default());
        let memory = recall(&familiar, 9).unwrap();
        assert_eq!((memory.own, memory.clicks), (Some(clicks("late")), clicks("late")));
    }

    #[test]
    fn a_profile_that_somebody_joins_at_every_visit_is_remembered_once_all_of_the_first_reading_are_done() {
        let familiar = Familiar::default();
        read(&familiar, 1, (10, 20), false);
        let (first, now) = (state(1, &[7, 8]), state(2, &[7, 8, 9]));
        let joined = || vec![identifier(9).mac];
        familiar
            .follow(WORKSPACE, &Followed { before: &first, now: &now, joined: joined(), seen: Vec::new() });
        let asked: &[u8] = &[7, 9];
        read_of(&familiar, Arc::clone(&now), asked, (19, 30), false);
        assert_eq!(remembered(&familiar), None, "19 may still write");
        read_of(&familiar, Arc::clone(&now), asked, (20, 40), false);
        let memory = recall(&familiar, 7).unwrap();
        assert_eq!(memory.state.version, 2);
        assert_eq!(joined_of(&memory), joined(), "of that one 29 may still write");
        assert!(memory.own.is_some());
        assert!(recall(&familiar, 9).unwrap().own.is_none(), "what was read of it may not be all");

        let familiar = Familiar::default();
        read(&familiar, 1, (10, 20), false);
        familiar
            .follow(WORKSPACE, &Followed { before: &first, now: &now, joined: joined(), seen: Vec::new() });
        read_of(&familiar, Arc::clone(&now), asked, (19, 21), false);
        read_of(&familiar, now, asked, (21, 40), false);
        let memory = recall(&familiar, 9).unwrap();
        assert!(memory.joined.is_empty() && memory.own.is_some(), "all are done");
    }

    #[test]
    fn who_left_a_profile_is_not_taken_for_a_member() {
        let familiar = Familiar::default();
        read(&familiar, 1, (5, 5), false);
        assert!(recall(&familiar, 8).is_some());
        let (before, now) = (state(1, &[7, 8]), state(2, &[7]));
        let followed = Followed { before: &before, now: &now, joined: Vec::new(), seen: Vec::new() };
        familiar.follow(WORKSPACE, &followed);
        assert!(recall(&familiar, 7).is_some() && recall(&familiar, 8).is_none());
    }

    #[test]
    fn click_ids_that_are_seen_are_the_profiles_and_the_identifiers() {
        let familiar = Familiar::default();
        read(&familiar, 1, (5, 5), false);
        let (before, now, seen) = (state(1, &[7, 8]), state(2, &[7, 8]), clicks("g"));
        let seen = vec![(identifier(7).mac, &seen), (identifier(8).mac, &seen)];
        familiar.follow(WORKSPACE, &Followed { before: &before, now: &now, joined: Vec::new(), seen });
        let memory = recall(&familiar, 7).unwrap();
        assert_eq!((memory.state.version, memory.clicks, memory.own), (2, clicks("g"), Some(clicks("g"))));
        assert_eq!(recall(&familiar, 8).unwrap().own, None, "it may have others besides");
    }
}
