//! What is known about the identifiers of a batch: one statement, one round trip.

use std::collections::HashMap;

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

/// Most members of a profile that are read for one answer.
pub const MAX_MEMBERS: i64 = 1_000;

/// What is asked.
#[derive(Debug, Default)]
pub struct Question {
    /// Distinct identifiers.
    pub macs: Vec<ValueMac>,
    /// Distinct pairs, lower hash first, each with the source that saw it.
    pub pairs: Vec<(ValueMac, ValueMac, SourceId)>,
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

/// One pair of the question that was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPair {
    /// First and latest sight by the source asked for; `None` if only others saw it.
    pub seen: Option<(Timestamp, Timestamp)>,
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
    /// For each pair, if it was seen before.
    pub pairs: Vec<Option<KnownPair>>,
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
        if question.macs.is_empty() {
            return Ok(Lookup::default());
        }
        let rows = sqlx::query(LOOK_UP)
            .bind(workspace.0)
            .bind(bytes(&question.macs))
            .bind(bytes(question.pairs.iter().map(|(a, _, _)| a)))
            .bind(bytes(question.pairs.iter().map(|(_, b, _)| b)))
            .bind(question.pairs.iter().map(|(_, _, source)| source.0).collect::<Vec<_>>())
            .bind(MAX_MEMBERS)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::of("look identifiers up"))?;
        let mut lookup = Lookup {
            known: vec![Known::default(); question.macs.len()],
            pairs: vec![None; question.pairs.len()],
            profiles: HashMap::new(),
        };
        for row in rows {
            lookup.take(&row).map_err(StoreError::of("read what is known of identifiers"))?;
        }
        Ok(lookup)
    }
}

impl Lookup {
    /// Files one row; profiles come before their members.
    fn take(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let ord = usize::try_from(row.try_get::<i64, _>("ord")? - 1).unwrap_or(usize::MAX);
        let profile = ProfileId(row.try_get("profile_id")?);
        match row.try_get::<i16, _>("what")? {
            1 => {
                let flags: i16 = row.try_get("flags")?;
                let component = ComponentId(row.try_get("component_id")?);
                let (hub, contested) = (flags & 1 != 0, flags & 2 != 0);
                self.of(ord, |known| known.place = Some(Place { component, profile, hub, contested }));
            }
            2 => self.of(ord, |known| known.blocked = true),
            3 => self.of(ord, |known| known.suppressed = true),
            4 => {
                let seen = sighting_times(row)?;
                if let Some(pair) = self.pairs.get_mut(ord) {
                    *pair = Some(KnownPair { seen });
                }
            }
            5 => {
                let key = key_of(row.try_get("key")?);
                let person = row.try_get::<i16, _>("flags")? & 4 != 0;
                let (members, clicks) = (Vec::new(), Clicks::default());
                self.profiles.insert(profile, KnownProfile { key, person, members, clicks });
            }
            6 => {
                if let Some(found) = self.profiles.get_mut(&profile) {
                    found.members.push(key_of(row.try_get("key")?));
                }
            }
            7 => {
                if let (Some(found), Some((kind, seen))) = (self.profiles.get_mut(&profile), click(row)?) {
                    found.clicks.add(kind, &seen);
                }
            }
            _ => {
                if let Some((kind, seen)) = click(row)? {
                    self.of(ord, |known| known.clicks.add(kind, &seen));
                }
            }
        }
        Ok(())
    }

    fn of(&mut self, ord: usize, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known.get_mut(ord) {
            change(known);
        }
    }
}

fn sighting_times(row: &PgRow) -> Result<Option<(Timestamp, Timestamp)>, sqlx::Error> {
    let first: Option<SqlTimestamp> = row.try_get("first_seen")?;
    let last: Option<SqlTimestamp> = row.try_get("last_seen")?;
    Ok(first.zip(last).map(|(first, last)| (first.to_jiff(), last.to_jiff())))
}

fn click(row: &PgRow) -> Result<Option<(ClickKind, Sighting)>, sqlx::Error> {
    let kind = ClickKind::from_number(row.try_get("flags")?);
    let times = sighting_times(row)?;
    let value: String = row.try_get("value")?;
    Ok(kind
        .zip(times)
        .map(|(kind, (first_seen, last_seen))| (kind, Sighting { value, first_seen, last_seen })))
}
