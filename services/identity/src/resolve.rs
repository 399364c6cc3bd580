//! Resolves a batch: whose profile each event belongs to, recording what is new.
//!
//! The usual batch costs one round trip. Where something is new, it is recorded in one transaction, and what that may have
//! changed is looked up again, also for the batch's other events. Statements do not grow with the batch. Whose company
//! changed is in consent's narrowing log before the answer goes out (see [`crate::consent`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tracklayer_ids::{MasterKey, SourceId, SubjectKey, WorkspaceId};

use crate::click_ids::{ClickKind, Clicks, Sighting};
use crate::consent::Telling;
use crate::difference::{ComponentId, ProfileId};
use crate::error::{IdentityError, StoreError};
use crate::familiar::{Familiar, Followed, ReadClicks};
use crate::identifier::{Hasher, Identifier, RawIdentifier, ValueMac};
use crate::memory::{FastMap, FastSet};
use crate::metrics;
use crate::policy::{Policy, TypeIndex, Types};
use crate::recent::{RecentPairs, is_fine};
use crate::store::Store;
use crate::store::grow::Grown;
use crate::store::lookup::{
    Known, KnownProfile, Lookup, MAX_MEMBERS, PairHistory, Place, ProfileState, Question,
};
use crate::store::outbox::Waiting;
use crate::store::profile::Profile;
use crate::store::record::{Founded, NewEvidence, Recorded};
use crate::store::touch::{Seen, SeenPair};

/// Most events of one batch.
pub const MAX_BATCH: usize = 2_500;
/// Most keys in one answer.
pub const MAX_SUBJECT_KEYS: usize = 1_000;

/// One event's identifiers.
#[derive(Clone)]
pub struct Item {
    /// All seen together.
    pub identifiers: Vec<RawIdentifier>,
    /// Click ids seen with them, at the event's time.
    pub clicks: Clicks,
    /// The event's corrected time.
    pub seen_at: Timestamp,
    /// Who saw it.
    pub source: SourceId,
    /// The event.
    pub message_id: String,
}

/// How an answer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// No usable identifier.
    None,
    /// Not stored: one unlinked identifier, its key is computed.
    Computed,
    /// Known before.
    Known,
    /// Something new was recorded.
    Recorded,
    /// The safer answer: several claim one of its identifiers.
    Contested,
}

/// The answer for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Key of the profile; `None` for [`Resolution::None`].
    pub canonical_key: Option<SubjectKey>,
    /// The event's own identifiers first, then the profile's key and those of its other members; at most
    /// [`MAX_SUBJECT_KEYS`].
    pub subject_keys: Vec<SubjectKey>,
    /// How it was found.
    pub resolution: Resolution,
    /// The newest click ids of device and profile.
    pub clicks: Clicks,
    /// One of its identifiers was erased: nothing may be sent.
    pub suppressed: bool,
    /// Whether a person is known, not just a device.
    pub person_known: bool,
}

/// The answers for a batch.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// In the order of the items.
    pub answers: Vec<Answer>,
    /// Numbers in consent's narrowing log of the merges and splits that the batch brought.
    pub narrowings: Vec<i64>,
}

impl Resolution {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Computed, Self::Known, Self::Recorded, Self::Contested];

    /// Its name in metrics and spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Computed => "computed",
            Self::Known => "known",
            Self::Recorded => "recorded",
            Self::Contested => "contested",
        }
    }
}

/// Identity's domain: resolves and looks up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resolver {
    store: Store,
    master_key: MasterKey,
    policy: Arc<Policy>,
    recent: RecentPairs,
    familiar: Familiar,
    telling: Option<Telling>,
}

/// What a pair of the batch asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Nothing: seen before by this source, and not long ago.
    Nothing,
    /// A note: seen before, but not by this source, or earlier or much later than now.
    Again,
    /// To be recorded.
    New,
}

impl Resolver {
    /// Over a store, with the installation's key and rules. Merges and splits wait in the store until somebody tells consent.
    #[must_use]
    pub fn new(store: Store, master_key: MasterKey, policy: Policy) -> Self {
        Self {
            store,
            master_key,
            policy: Arc::new(policy),
            recent: RecentPairs::default(),
            familiar: Familiar::default(),
            telling: None,
        }
    }

    /// Has consent told of merges and splits before they are answered.
    #[must_use]
    pub fn telling(self, telling: Telling) -> Self {
        Self { telling: Some(telling), ..self }
    }

    /// Resolves a batch; answers in the order of `items`. When this returns, what was new is committed, and consent was told
    /// of it unless it was away. Safe to repeat.
    ///
    /// # Errors
    /// The database.
    pub async fn resolve(&self, workspace: WorkspaceId, items: &[Item]) -> Result<Resolved, StoreError> {
        let started = Instant::now();
        let mut hasher = Hasher::new(self.master_key.workspace(workspace), Arc::clone(&self.policy));
        let mut seen = Rows::with_capacity(items.len(), 4);
        for item in items {
            seen.push(|places| hasher.observe_into(&item.identifiers, places));
        }
        let dropped = hasher.dropped();
        let (identifiers, types) = hasher.end();
        let mut batch = Batch::new(items, identifiers, seen, types);
        let written = self.bring_up_to_date(workspace, &mut batch).await?;
        let answers: Vec<Answer> = (0..items.len()).map(|n| batch.answer(n)).collect();
        let slow = written.is_some();
        metrics::resolved(answers.iter().map(|a| a.resolution), dropped, slow, started.elapsed());
        Ok(Resolved { answers, narrowings: written.unwrap_or_default() })
    }

    /// The profile of an identifier.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] if it was never seen with another, and the database.
    pub async fn look_up(
        &self,
        workspace: WorkspaceId,
        identifier: &RawIdentifier,
    ) -> Result<Profile, IdentityError> {
        let mut hasher = Hasher::new(self.master_key.workspace(workspace), Arc::clone(&self.policy));
        let identifier = hasher.identifier(identifier).ok_or(IdentityError::NotFound)?;
        let profile = self.store.profile_of(workspace, identifier.mac).await?;
        profile.ok_or(IdentityError::NotFound)
    }

    /// Looks the batch up, records what is new, and looks up again what that may have changed. Answers with the numbers of
    /// what consent was told; `None` if nothing was new.
    async fn bring_up_to_date(
        &self,
        workspace: WorkspaceId,
        batch: &mut Batch<'_>,
    ) -> Result<Option<Vec<i64>>, StoreError> {
        let covered = self.recent.covers(workspace, batch.pairs.iter().map(|pair| batch.seen_pair(pair)));
        let unsure: Vec<usize> = (0..covered.len()).filter(|pair| !covered[*pair]).collect();
        let mut asking = self.recall(workspace, batch);
        asking.question.pairs.extend(unsure.iter().map(|pair| batch.ends(*pair)));
        let lookup = self.store.look_up(workspace, &asking.question).await?;
        batch.take_news(&unsure, &lookup.pairs);
        let histories = unsure.iter().map(|pair| batch.seen_pair(&batch.pairs[*pair])).zip(&lookup.pairs);
        let seen = histories.filter_map(|(pair, history)| match *history {
            PairHistory::Seen { first, last } if is_fine(&pair, (first, last)) => Some((pair, first, last)),
            _ => None,
        });
        self.recent.note(workspace, seen);
        let changed = batch.recognise(&asking, &lookup);
        self.familiar.settle(workspace, lookup.moment, &asking.read(batch, &lookup));
        self.learn(workspace, batch, &asking.asked, lookup);
        if !changed.is_empty() {
            self.look_up_again(workspace, batch, &changed).await?;
        }

        let (evidence, again) = batch.evidence();
        let clicks = batch.clicks_worth_writing();
        let is_new = !evidence.pairs.is_empty();
        // Before the identifiers that they were seen on: what is stored with its click ids is not changed by them.
        self.keep_clicks(workspace, batch, &clicks).await?;
        let (recorded, recording) = if is_new {
            self.store.record(workspace, &mut batch.types, evidence).await
        } else {
            (Recorded::default(), Ok(()))
        };
        let done = match recording {
            Ok(()) => self.store.touch(workspace, &again).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // Whoever asks again brings nothing new of what is committed.
            self.tell(&recorded.narrowings).await;
            return Err(error);
        }
        let written = recorded.stored.iter().chain(&again);
        self.recent.note(workspace, written.map(|pair| (*pair, pair.first_seen, pair.last_seen)));
        let mut told = None;
        if is_new {
            let mut changed = recorded.components;
            // What joined first may have changed further with the rest.
            let grown: Vec<&Grown> =
                recorded.grown.iter().filter(|grown| !changed.contains(&grown.component)).collect();
            let mut followed = self.follow_growth(workspace, batch, &grown);
            let components = grown.iter().map(|grown| grown.component);
            changed.extend(components.filter(|component| !followed.contains(component)));
            for component in self.follow_founding(workspace, batch, &recorded.founded) {
                changed.remove(&component);
                followed.insert(component);
            }
            let stale = batch.stale(&changed, &followed);
            let again = self.look_up_again(workspace, batch, &stale);
            let (looked_up, numbers) = tokio::join!(again, self.tell(&recorded.narrowings));
            looked_up?;
            told = Some(numbers);
        }
        batch.overlay_clicks();
        Ok(told)
    }

    /// What to ask about the batch's identifiers. The batch takes those in whose profile is remembered, as they are remembered.
    fn recall(&self, workspace: WorkspaceId, batch: &mut Batch<'_>) -> Asking {
        let mut asking = Asking::default();
        let mut places = FastMap::default();
        let Batch { identifiers, known, .. } = batch;
        self.familiar.recall(workspace, identifiers.iter(), |n, memory| {
            let place = u32::try_from(n).unwrap_or(u32::MAX);
            let Some(memory) = memory else {
                asking.asked.push(place);
                return;
            };
            let Asking { question, recalled, own, joined, .. } = &mut asking;
            let profile = *places.entry(memory.state.profile).or_insert_with(|| {
                let profile = question.remembered.len();
                joined.extend(memory.joined.iter().map(|(mac, _)| (profile, *mac)));
                question.remembered.push(KnownProfile { state: memory.state, clicks: memory.clicks });
                profile
            });
            recalled.push((place, profile));
            if memory.own.is_none() {
                own.push((place, profile));
            }
            let clicks = memory.own.unwrap_or_default();
            known[n] = Known { place: Some(memory.place), clicks, ..Known::default() };
        });
        let Asking { question, asked, recalled, own, joined } = &mut asking;
        question.macs = asked.iter().map(|place| batch.mac(*place)).collect();
        question.recalled = recalled.iter().map(|(place, _)| batch.mac(*place)).collect();
        question.own = own.iter().map(|(place, _)| batch.mac(*place)).collect();
        question.own.extend(joined.iter().map(|(_, mac)| *mac));
        asking
    }

    /// Takes what was read into the batch, and remembers it for the next.
    fn learn(&self, workspace: WorkspaceId, batch: &mut Batch<'_>, asked: &[u32], lookup: Lookup) {
        self.familiar.note(workspace, asked.iter().map(|place| batch.mac(*place)), &lookup);
        let Lookup { known, profiles, .. } = lookup;
        batch.learn(asked, known, profiles);
    }

    /// Looks identifiers up whose profile is not what the batch knows.
    async fn look_up_again(
        &self,
        workspace: WorkspaceId,
        batch: &mut Batch<'_>,
        places: &[u32],
    ) -> Result<(), StoreError> {
        let macs = places.iter().map(|place| batch.mac(*place)).collect();
        let lookup = self.store.look_up(workspace, &Question { macs, ..Question::default() }).await?;
        self.learn(workspace, batch, places, lookup);
        Ok(())
    }

    /// Keeps the batch's sightings. Where they are of somebody stored, what is known of his profile follows.
    async fn keep_clicks(
        &self,
        workspace: WorkspaceId,
        batch: &mut Batch<'_>,
        clicks: &[(u32, ClickKind, Sighting)],
    ) -> Result<(), StoreError> {
        let rows: Vec<_> =
            clicks.iter().map(|(place, kind, seen)| (batch.mac(*place), *kind, seen)).collect();
        let components = self.store.keep_clicks(workspace, &rows).await?;
        if components.is_empty() {
            return Ok(());
        }
        let mut seen: BTreeMap<u32, Clicks> = BTreeMap::new();
        for (place, kind, sighting) in clicks {
            seen.entry(*place).or_default().add(*kind, sighting);
        }
        let mut seen_of: FastMap<ProfileId, Vec<(u32, Clicks)>> = FastMap::default();
        for (place, seen) in seen {
            if let Some(at) = batch.place(place) {
                batch.known[place as usize].clicks.merge(&seen);
                seen_of.entry(at.profile).or_default().push((place, seen));
            }
        }
        let component_of: FastMap<ComponentId, Seen> =
            components.into_iter().map(|seen| (seen.component, seen)).collect();
        let profiles: Vec<(ProfileId, Seen)> = batch
            .profiles
            .values()
            .filter_map(|known| {
                let seen = component_of.get(&known.state.component)?;
                (seen.before == known.state.version).then_some((known.state.profile, *seen))
            })
            .collect();
        for (profile, Seen { after, .. }) in profiles {
            let seen = seen_of.remove(&profile).unwrap_or_default();
            let Some((before, now)) = batch.follow(profile, after, &[]) else { continue };
            let seen: Vec<(ValueMac, &Clicks)> =
                seen.iter().map(|(place, seen)| (batch.mac(*place), seen)).collect();
            let followed = Followed { before: &before, now: &now, joined: Vec::new(), seen };
            self.familiar.follow(workspace, &followed);
        }
        batch.overlay_clicks();
        Ok(())
    }

    /// Takes into the batch and the memory who joined profiles. Answers with the components of which it could: not if one was
    /// another by then than the batch knows.
    fn follow_growth(
        &self,
        workspace: WorkspaceId,
        batch: &mut Batch<'_>,
        grown: &[&Grown],
    ) -> BTreeSet<ComponentId> {
        let mut followed = BTreeSet::new();
        if grown.is_empty() {
            return followed;
        }
        let place_of: FastMap<ValueMac, u32> =
            batch.identifiers.iter().map(|identifier| identifier.mac).zip(0..).collect();
        for Grown { component, before, after, joined } in grown {
            let mut of_profile: BTreeMap<ProfileId, Vec<u32>> = BTreeMap::new();
            for (profile, identifier) in joined {
                of_profile.entry(*profile).or_default().extend(place_of.get(&identifier.mac));
            }
            let is_known = of_profile.keys().all(|profile| {
                let state = batch.profiles.get(profile).map(|known| &known.state);
                state.is_some_and(|state| (state.component, state.version) == (*component, *before))
            });
            if !is_known {
                continue;
            }
            for (profile, places) in of_profile {
                let Some((before, now)) = batch.follow(profile, *after, &places) else { continue };
                let joined = places.iter().map(|place| batch.mac(*place)).collect();
                let change = Followed { before: &before, now: &now, joined, seen: Vec::new() };
                self.familiar.follow(workspace, &change);
            }
            followed.insert(*component);
        }
        followed
    }

    /// Takes into the batch and the memory what its new identifiers made up. Answers with the components.
    fn follow_founding(
        &self,
        workspace: WorkspaceId,
        batch: &mut Batch<'_>,
        founded: &[Founded],
    ) -> Vec<ComponentId> {
        if founded.is_empty() {
            return Vec::new();
        }
        let place_of: FastMap<ValueMac, u32> =
            batch.identifiers.iter().map(|identifier| identifier.mac).zip(0..).collect();
        let mut followed = Vec::with_capacity(founded.len());
        for founded in founded {
            let macs: Vec<ValueMac> = founded.members.iter().map(|identifier| identifier.mac).collect();
            let places: Vec<u32> = macs.iter().filter_map(|mac| place_of.get(mac).copied()).collect();
            if places.len() == macs.len() {
                let state = batch.found(founded, &places);
                self.familiar.found(workspace, &state, &macs);
                followed.push(founded.component);
            }
        }
        followed
    }

    /// Nothing merged or split: no round trip.
    async fn tell(&self, narrowings: &[Waiting]) -> Vec<i64> {
        match self.telling.as_ref().filter(|_| !narrowings.is_empty()) {
            Some(telling) => telling.tell(narrowings).await,
            None => Vec::new(),
        }
    }
}

/// What a batch asks, and about whom.
#[derive(Default)]
struct Asking {
    question: Question,
    /// Places of those of whom nothing is remembered, in the order of the question.
    asked: Vec<u32>,
    /// Places of those whose profile is remembered, each with the profile's place in the question.
    recalled: Vec<(u32, usize)>,
    /// Of these, those of whose own click ids nothing is remembered.
    own: Vec<(u32, usize)>,
    /// Those who joined remembered profiles lately; their click ids are asked behind the former.
    joined: Vec<(usize, ValueMac)>,
}

impl Asking {
    /// The click ids that were read of members of profiles that are what they were, by profile.
    fn read<'a>(&'a self, batch: &Batch<'_>, lookup: &'a Lookup) -> Vec<ReadClicks<'a>> {
        let joined: FastSet<ValueMac> = self.joined.iter().map(|(_, mac)| *mac).collect();
        let own = self.own.iter().map(|(place, profile)| ((*profile, batch.mac(*place)), false));
        let asked = own.chain(self.joined.iter().map(|joined| (*joined, true)));
        let mut read: BTreeMap<usize, ReadClicks<'a>> = BTreeMap::new();
        for (((profile, mac), has_joined), clicks) in asked.zip(&lookup.own) {
            // Of who joined, it was asked twice.
            if !lookup.holds[profile] || (!has_joined && joined.contains(&mac)) {
                continue;
            }
            let state: &'a ProfileState = &self.question.remembered[profile].state;
            let of_profile = read.entry(profile).or_insert_with(|| ReadClicks {
                state,
                own: Vec::new(),
                joined: Vec::new(),
            });
            let members = if has_joined { &mut of_profile.joined } else { &mut of_profile.own };
            members.push((mac, clicks));
        }
        read.into_values().collect()
    }
}

/// Lists of numbers, one behind the other.
struct Rows {
    all: Vec<u32>,
    ends: Vec<usize>,
}

impl Rows {
    fn with_capacity(rows: usize, each: usize) -> Self {
        Self { all: Vec::with_capacity(rows * each), ends: Vec::with_capacity(rows) }
    }

    /// Adds a row of what `fill` appends.
    fn push(&mut self, fill: impl FnOnce(&mut Vec<u32>)) {
        fill(&mut self.all);
        self.ends.push(self.all.len());
    }

    fn row(&self, n: usize) -> &[u32] {
        let from = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.all[from..self.ends[n]]
    }

    fn len(&self) -> usize {
        self.ends.len()
    }
}

/// A pair of the batch, with its source.
struct Pair {
    /// Places of both, lower hash first.
    ends: (u32, u32),
    source: SourceId,
    first_seen: Timestamp,
    last_seen: Timestamp,
    /// The item of the first sight.
    item: u32,
    news: News,
}

/// A batch and what is known about it so far. Its distinct identifiers have places, by which everything about them is found.
struct Batch<'a> {
    items: &'a [Item],
    identifiers: Vec<Identifier>,
    /// Each item's identifiers, strongest first.
    seen: Rows,
    types: Types,
    /// What is known of each identifier.
    known: Vec<Known>,
    profiles: FastMap<ProfileId, KnownProfile>,
    /// Distinct with their source.
    pairs: Vec<Pair>,
    /// Each item's pairs.
    pairs_of: Rows,
    /// Whether the item brought something new.
    is_new: Vec<bool>,
    /// The batch's own sightings, by identifier.
    clicks: Vec<Clicks>,
}

impl<'a> Batch<'a> {
    fn new(items: &'a [Item], identifiers: Vec<Identifier>, seen: Rows, types: Types) -> Self {
        let (pairs, pairs_of) = pairs_of(items, &identifiers, &seen);
        Self {
            items,
            is_new: vec![false; items.len()],
            known: vec![Known::default(); identifiers.len()],
            clicks: vec![Clicks::default(); identifiers.len()],
            identifiers,
            seen,
            types,
            profiles: FastMap::default(),
            pairs,
            pairs_of,
        }
    }

    fn mac(&self, place: u32) -> ValueMac {
        self.identifiers[place as usize].mac
    }

    fn ends(&self, pair: usize) -> (ValueMac, ValueMac, SourceId) {
        let Pair { ends: (a, b), source, .. } = self.pairs[pair];
        (self.mac(a), self.mac(b), source)
    }

    fn seen_pair(&self, pair: &Pair) -> SeenPair<'a> {
        let Pair { ends: (a, b), source, first_seen, last_seen, item, .. } = *pair;
        let message_id = &self.items[item as usize].message_id;
        SeenPair { a: self.mac(a), b: self.mac(b), source, first_seen, last_seen, message_id }
    }

    /// Takes in what was looked up of pairs; the others are known to ask for nothing.
    fn take_news(&mut self, unsure: &[usize], histories: &[PairHistory]) {
        for (n, history) in unsure.iter().zip(histories) {
            let pair = self.seen_pair(&self.pairs[*n]);
            self.pairs[*n].news = match *history {
                PairHistory::Never => News::New,
                PairHistory::Seen { first, last } if is_fine(&pair, (first, last)) => News::Nothing,
                PairHistory::Seen { .. } | PairHistory::ByOthers => News::Again,
            };
        }
    }

    fn learn(&mut self, asked: &[u32], known: Vec<Known>, profiles: FastMap<ProfileId, KnownProfile>) {
        for (place, known) in asked.iter().zip(known) {
            self.known[*place as usize] = known;
        }
        if self.profiles.is_empty() {
            self.profiles = profiles;
        } else {
            self.profiles.extend(profiles);
        }
    }

    /// Takes in what is still as it was remembered; answers with what is not, to be looked up.
    fn recognise(&mut self, asking: &Asking, lookup: &Lookup) -> Vec<u32> {
        let Asking { question, recalled, own, joined, .. } = asking;
        let mut changed = Vec::new();
        for ((place, profile), marks) in recalled.iter().zip(&lookup.recalled) {
            if lookup.holds[*profile] {
                let known = &mut self.known[*place as usize];
                (known.blocked, known.suppressed) = (marks.blocked, marks.suppressed);
            } else {
                changed.push(*place);
            }
        }
        let (of_own, of_joined) = lookup.own.split_at(own.len().min(lookup.own.len()));
        for ((place, _), clicks) in own.iter().zip(of_own) {
            self.known[*place as usize].clicks = clicks.clone();
        }
        self.profiles.reserve(question.remembered.len() + lookup.profiles.len());
        for (profile, _) in question.remembered.iter().zip(&lookup.holds).filter(|(_, holds)| **holds) {
            self.profiles.insert(profile.state.profile, profile.clone());
        }
        for ((profile, _), clicks) in joined.iter().zip(of_joined).filter(|((n, _), _)| lookup.holds[*n]) {
            let profile = question.remembered[*profile].state.profile;
            if let Some(profile) = self.profiles.get_mut(&profile) {
                profile.clicks.merge(clicks);
            }
        }
        changed
    }

    /// Takes in the version that a profile has by now and who joined it, by place; answers with what it was and what it is.
    fn follow(
        &mut self,
        profile: ProfileId,
        version: i64,
        joined: &[u32],
    ) -> Option<(Arc<ProfileState>, Arc<ProfileState>)> {
        let known = self.profiles.get_mut(&profile)?;
        let before = Arc::clone(&known.state);
        let ProfileState { component, key, person, .. } = *before;
        let mut members = before.members.clone();
        let most = usize::try_from(MAX_MEMBERS).unwrap_or(usize::MAX);
        for place in joined {
            let own = &mut self.known[*place as usize];
            own.place = Some(Place { component, profile, hub: false, contested: false });
            known.clicks.merge(&own.clicks);
            let key = self.identifiers[*place as usize].key;
            if let (Err(at), true) = (members.binary_search(&key), members.len() < most) {
                members.insert(at, key);
            }
        }
        let now = Arc::new(ProfileState { profile, component, version, key, person, members });
        known.state = Arc::clone(&now);
        Some((before, now))
    }

    /// Takes in a profile of new identifiers, by place. Their click ids are those that were looked up when nobody had stored them.
    fn found(&mut self, founded: &Founded, places: &[u32]) -> Arc<ProfileState> {
        let Founded { component, profile, version, key, person, ref members } = *founded;
        let mut members: Vec<SubjectKey> = members.iter().map(|identifier| identifier.key).collect();
        members.sort_unstable();
        let mut clicks = Clicks::default();
        for place in places {
            let own = &mut self.known[*place as usize];
            own.place = Some(Place { component, profile, hub: false, contested: false });
            clicks.merge(&own.clicks);
        }
        let state = Arc::new(ProfileState { profile, component, version, key, person, members });
        self.profiles.insert(profile, KnownProfile { state: Arc::clone(&state), clicks });
        state
    }

    /// The item's identifiers that are neither blocked by a decision nor erased.
    fn usable(&self, item: usize) -> impl Iterator<Item = u32> + Clone {
        self.seen.row(item).iter().copied().filter(|place| self.is_usable(*place))
    }

    fn is_usable(&self, place: u32) -> bool {
        let known = &self.known[place as usize];
        !known.blocked && !known.suppressed
    }

    fn place(&self, place: u32) -> Option<Place> {
        self.known[place as usize].place
    }

    fn is_suppressed(&self, item: usize) -> bool {
        self.seen.row(item).iter().any(|place| self.known[*place as usize].suppressed)
    }

    /// What must be recorded, and the known links whose times or sources are worth a write. Marks the items that brought
    /// something new.
    fn evidence(&mut self) -> (NewEvidence<'a>, Vec<SeenPair<'a>>) {
        let (mut new, mut again) = (Vec::new(), Vec::new());
        for n in 0..self.pairs.len() {
            let Pair { ends: (a, b), news, .. } = self.pairs[n];
            if !self.is_usable(a) || !self.is_usable(b) {
                self.pairs[n].news = News::Nothing;
                continue;
            }
            // A link is no use without its identifiers: they may have been unblocked since.
            let stored = self.place(a).is_some() && self.place(b).is_some();
            match news {
                News::Again if stored => again.push(self.seen_pair(&self.pairs[n])),
                News::Nothing if stored => {}
                _ => {
                    self.pairs[n].news = News::New;
                    new.push(self.seen_pair(&self.pairs[n]));
                }
            }
        }
        let mut places = Vec::new();
        for n in 0..self.items.len() {
            let mut pairs = self.pairs_of.row(n).iter();
            if pairs.any(|pair| self.pairs[*pair as usize].news == News::New) {
                self.is_new[n] = true;
                places.extend(self.usable(n));
            }
        }
        places.sort_unstable();
        places.dedup();
        let identifiers = places.into_iter().map(|n| (self.identifiers[n as usize], self.place(n)));
        let mut identifiers: Vec<_> = identifiers.collect();
        identifiers.sort_unstable_by_key(|(identifier, _)| identifier.mac);
        new.sort_unstable_by_key(|pair| (pair.a, pair.b, pair.source));
        (NewEvidence { identifiers, pairs: new }, again)
    }

    /// Files the batch's sightings under the weakest identifier of their event (the browser, not the person), and answers
    /// with those that are worth writing. A hub's sightings would be anybody's.
    fn clicks_worth_writing(&mut self) -> Vec<(u32, ClickKind, Sighting)> {
        for (n, item) in self.items.iter().enumerate() {
            if item.clicks.is_empty() || self.is_suppressed(n) {
                continue;
            }
            let weakest = self.usable(n).filter(|place| !self.is_hub(*place)).last();
            if let Some(place) = weakest {
                self.clicks[place as usize].merge(&item.clicks);
            }
        }
        let mut worth = Vec::new();
        for ((seen, known), place) in self.clicks.iter().zip(&self.known).zip(0..) {
            worth.extend(known.clicks.worth_writing(seen).map(|(kind, seen)| (place, kind, seen.clone())));
        }
        worth
    }

    /// Identifiers whose profile may not be what is known: those of new items, unless the batch followed what became of them, and
    /// those in components that changed.
    fn stale(&self, changed: &BTreeSet<ComponentId>, followed: &BTreeSet<ComponentId>) -> Vec<u32> {
        let is_in = |known: &Known, components: &BTreeSet<ComponentId>| {
            known.place.is_some_and(|place| components.contains(&place.component))
        };
        let moved: Vec<bool> = self.known.iter().map(|known| is_in(known, changed)).collect();
        let mut stale = Vec::new();
        for n in 0..self.seen.len() {
            let seen = self.seen.row(n);
            let is_followed = self.usable(n).all(|place| is_in(&self.known[place as usize], followed));
            if (self.is_new[n] && !is_followed) || seen.iter().any(|place| moved[*place as usize]) {
                stale.extend_from_slice(seen);
            }
        }
        stale.sort_unstable();
        stale.dedup();
        stale
    }

    /// Adds the batch's own sightings to what was looked up: what is not worth a write still is the newest.
    fn overlay_clicks(&mut self) {
        for (known, seen) in self.known.iter_mut().zip(&self.clicks).filter(|(_, seen)| !seen.is_empty()) {
            known.clicks.merge(seen);
            let profile = known.place.and_then(|place| self.profiles.get_mut(&place.profile));
            if let Some(profile) = profile {
                profile.clicks.merge(seen);
            }
        }
    }

    fn is_hub(&self, place: u32) -> bool {
        self.place(place).is_some_and(|place| place.hub)
    }

    fn answer(&self, n: usize) -> Answer {
        let suppressed = self.is_suppressed(n);
        let seen = self.seen.row(n);
        let strongest = self
            .usable(n)
            .find(|place| self.types.is_exclusive(self.identifiers[*place as usize].type_index))
            .or_else(|| self.usable(n).next());
        let profile = strongest.and_then(|place| self.profiles.get(&self.place(place)?.profile));
        let room = seen.len() + profile.map_or(0, |profile| profile.state.members.len());
        let mut subject_keys: Vec<SubjectKey> = Vec::with_capacity(room.min(MAX_SUBJECT_KEYS));
        let own = seen.iter().filter(|place| !self.known[**place as usize].blocked);
        subject_keys.extend(own.map(|place| self.identifiers[*place as usize].key));
        let Some(strongest) = strongest.map(|place| &self.identifiers[place as usize]) else {
            return Answer {
                canonical_key: None,
                subject_keys,
                resolution: Resolution::None,
                clicks: Clicks::default(),
                suppressed,
                person_known: false,
            };
        };
        // The profile's first: usually it says the same as all of them.
        let mut clicks = profile.map(|profile| profile.clicks.clone()).unwrap_or_default();
        for place in self.usable(n).filter(|place| !self.is_hub(*place)) {
            clicks.merge(&self.known[place as usize].clicks);
        }
        let mut person_known = self.types.is_person(strongest.type_index);
        if let Some(profile) = profile {
            person_known |= profile.state.person;
            // The profile's own key first: it is what a merge or a split of it names, also where it has more than fit.
            let canonical = std::iter::once(profile.state.key);
            let members = profile.state.members.iter().copied().filter(|key| *key != profile.state.key);
            let own = subject_keys.len();
            for key in canonical.chain(members) {
                if subject_keys.len() == MAX_SUBJECT_KEYS {
                    break;
                }
                if !subject_keys[..own].contains(&key) {
                    subject_keys.push(key);
                }
            }
        }
        Answer {
            canonical_key: Some(profile.map_or(strongest.key, |profile| profile.state.key)),
            subject_keys,
            resolution: self.resolution(n, profile.is_some()),
            clicks,
            suppressed,
            person_known,
        }
    }

    fn resolution(&self, n: usize, stored: bool) -> Resolution {
        let places = self
            .usable(n)
            .filter_map(|place| Some((self.identifiers[place as usize].type_index, self.place(place)?)));
        // Two values of one exclusive type in one event, not merged by a decision. They stand side by side where types do.
        let mut of_type: Vec<(TypeIndex, ProfileId)> = Vec::new();
        let clash = places.clone().any(|(type_index, place)| {
            let clashes = of_type.iter().any(|(of, profile)| *of == type_index && *profile != place.profile);
            if self.types.is_exclusive(type_index) {
                of_type.push((type_index, place.profile));
            }
            clashes
        });
        if clash || places.clone().any(|(_, place)| place.contested) {
            Resolution::Contested
        } else if self.is_new[n] {
            Resolution::Recorded
        } else if stored {
            Resolution::Known
        } else {
            Resolution::Computed
        }
    }
}

/// Every pair of the items' identifiers, distinct with its source, and those of each item.
fn pairs_of(items: &[Item], identifiers: &[Identifier], seen: &Rows) -> (Vec<Pair>, Rows) {
    let mut pairs: Vec<Pair> = Vec::with_capacity(identifiers.len());
    let mut of_item = Rows::with_capacity(items.len(), 4);
    let mut places: FastMap<(u32, u32, SourceId), u32> = FastMap::default();
    places.reserve(identifiers.len());
    for ((n, item), number) in items.iter().enumerate().zip(0..) {
        let row = seen.row(n);
        let ends = row.iter().enumerate().flat_map(|(n, a)| row[n + 1..].iter().map(move |b| (*a, *b)));
        of_item.push(|numbers| {
            numbers.extend(ends.map(|(a, b)| {
                let in_order = identifiers[a as usize].mac < identifiers[b as usize].mac;
                let (a, b) = if in_order { (a, b) } else { (b, a) };
                let next = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
                let place = *places.entry((a, b, item.source)).or_insert(next);
                if place == next {
                    let (first_seen, last_seen) = (item.seen_at, item.seen_at);
                    let (source, news) = (item.source, News::Nothing);
                    pairs.push(Pair { ends: (a, b), source, first_seen, last_seen, item: number, news });
                } else {
                    pairs[place as usize].see(item.seen_at, number);
                }
                place
            }));
        });
    }
    (pairs, of_item)
}

impl Pair {
    /// Adds one sight.
    fn see(&mut self, at: Timestamp, item: u32) {
        self.last_seen = self.last_seen.max(at);
        if at < self.first_seen {
            (self.first_seen, self.item) = (at, item);
        }
    }
}
