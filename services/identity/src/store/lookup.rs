//! What is known about the identifiers of a batch: one statement, one round trip.

use std::collections::HashMap;

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

/// A profile that one of the identifiers is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownProfile {
    /// Its canonical key.
    pub key: SubjectKey,
    /// Whether a person is known.
    pub person: bool,
    /// Keys of its identifiers, at most [`MAX_MEMBERS`].
    pub members: Vec<SubjectKey>,
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
    /// The profiles of the identifiers.
    pub profiles: HashMap<ProfileId, KnownProfile>,
}

/// Rows of six shapes under one set of columns, so that one round trip answers everything.
const LOOK_UP: &str = include_str!("lookup.sql");

impl Store {
    /// Looks a batch up.
    ///
    /// # Errors
    /// The database.
    pub async fn look_up(&self, workspace: WorkspaceId, question: &Question) -> Result<Lookup, StoreError> {
        if question.macs.is_empty() {
            return Ok(Lookup::default());
        }
        let pairs = &question.pairs;
        let rows = sqlx::query(LOOK_UP)
            .bind(workspace.0)
            .bind(bytes(question.macs.iter().map(|(mac, _)| mac)))
            .bind(question.macs.iter().map(|(_, brings)| *brings).collect::<Vec<_>>())
            .bind(bytes(pairs.iter().map(|p| &p.a)))
            .bind(bytes(pairs.iter().map(|p| &p.b)))
            .bind(pairs.iter().map(|p| p.source.0).collect::<Vec<_>>())
            .bind(MAX_MEMBERS)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::of("look identifiers up"))?;
        let mut lookup = Lookup {
            known: vec![Known::default(); question.macs.len()],
            pairs: vec![PairHistory::Never; question.pairs.len()],
            profiles: HashMap::new(),
        };
        for row in rows {
            lookup.take(&row).map_err(StoreError::of("read what is known of identifiers"))?;
        }
        Ok(lookup)
    }
}

impl Lookup {
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
        let (ords, marks): (Vec<i64>, Vec<i16>) = (row.try_get("ords")?, row.try_get("marks")?);
        for (ord, mark) in ords.into_iter().zip(marks) {
            let (hub, contested) = (mark & 1 != 0, mark & 2 != 0);
            self.of(place_of(ord), |known| known.place = Some(Place { component, profile, hub, contested }));
        }
        let found = KnownProfile {
            key: key_of(row.try_get("key")?),
            person: row.try_get::<i16, _>("flags")? != 0,
            members: members.into_iter().map(key_of).collect(),
            clicks: Clicks::default(),
        };
        self.profiles.insert(profile, found);
        Ok(())
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
