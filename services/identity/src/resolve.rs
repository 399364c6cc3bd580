//! Resolves a batch: whose profile each event belongs to, recording what is new.
//!
//! The usual batch costs one round trip. Where something is new, it is recorded in one transaction, and what that may have
//! changed is looked up again, also for the batch's other events. Statements do not grow with the batch. Whose company
//! changed is in consent's narrowing log before the answer goes out (see [`crate::consent`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tracklayer_ids::{MasterKey, SourceId, SubjectKey, WorkspaceId};

use crate::click_ids::{ClickKind, Clicks, Sighting};
use crate::consent::Telling;
use crate::decision::pair;
use crate::difference::{ComponentId, ProfileId};
use crate::error::{IdentityError, StoreError};
use crate::familiar::Familiar;
use crate::identifier::{Hasher, Identifier, RawIdentifier, ValueMac};
use crate::metrics;
use crate::policy::{Policy, Types};
use crate::recent::{LAST_SEEN_COARSE, RecentPairs};
use crate::store::Store;
use crate::store::lookup::{Known, KnownProfile, PairHistory, Place, Question, RememberedProfile};
use crate::store::outbox::Waiting;
use crate::store::profile::Profile;
use crate::store::record::{NewEvidence, Recorded};
use crate::store::touch::SeenPair;

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
        let seen: Vec<Vec<Identifier>> = items.iter().map(|item| hasher.observe(&item.identifiers)).collect();
        let dropped = hasher.dropped();
        let mut batch = Batch::new(items, seen, hasher.into_types());
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
        let (recent, pairs): (Vec<SeenPair>, Vec<SeenPair>) =
            batch.pairs().partition(|pair| self.recent.covers(workspace, pair));
        let mut question = Question { pairs, ..Question::default() };
        for (mac, brings) in batch.macs() {
            match self.familiar.of(workspace, mac) {
                Some(state) => question.remembered.push((mac, state)),
                None => question.macs.push((mac, brings)),
            }
        }
        let mut lookup = self.store.look_up(workspace, &question).await?;
        let remembered = std::mem::take(&mut lookup.remembered);
        self.learn(workspace, batch, &question.macs, lookup.known, lookup.profiles);
        let changed = batch.recognise(&question.remembered, remembered);
        if !changed.is_empty() {
            changed.iter().for_each(|(mac, _)| self.familiar.forget(workspace, *mac));
            let question = Question { macs: changed, ..Question::default() };
            let lookup = self.store.look_up(workspace, &question).await?;
            self.learn(workspace, batch, &question.macs, lookup.known, lookup.profiles);
        }
        for pair in recent {
            batch.news.insert(pair.ends(), (pair, News::Nothing));
        }
        for (pair, history) in question.pairs.into_iter().zip(lookup.pairs) {
            let news = news_of(&pair, history);
            if let (News::Nothing, PairHistory::Seen { first, last }) = (news, history) {
                self.recent.note(workspace, &pair, first, last);
            }
            batch.news.insert(pair.ends(), (pair, news));
        }

        let (evidence, again) = batch.evidence();
        let clicks = batch.clicks_worth_writing();
        let is_new = !evidence.pairs.is_empty();
        let written: Vec<SeenPair> = evidence.pairs.iter().chain(&again).cloned().collect();
        let recorded = if is_new {
            self.store.record(workspace, &mut batch.types, evidence).await?
        } else {
            Recorded::default()
        };
        self.store.touch(workspace, &again).await?;
        self.store.keep_clicks(workspace, &clicks).await?;
        for pair in &written {
            self.recent.note(workspace, pair, pair.first_seen, pair.last_seen);
        }
        let mut told = None;
        if is_new {
            let question = Question { macs: batch.stale(&recorded.components), ..Question::default() };
            let (lookup, numbers) =
                tokio::join!(self.store.look_up(workspace, &question), self.tell(&recorded.narrowings));
            let lookup = lookup?;
            self.learn(workspace, batch, &question.macs, lookup.known, lookup.profiles);
            told = Some(numbers);
        }
        batch.overlay_clicks();
        Ok(told)
    }

    /// Takes what was read into the batch, and remembers it for the next.
    fn learn(
        &self,
        workspace: WorkspaceId,
        batch: &mut Batch<'_>,
        macs: &[(ValueMac, bool)],
        known: Vec<Known>,
        profiles: HashMap<ProfileId, KnownProfile>,
    ) {
        self.familiar.note(workspace, macs.iter().map(|(mac, _)| *mac).zip(&known), &profiles);
        batch.learn(macs, known, profiles);
    }

    /// Nothing merged or split: no round trip.
    async fn tell(&self, narrowings: &[Waiting]) -> Vec<i64> {
        match self.telling.as_ref().filter(|_| !narrowings.is_empty()) {
            Some(telling) => telling.tell(narrowings).await,
            None => Vec::new(),
        }
    }
}

/// A batch and what is known about it so far.
struct Batch<'a> {
    items: &'a [Item],
    /// Each item's identifiers, strongest first.
    seen: Vec<Vec<Identifier>>,
    types: Types,
    known: HashMap<ValueMac, Known>,
    profiles: HashMap<ProfileId, KnownProfile>,
    /// Every pair of the batch, with what it asks for.
    news: HashMap<(ValueMac, ValueMac, SourceId), (SeenPair, News)>,
    /// Whether the item brought something new.
    is_new: Vec<bool>,
    /// The batch's own sightings.
    clicks: BTreeMap<ValueMac, Clicks>,
}

impl<'a> Batch<'a> {
    fn new(items: &'a [Item], seen: Vec<Vec<Identifier>>, types: Types) -> Self {
        Self {
            items,
            is_new: vec![false; items.len()],
            seen,
            types,
            known: HashMap::new(),
            profiles: HashMap::new(),
            news: HashMap::new(),
            clicks: BTreeMap::new(),
        }
    }

    /// The distinct identifiers, each with whether it brings click ids.
    fn macs(&self) -> Vec<(ValueMac, bool)> {
        let mut macs: HashMap<ValueMac, bool> = HashMap::new();
        for (item, seen) in self.items.iter().zip(&self.seen) {
            let brings = !item.clicks.is_empty();
            seen.iter().for_each(|identifier| *macs.entry(identifier.mac).or_default() |= brings);
        }
        macs.into_iter().collect()
    }

    /// The pairs, distinct with their source.
    fn pairs(&self) -> impl Iterator<Item = SeenPair> + use<> {
        let mut pairs = HashMap::new();
        for (item, seen) in self.items.iter().zip(&self.seen) {
            pairs_of(seen).for_each(|ends| see(&mut pairs, ends, item));
        }
        pairs.into_values()
    }

    fn learn(
        &mut self,
        macs: &[(ValueMac, bool)],
        known: Vec<Known>,
        profiles: HashMap<ProfileId, KnownProfile>,
    ) {
        self.known.extend(macs.iter().map(|(mac, _)| *mac).zip(known));
        self.profiles.extend(profiles);
    }

    /// Takes in what is still as it was remembered; answers with what is not, to be looked up.
    fn recognise(
        &mut self,
        remembered: &[(ValueMac, Arc<RememberedProfile>)],
        known: Vec<Option<Known>>,
    ) -> Vec<(ValueMac, bool)> {
        let mut changed = Vec::new();
        for ((mac, _), known) in remembered.iter().zip(known) {
            match known {
                Some(known) => {
                    self.known.insert(*mac, known);
                }
                // Its own sightings are read in any case: one that brings none costs a probe more.
                None => changed.push((*mac, true)),
            }
        }
        changed
    }

    /// The item's identifiers that are neither blocked by a decision nor erased.
    fn usable(&self, item: usize) -> impl Iterator<Item = &Identifier> + Clone {
        self.seen[item].iter().filter(|identifier| {
            self.known.get(&identifier.mac).is_none_or(|known| !known.blocked && !known.suppressed)
        })
    }

    fn place(&self, mac: ValueMac) -> Option<Place> {
        self.known.get(&mac)?.place
    }

    fn is_suppressed(&self, item: usize) -> bool {
        self.seen[item].iter().any(|i| self.known.get(&i.mac).is_some_and(|known| known.suppressed))
    }

    /// What must be recorded, and the known links whose times or sources are worth a write. Marks the items that brought
    /// something new.
    fn evidence(&mut self) -> (NewEvidence, Vec<SeenPair>) {
        let mut new = BTreeSet::new();
        let mut again = BTreeSet::new();
        let mut identifiers: BTreeMap<ValueMac, Identifier> = BTreeMap::new();
        for (n, item) in self.items.iter().enumerate() {
            let usable: Vec<Identifier> = self.usable(n).copied().collect();
            for (a, b) in pairs_of(&usable) {
                let ends = (a, b, item.source);
                // A link is no use without its identifiers: they may have been unblocked since.
                let stored = self.place(a).is_some() && self.place(b).is_some();
                match self.news.get(&ends).map(|(_, news)| *news) {
                    Some(News::Again) if stored => {
                        again.insert(ends);
                    }
                    Some(News::Nothing) if stored => {}
                    _ => {
                        new.insert(ends);
                        self.is_new[n] = true;
                    }
                }
            }
            if self.is_new[n] {
                identifiers.extend(usable.iter().map(|identifier| (identifier.mac, *identifier)));
            }
        }
        let place = |mac: &ValueMac| self.known.get(mac).and_then(|known| known.place);
        let identifiers =
            identifiers.into_iter().map(|(mac, identifier)| (identifier, place(&mac))).collect();
        let mut take = |ends: BTreeSet<_>| ends.iter().filter_map(|e| Some(self.news.remove(e)?.0)).collect();
        (NewEvidence { identifiers, pairs: take(new) }, take(again))
    }

    /// Files the batch's sightings under the weakest identifier of their event (the browser, not the person), and answers
    /// with those that are worth writing. A hub's sightings would be anybody's.
    fn clicks_worth_writing(&mut self) -> Vec<(ValueMac, ClickKind, Sighting)> {
        for (n, item) in self.items.iter().enumerate() {
            if item.clicks.is_empty() || self.is_suppressed(n) {
                continue;
            }
            let weakest = self.usable(n).filter(|identifier| !self.is_hub(identifier.mac)).last();
            if let Some(mac) = weakest.map(|identifier| identifier.mac) {
                self.clicks.entry(mac).or_default().merge(&item.clicks);
            }
        }
        let nothing = Clicks::default();
        let mut worth = Vec::new();
        for (mac, seen) in &self.clicks {
            let known = self.known.get(mac).map_or(&nothing, |known| &known.clicks);
            worth.extend(known.worth_writing(seen).map(|(kind, sighting)| (*mac, kind, sighting.clone())));
        }
        worth
    }

    /// Identifiers whose profile may not be what was looked up: those of new items, and those in components that changed.
    fn stale(&self, changed: &BTreeSet<ComponentId>) -> Vec<(ValueMac, bool)> {
        let mut stale = BTreeSet::new();
        for (n, seen) in self.seen.iter().enumerate() {
            let moved = seen.iter().any(|identifier| {
                self.place(identifier.mac).is_some_and(|place| changed.contains(&place.component))
            });
            if moved || self.is_new[n] {
                stale.extend(seen.iter().map(|identifier| identifier.mac));
            }
        }
        // What is worth writing was found out before; now their profiles say it all.
        stale.into_iter().map(|mac| (mac, false)).collect()
    }

    /// Adds the batch's own sightings to what was looked up: what is not worth a write still is the newest.
    fn overlay_clicks(&mut self) {
        for (mac, clicks) in &self.clicks {
            let Some(known) = self.known.get_mut(mac) else { continue };
            known.clicks.merge(clicks);
            let profile = known.place.and_then(|place| self.profiles.get_mut(&place.profile));
            if let Some(profile) = profile {
                profile.clicks.merge(clicks);
            }
        }
    }

    fn is_hub(&self, mac: ValueMac) -> bool {
        self.place(mac).is_some_and(|place| place.hub)
    }

    fn answer(&self, n: usize) -> Answer {
        let suppressed = self.is_suppressed(n);
        let own =
            || self.seen[n].iter().filter(|i| self.known.get(&i.mac).is_none_or(|known| !known.blocked));
        let mut subject_keys: Vec<SubjectKey> = own().map(|identifier| identifier.key).collect();
        let strongest =
            self.usable(n).find(|i| self.types.is_exclusive(i.type_index)).or_else(|| self.usable(n).next());
        let Some(strongest) = strongest else {
            return Answer {
                canonical_key: None,
                subject_keys,
                resolution: Resolution::None,
                clicks: Clicks::default(),
                suppressed,
                person_known: false,
            };
        };
        let mut clicks = Clicks::default();
        for identifier in self.usable(n).filter(|identifier| !self.is_hub(identifier.mac)) {
            if let Some(known) = self.known.get(&identifier.mac) {
                clicks.merge(&known.clicks);
            }
        }
        let profile = self.place(strongest.mac).and_then(|place| self.profiles.get(&place.profile));
        let mut person_known = self.types.is_person(strongest.type_index);
        if let Some(profile) = profile {
            clicks.merge(&profile.clicks);
            person_known |= profile.state.person;
            let own: BTreeSet<SubjectKey> = subject_keys.iter().copied().collect();
            // The profile's own key first: it is what a merge or a split of it names, also where it has more than fit.
            let canonical = std::iter::once(profile.state.key);
            let members = profile.state.members.iter().copied().filter(|key| *key != profile.state.key);
            let others = canonical.chain(members).filter(|key| !own.contains(key));
            subject_keys.extend(others.take(MAX_SUBJECT_KEYS - own.len()));
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
            .filter_map(|identifier| Some((identifier.type_index, self.place(identifier.mac)?)));
        // Two values of one exclusive type in one event, not merged by a decision.
        let mut of_type = BTreeMap::new();
        let clash = places.clone().any(|(type_index, place)| {
            self.types.is_exclusive(type_index)
                && of_type.insert(type_index, place.profile).is_some_and(|other| other != place.profile)
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

/// Every pair of an event's identifiers, lower hash first.
fn pairs_of(seen: &[Identifier]) -> impl Iterator<Item = (ValueMac, ValueMac)> {
    seen.iter().enumerate().flat_map(|(n, a)| seen[n + 1..].iter().map(move |b| pair(a.mac, b.mac)))
}

/// What a pair asks for that was looked up.
fn news_of(pair: &SeenPair, history: PairHistory) -> News {
    match history {
        PairHistory::Never => News::New,
        PairHistory::ByOthers => News::Again,
        PairHistory::Seen { first, last } => {
            let is_fine = first <= pair.first_seen && pair.last_seen.duration_since(last) <= LAST_SEEN_COARSE;
            if is_fine { News::Nothing } else { News::Again }
        }
    }
}

/// Adds one sight of a pair.
fn see(
    list: &mut HashMap<(ValueMac, ValueMac, SourceId), SeenPair>,
    (a, b): (ValueMac, ValueMac),
    item: &Item,
) {
    let seen = list.entry((a, b, item.source)).or_insert_with(|| SeenPair {
        a,
        b,
        source: item.source,
        first_seen: item.seen_at,
        last_seen: item.seen_at,
        message_id: item.message_id.clone(),
    });
    seen.last_seen = seen.last_seen.max(item.seen_at);
    if item.seen_at < seen.first_seen {
        seen.first_seen = item.seen_at;
        seen.message_id.clone_from(&item.message_id);
    }
}
