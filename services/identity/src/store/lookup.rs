//! What is known about the identifiers of a batch: one statement, one round trip.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tracklayer_ids::{SubjectKey, WorkspaceId};

use super::touch::SeenPair;
use super::{Store, bytes, key_of};
use crate::click_ids::{ClickKind, Clicks, Sighting};
use crate::difference::{ComponentId, ProfileId};
use crate::error::StoreError;
use crate::identifier::ValueMac;

/// Most members of a profile that are read for one answer.
pub const MAX_MEMBERS: i64 = 1_000;

/// What is asked.
#[derive(Debug, Default)]
pub struct Question {
    /// Distinct identifiers, each with whether it brings click ids.
    pub macs: Vec<(ValueMac, bool)>,
    /// Pairs, distinct with their source.
    pub pairs: Vec<SeenPair>,
    /// Identifiers whose profile is remembered: asked is only whether that still holds.
    pub remembered: Vec<(ValueMac, Arc<RememberedProfile>)>,
}

/// Where an identifier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its component.
    pub component: ComponentId,
    /// Its profile.
    pub profile: ProfileId,
    /// Whether it links nobody because it has too many neighbours.
    pub hub: bool,
    /// Whether its profile is contested.
    pub contested: bool,
}

/// One identifier of the question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Where it stands, if it is stored.
    pub place: Option<Place>,
    /// A decision blocked it.
    pub blocked: bool,
    /// It was erased.
    pub suppressed: bool,
    /// Click ids seen on it; not read where its profile says the same and it brings none.
    pub clicks: Clicks,
}

/// Whether a pair was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairHistory {
    /// Never.
    Never,
    /// By other sources only.
    ByOthers,
    /// By this source.
    Seen {
        /// First sight.
        first: Timestamp,
        /// Last sight, exact to an hour.
        last: Timestamp,
    },
}

/// A profile as it is while its component is at this version.
#[derive(Debug, PartialEq, Eq)]
pub struct RememberedProfile {
    /// Its number.
    pub profile: ProfileId,
    /// Its component.
    pub component: ComponentId,
    /// The component's version.
    pub version: i64,
    /// Its canonical key.
    pub key: SubjectKey,
    /// Whether a person is known.
    pub person: bool,
    /// Keys of its identifiers, at most [`MAX_MEMBERS`].
    pub members: Vec<SubjectKey>,
    /// Their hashes.
    pub macs: Vec<ValueMac>,
}

impl RememberedProfile {
    /// What no other state has: versions count for each component anew, and a profile may move from one to another.
    const fn id(&self) -> (ProfileId, ComponentId, i64) {
        (self.profile, self.component, self.version)
    }
}

/// A profile that one of the identifiers is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownProfile {
    /// What it is.
    pub state: Arc<RememberedProfile>,
    /// The newest click ids of all its identifiers.
    pub clicks: Clicks,
}

/// The answer, in the order of the question.
#[derive(Debug, Default)]
pub struct Lookup {
    /// For each identifier.
    pub known: Vec<Known>,
    /// For each pair.
    pub pairs: Vec<PairHistory>,
    /// For each that was remembered; none if it has changed since.
    pub remembered: Vec<Option<Known>>,
    /// The profiles of the identifiers.
    pub profiles: HashMap<ProfileId, KnownProfile>,
}

/// Rows of eight shapes under one set of columns, so that one round trip answers everything.
const LOOK_UP: &str = include_str!("lookup.sql");

impl Store {
    /// Looks a batch up.
    ///
    /// # Errors
    /// The database.
    pub async fn look_up(&self, workspace: WorkspaceId, question: &Question) -> Result<Lookup, StoreError> {
        if question.macs.is_empty() && question.remembered.is_empty() {
            return Ok(Lookup::default());
        }
        let pairs = &question.pairs;
        let recall = Recall::of(&question.remembered);
        let asked = question.macs.iter().map(|(mac, _)| mac);
        let all = asked.clone().chain(question.remembered.iter().map(|(mac, _)| mac));
        let rows = sqlx::query(LOOK_UP)
            .bind(workspace.0)
            .bind(bytes(asked))
            .bind(question.macs.iter().map(|(_, brings)| *brings).collect::<Vec<_>>())
            .bind(bytes(pairs.iter().map(|p| &p.a)))
            .bind(bytes(pairs.iter().map(|p| &p.b)))
            .bind(pairs.iter().map(|p| p.source.0).collect::<Vec<_>>())
            .bind(MAX_MEMBERS)
            .bind(recall.states.iter().map(|state| state.component.0).collect::<Vec<_>>())
            .bind(bytes(recall.macs.iter().map(|(mac, _)| mac)))
            .bind(bytes(all))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::of("look identifiers up"))?;
        let mut reading = Reading {
            // The remembered ones stand behind those that are asked about.
            known: vec![Known::default(); question.macs.len() + question.remembered.len()],
            pairs: vec![PairHistory::Never; question.pairs.len()],
            profiles: HashMap::new(),
            holds: vec![false; recall.states.len()],
            clicks: vec![Clicks::default(); recall.macs.len()],
            recall,
        };
        for row in rows {
            reading.take(&row).map_err(StoreError::of("read what is known of identifiers"))?;
        }
        Ok(reading.end(question))
    }
}

/// The distinct profiles of what is remembered, and their identifiers.
struct Recall<'q> {
    states: Vec<&'q Arc<RememberedProfile>>,
    /// Each with the place of its profile.
    macs: Vec<(ValueMac, usize)>,
}

impl<'q> Recall<'q> {
    fn of(remembered: &'q [(ValueMac, Arc<RememberedProfile>)]) -> Self {
        // Two identifiers may remember different states of one profile: each holds or does not by its own version.
        let mut seen = HashSet::new();
        let states: Vec<_> =
            remembered.iter().map(|(_, state)| state).filter(|state| seen.insert(state.id())).collect();
        let macs = states
            .iter()
            .enumerate()
            .flat_map(|(place, state)| state.macs.iter().map(move |mac| (*mac, place)))
            .collect();
        Self { states, macs }
    }
}

/// An answer that is being read.
struct Reading<'q> {
    known: Vec<Known>,
    pairs: Vec<PairHistory>,
    profiles: HashMap<ProfileId, KnownProfile>,
    recall: Recall<'q>,
    /// Which of the remembered profiles are what they were.
    holds: Vec<bool>,
    /// Sightings on the identifiers of the remembered profiles.
    clicks: Vec<Clicks>,
}

impl Reading<'_> {
    /// Files one row; profiles come before their click ids.
    fn take(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let what: i16 = row.try_get("what")?;
        let ord = || row.try_get("ord").map(place_of);
        match what {
            1 => self.take_profile(row)?,
            2 => self.of(ord()?, |known| known.blocked = true),
            3 => self.of(ord()?, |known| known.suppressed = true),
            4 => {
                let first: Option<SqlTimestamp> = row.try_get("first_seen")?;
                let last: Option<SqlTimestamp> = row.try_get("last_seen")?;
                if let Some(pair) = self.pairs.get_mut(ord()?) {
                    *pair = match first.zip(last) {
                        Some((first, last)) => {
                            PairHistory::Seen { first: first.to_jiff(), last: last.to_jiff() }
                        }
                        None => PairHistory::ByOthers,
                    };
                }
            }
            5 => {
                let profile = self.profiles.get_mut(&ProfileId(row.try_get("profile_id")?));
                if let (Some(profile), Some((kind, seen))) = (profile, click(row)?) {
                    profile.clicks.add(kind, &seen);
                }
            }
            7 => {
                let (place, version): (usize, i64) = (ord()?, row.try_get("version")?);
                if let (Some(holds), Some(state)) = (self.holds.get_mut(place), self.recall.states.get(place))
                {
                    *holds = state.version == version;
                }
            }
            8 => {
                if let (Some(clicks), Some((kind, seen))) = (self.clicks.get_mut(ord()?), click(row)?) {
                    clicks.add(kind, &seen);
                }
            }
            _ => {
                if let Some((kind, seen)) = click(row)? {
                    self.of(ord()?, |known| known.clicks.add(kind, &seen));
                }
            }
        }
        Ok(())
    }

    fn take_profile(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let profile = ProfileId(row.try_get("profile_id")?);
        let component = ComponentId(row.try_get("component_id")?);
        let members: Vec<uuid::Uuid> = row.try_get("keys")?;
        let macs: Vec<[u8; 32]> = row.try_get("macs")?;
        let (ords, marks): (Vec<i64>, Vec<i16>) = (row.try_get("ords")?, row.try_get("marks")?);
        for (ord, mark) in ords.into_iter().zip(marks) {
            let (hub, contested) = (mark & 1 != 0, mark & 2 != 0);
            self.of(place_of(ord), |known| known.place = Some(Place { component, profile, hub, contested }));
        }
        let state = RememberedProfile {
            profile,
            component,
            version: row.try_get("version")?,
            key: key_of(row.try_get("key")?),
            person: row.try_get::<i16, _>("flags")? != 0,
            members: members.into_iter().map(key_of).collect(),
            macs: macs.into_iter().map(ValueMac).collect(),
        };
        self.profiles.insert(profile, KnownProfile { state: Arc::new(state), clicks: Clicks::default() });
        Ok(())
    }

    /// Puts the remembered profiles that hold beside those that were read.
    fn end(mut self, question: &Question) -> Lookup {
        let mut of_mac: HashMap<ValueMac, Clicks> = HashMap::new();
        for ((mac, place), clicks) in self.recall.macs.iter().zip(self.clicks) {
            let state = self.recall.states[*place];
            if self.holds[*place] {
                let empty = || KnownProfile { state: Arc::clone(state), clicks: Clicks::default() };
                self.profiles.entry(state.profile).or_insert_with(empty).clicks.merge(&clicks);
                of_mac.insert(*mac, clicks);
            }
        }
        let holding: HashSet<_> = self
            .recall
            .states
            .iter()
            .zip(&self.holds)
            .filter(|(_, holds)| **holds)
            .map(|(state, _)| state.id())
            .collect();
        let remembered = self.known.split_off(question.macs.len());
        let remembered = question.remembered.iter().zip(remembered).map(|((mac, state), known)| {
            let RememberedProfile { component, profile, .. } = **state;
            // Only what is neither a hub nor contested is remembered.
            let place = Some(Place { component, profile, hub: false, contested: false });
            let clicks = of_mac.get(mac).cloned().unwrap_or_default();
            holding.contains(&state.id()).then_some(Known { place, clicks, ..known })
        });
        let remembered = remembered.collect();
        Lookup { known: self.known, pairs: self.pairs, remembered, profiles: self.profiles }
    }

    fn of(&mut self, ord: usize, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known.get_mut(ord) {
            change(known);
        }
    }
}

/// Index of an element by its ordinality, which counts from 1.
fn place_of(ord: i64) -> usize {
    usize::try_from(ord - 1).unwrap_or(usize::MAX)
}

fn click(row: &PgRow) -> Result<Option<(ClickKind, Sighting)>, sqlx::Error> {
    let seen = Sighting {
        value: row.try_get("value")?,
        first_seen: row.try_get::<SqlTimestamp, _>("first_seen")?.to_jiff(),
        last_seen: row.try_get::<SqlTimestamp, _>("last_seen")?.to_jiff(),
    };
    Ok(ClickKind::from_number(row.try_get("flags")?).map(|kind| (kind, seen)))
}
