//! What is known about the identifiers of a batch: one statement, one round trip.

use std::sync::Arc;

use jiff::Timestamp;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tracklayer_ids::{SourceId, SubjectKey, WorkspaceId};

use super::{Store, bytes, key_of};
use crate::click_ids::{ClickKind, Clicks, Sighting};
use crate::difference::{ComponentId, ProfileId};
use crate::error::StoreError;
use crate::identifier::ValueMac;
use crate::memory::FastMap;

/// Most members of a profile that are read for one answer.
pub const MAX_MEMBERS: i64 = 1_000;

/// Most members of a profile whose click ids are read one by one: of a larger one only the newest of each kind are.
pub const FEW_MEMBERS: usize = 32;

/// What is asked.
#[derive(Debug, Default)]
pub struct Question {
    /// Distinct identifiers.
    pub macs: Vec<ValueMac>,
    /// Pairs, lower hash first, distinct with their source.
    pub pairs: Vec<(ValueMac, ValueMac, SourceId)>,
    /// Profiles that are remembered: asked is only whether they still are what they were.
    pub remembered: Vec<KnownProfile>,
    /// Identifiers of these: asked is only whether they are blocked or erased.
    pub recalled: Vec<ValueMac>,
    /// Identifiers of these of which the click ids seen on themselves are asked.
    pub own: Vec<ValueMac>,
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
    /// Click ids seen on it.
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
pub struct ProfileState {
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
    /// Keys of its identifiers, ascending, at most [`MAX_MEMBERS`].
    pub members: Vec<SubjectKey>,
}

impl ProfileState {
    /// What no other state has: versions count for each component anew, and a profile may move from one to another.
    #[must_use]
    pub const fn id(&self) -> (ProfileId, ComponentId, i64) {
        (self.profile, self.component, self.version)
    }
}

/// A profile that one of the identifiers is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownProfile {
    /// What it is.
    pub state: Arc<ProfileState>,
    /// The newest click ids of all its identifiers.
    pub clicks: Clicks,
}

/// An identifier of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub mac: ValueMac,
    /// Whether it is a hub.
    pub hub: bool,
    /// Whether the profile is contested.
    pub contested: bool,
}

/// When something was read, in numbers of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// All below were over, and what they committed was read.
    pub over: i64,
    /// All that were under way are below, and may have committed since.
    pub under_way: i64,
}

impl Default for Moment {
    /// Nothing was over, and anybody may have been under way.
    fn default() -> Self {
        Self { over: 0, under_way: i64::MAX }
    }
}

/// The answer, in the order of the question.
#[derive(Debug, Default)]
pub struct Lookup {
    /// For each identifier.
    pub known: Vec<Known>,
    /// For each pair.
    pub pairs: Vec<PairHistory>,
    /// For each profile that was remembered, whether it is what it was.
    pub holds: Vec<bool>,
    /// For each identifier of these, only what does not depend on its profile.
    pub recalled: Vec<Known>,
    /// For each identifier whose click ids are asked.
    pub own: Vec<Clicks>,
    /// The profiles of the identifiers.
    pub profiles: FastMap<ProfileId, KnownProfile>,
    /// Their identifiers, as many as were read.
    pub members: FastMap<ProfileId, Vec<Member>>,
    /// When they were read.
    pub moment: Moment,
}

/// Rows of nine shapes under one set of columns, so that one round trip answers everything.
const LOOK_UP: &str = include_str!("lookup.sql");

impl Store {
    /// Looks a batch up.
    ///
    /// # Errors
    /// The database.
    pub async fn look_up(&self, workspace: WorkspaceId, question: &Question) -> Result<Lookup, StoreError> {
        if question.macs.is_empty() && question.recalled.is_empty() {
            return Ok(Lookup::default());
        }
        let Question { macs, pairs, remembered, recalled, own } = question;
        let rows = sqlx::query(LOOK_UP)
            .bind(workspace.0)
            .bind(bytes(macs))
            .bind(bytes(pairs.iter().map(|(a, ..)| a)))
            .bind(bytes(pairs.iter().map(|(_, b, _)| b)))
            .bind(pairs.iter().map(|(.., source)| source.0).collect::<Vec<_>>())
            .bind(MAX_MEMBERS)
            .bind(i64::try_from(FEW_MEMBERS).unwrap_or(i64::MAX))
            .bind(remembered.iter().map(|profile| profile.state.component.0).collect::<Vec<_>>())
            .bind(bytes(macs.iter().chain(recalled)))
            .bind(bytes(own))
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::of("look identifiers up"))?;
        let mut reading = Reading {
            // The recalled ones stand behind those that are asked about.
            known: vec![Known::default(); macs.len() + recalled.len()],
            place: macs.iter().zip(0..).map(|(mac, place)| (*mac, place)).collect(),
            lookup: Lookup {
                pairs: vec![PairHistory::Never; pairs.len()],
                holds: vec![false; remembered.len()],
                own: vec![Clicks::default(); own.len()],
                ..Lookup::default()
            },
        };
        for row in rows {
            reading.take(&row, remembered).map_err(StoreError::of("read what is known of identifiers"))?;
        }
        let Reading { mut known, mut lookup, .. } = reading;
        lookup.recalled = known.split_off(macs.len());
        lookup.known = known;
        Ok(lookup)
    }
}

/// Columns of the answer, by their place: thousands of rows, and a name is looked for in each.
mod column {
    pub const WHAT: usize = 0;
    pub const ORD: usize = 1;
    pub const PROFILE: usize = 2;
    pub const COMPONENT: usize = 3;
    pub const FLAGS: usize = 4;
    pub const KEY: usize = 5;
    pub const ORDS: usize = 6;
    pub const MARKS: usize = 7;
    pub const KEYS: usize = 8;
    pub const VALUE: usize = 9;
    pub const FIRST_SEEN: usize = 10;
    pub const LAST_SEEN: usize = 11;
    pub const MAC: usize = 12;
    pub const VERSION: usize = 13;
    pub const VERSIONS: usize = 14;
    pub const MACS: usize = 15;
    pub const MEMBER_MARKS: usize = 16;
}

/// An answer that is being read.
struct Reading {
    known: Vec<Known>,
    /// Where the identifiers are that are asked about.
    place: FastMap<ValueMac, usize>,
    lookup: Lookup,
}

impl Reading {
    /// Files one row; profiles come before their click ids.
    fn take(&mut self, row: &PgRow, remembered: &[KnownProfile]) -> Result<(), sqlx::Error> {
        let what: i16 = row.try_get(column::WHAT)?;
        let ord = || row.try_get(column::ORD).map(place_of);
        match what {
            1 => self.take_profile(row)?,
            2 => self.of(ord()?, |known| known.blocked = true),
            3 => self.of(ord()?, |known| known.suppressed = true),
            4 => {
                let first: Option<SqlTimestamp> = row.try_get(column::FIRST_SEEN)?;
                let last: Option<SqlTimestamp> = row.try_get(column::LAST_SEEN)?;
                if let Some(pair) = self.lookup.pairs.get_mut(ord()?) {
                    *pair = match first.zip(last) {
                        Some((first, last)) => {
                            PairHistory::Seen { first: first.to_jiff(), last: last.to_jiff() }
                        }
                        None => PairHistory::ByOthers,
                    };
                }
            }
            5 => {
                let Some((kind, seen)) = click(row)? else { return Ok(()) };
                if let Some(mac) = row.try_get::<Option<[u8; 32]>, _>(column::MAC)?
                    && let Some(place) = self.place.get(&ValueMac(mac))
                {
                    self.of(*place, |known| known.clicks.add(kind, &seen));
                }
                let profile = ProfileId(row.try_get(column::PROFILE)?);
                if let Some(profile) = self.lookup.profiles.get_mut(&profile) {
                    profile.clicks.add(kind, &seen);
                }
            }
            7 => {
                let (components, versions): (Vec<i64>, Vec<i64>) =
                    (row.try_get(column::ORDS)?, row.try_get(column::VERSIONS)?);
                let versions: FastMap<i64, i64> = components.into_iter().zip(versions).collect();
                for (holds, KnownProfile { state, .. }) in self.lookup.holds.iter_mut().zip(remembered) {
                    *holds = versions.get(&state.component.0) == Some(&state.version);
                }
            }
            8 => {
                let (over, under_way) = (row.try_get(column::ORD)?, row.try_get(column::VERSION)?);
                self.lookup.moment = Moment { over, under_way };
            }
            9 => {
                if let (Some((kind, seen)), Some(own)) = (click(row)?, self.lookup.own.get_mut(ord()?)) {
                    own.add(kind, &seen);
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
        let profile = ProfileId(row.try_get(column::PROFILE)?);
        let component = ComponentId(row.try_get(column::COMPONENT)?);
        let members: Vec<uuid::Uuid> = row.try_get(column::KEYS)?;
        let (ords, marks): (Vec<i64>, Vec<i16>) = (row.try_get(column::ORDS)?, row.try_get(column::MARKS)?);
        for (ord, mark) in ords.into_iter().zip(marks) {
            let (hub, contested) = marked(mark);
            self.of(place_of(ord), |known| known.place = Some(Place { component, profile, hub, contested }));
        }
        let (macs, marks): (Vec<[u8; 32]>, Vec<i16>) =
            (row.try_get(column::MACS)?, row.try_get(column::MEMBER_MARKS)?);
        let of_profile = macs.into_iter().zip(marks).map(|(mac, mark)| {
            let (hub, contested) = marked(mark);
            Member { mac: ValueMac(mac), hub, contested }
        });
        self.lookup.members.insert(profile, of_profile.collect());
        let mut members: Vec<SubjectKey> = members.into_iter().map(key_of).collect();
        members.sort_unstable();
        let state = ProfileState {
            profile,
            component,
            version: row.try_get(column::VERSION)?,
            key: key_of(row.try_get(column::KEY)?),
            person: row.try_get::<i16, _>(column::FLAGS)? != 0,
            members,
        };
        let known = KnownProfile { state: Arc::new(state), clicks: Clicks::default() };
        self.lookup.profiles.insert(profile, known);
        Ok(())
    }

    fn of(&mut self, ord: usize, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known.get_mut(ord) {
            change(known);
        }
    }
}

/// Whether an identifier is a hub, and whether its profile is contested.
fn marked(mark: i16) -> (bool, bool) {
    (mark & 1 != 0, mark & 2 != 0)
}

/// Index of an element by its ordinality, which counts from 1.
fn place_of(ord: i64) -> usize {
    usize::try_from(ord - 1).unwrap_or(usize::MAX)
}

fn click(row: &PgRow) -> Result<Option<(ClickKind, Sighting)>, sqlx::Error> {
    let seen = Sighting {
        value: row.try_get(column::VALUE)?,
        first_seen: row.try_get::<SqlTimestamp, _>(column::FIRST_SEEN)?.to_jiff(),
        last_seen: row.try_get::<SqlTimestamp, _>(column::LAST_SEEN)?.to_jiff(),
    };
    Ok(ClickKind::from_number(row.try_get(column::FLAGS)?).map(|kind| (kind, seen)))
}
