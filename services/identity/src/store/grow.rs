//! New identifiers that join a profile and change nothing else ([`crate::growth`]): a transaction whose statements look at
//! those who were seen, however many others the profile has.
//!
//! Locks are taken in everybody's order: new identifiers, then components. What turns out to be otherwise than it looked is taken
//! out, and left to the verdict.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection as _, PgConnection, Row};
use tracklayer_ids::{SubjectKey, WorkspaceId};

use super::lookup::Place;
use super::outbox::write_narrowings;
use super::record::{Claim, NewEvidence, Recorded, TryError, enter};
use super::touch::{SeenPair, insert_links};
use super::{bytes, key_of};
use crate::difference::{ComponentId, ProfileId};
use crate::growth::{Joining, joinings};
use crate::identifier::{Identifier, ValueMac};
use crate::metrics;
use crate::narrowing::{Cause, Outdated};
use crate::policy::Types;

/// How often what turned out otherwise is taken out before all is left to the verdict.
const TRIES: u32 = 2;

/// A component that new identifiers joined. All else about it is what it was at the version before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    /// Which.
    pub component: ComponentId,
    /// Its version when it was locked.
    pub before: i64,
    /// Its version now.
    pub after: i64,
    /// Who joined which of its profiles.
    pub joined: Vec<(ProfileId, Identifier)>,
}

/// A try.
enum Tried<'e> {
    Grown(Recorded<'e>),
    /// Nothing was changed: these joinings are none.
    Otherwise(BTreeSet<usize>),
}

/// Records what joins profiles and changes nothing else, and takes it out of the evidence. All of it is committed.
pub(super) async fn grow<'e>(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    types: &Types,
    evidence: &mut NewEvidence<'e>,
) -> Result<Recorded<'e>, sqlx::Error> {
    let mut joinings = {
        let place: BTreeMap<ValueMac, usize> =
            evidence.identifiers.iter().enumerate().map(|(n, (identifier, _))| (identifier.mac, n)).collect();
        let pairs =
            evidence.pairs.iter().filter_map(|pair| Some((*place.get(&pair.a)?, *place.get(&pair.b)?)));
        joinings(types, &evidence.identifiers, pairs)
    };
    for _ in 0..TRIES {
        if joinings.is_empty() {
            break;
        }
        match try_grow(connection, workspace, types, evidence, &joinings).await {
            Ok(Tried::Grown(recorded)) => {
                let macs = macs_of(&joinings, evidence);
                evidence.identifiers.retain(|(identifier, _)| !macs.contains(&identifier.mac));
                evidence.pairs.retain(|pair| !macs.contains(&pair.a));
                return Ok(recorded);
            }
            Ok(Tried::Otherwise(which)) => {
                let mut n = 0..;
                joinings.retain(|_| n.next().is_some_and(|n| !which.contains(&n)));
            }
            Err(TryError::Again(why, _)) => {
                metrics::retried(why);
                break;
            }
            Err(TryError::Database(error)) => return Err(error),
        }
    }
    Ok(Recorded::default())
}

async fn try_grow<'e>(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    types: &Types,
    evidence: &NewEvidence<'e>,
    joinings: &[Joining],
) -> Result<Tried<'e>, TryError> {
    let macs = macs_of(joinings, evidence);
    let pairs: Vec<SeenPair<'e>> =
        evidence.pairs.iter().filter(|pair| macs.contains(&pair.a)).copied().collect();
    let identifiers = evidence.identifiers.iter().filter(|(identifier, _)| macs.contains(&identifier.mac));
    let part = NewEvidence { identifiers: identifiers.copied().collect(), pairs };

    let mut transaction = connection.begin().await?;
    enter(&mut transaction, workspace, false).await?;
    // They all have a place to go to, so that no number is drawn.
    let inserted = Claim::new(&part, 0..0).insert(&mut transaction, workspace, types).await?;
    let locked = lock(&mut transaction, workspace, joinings).await?;
    let known = read_known(&mut transaction, workspace, evidence, joinings).await?;
    // Who decided while the new ones were not to be seen yet has recomputed without them.
    let is_decided = known.values().any(|known| known.decided);

    let mut size_of: BTreeMap<ComponentId, usize> =
        locked.iter().map(|(id, (size, _))| (*id, *size)).collect();
    for joining in joinings {
        *size_of.entry(joining.component).or_insert(usize::MAX / 2) += joining.new.len();
    }
    let otherwise: BTreeSet<usize> = (0..joinings.len())
        .filter(|n| {
            let joining = &joinings[*n];
            // Neither was somebody else first, nor was it blocked or erased, nor has it links or decisions already.
            let all_new =
                joining.new.iter().all(|&n| inserted.get(&evidence.identifiers[n].0.mac) == Some(&false));
            let all_there = joining.beside.iter().all(|beside| {
                known.get(&beside.place).is_some_and(|known| {
                    Some(known.place) == evidence.identifiers[beside.place].1
                        && !known.silenced
                        && beside.room.is_none_or(|room| known.neighbours <= i64::from(room))
                })
            });
            is_decided || !all_new || !all_there || size_of[&joining.component] > types.max_cluster()
        })
        .collect();
    if !otherwise.is_empty() {
        transaction.rollback().await?;
        return Ok(Tried::Otherwise(otherwise));
    }

    insert_links(&mut *transaction, workspace, &part.pairs).await?;
    let mut joined: BTreeMap<ComponentId, Vec<(ProfileId, Identifier)>> = BTreeMap::new();
    let mut outdated = Outdated::default();
    for joining in joinings {
        let new = joining.new.iter().map(|&n| evidence.identifiers[n].0);
        outdated.keys.extend(new.clone().map(|identifier| identifier.key));
        outdated.keys.extend(joining.beside.first().and_then(|beside| Some(known.get(&beside.place)?.leads)));
        joined
            .entry(joining.component)
            .or_default()
            .extend(new.map(|identifier| (joining.profile, identifier)));
    }
    let versions = write_sizes(&mut transaction, workspace, &joined).await?;
    let first = part.pairs.iter().min_by_key(|pair| pair.first_seen);
    let cause = first.map_or_else(String::new, |pair| pair.message_id.to_owned());
    let narrowings =
        write_narrowings(&mut transaction, workspace, &[(Cause::Merge, outdated)].into(), |_| cause.clone())
            .await?;
    transaction.commit().await?;

    let grown = joined
        .into_iter()
        .filter_map(|(component, joined)| {
            let (before, after) = (locked.get(&component)?.1, *versions.get(&component)?);
            Some(Grown { component, before, after, joined })
        })
        .collect();
    Ok(Tried::Grown(Recorded { stored: part.pairs, narrowings, grown, ..Recorded::default() }))
}

/// The identifiers of joinings.
fn macs_of(joinings: &[Joining], evidence: &NewEvidence<'_>) -> BTreeSet<ValueMac> {
    let places = joinings.iter().flat_map(|joining| {
        joining.new.iter().copied().chain(joining.beside.iter().map(|beside| beside.place))
    });
    places.map(|place| evidence.identifiers[place].0.mac).collect()
}

/// Locks the components in ascending order; answers with size and version of each.
async fn lock(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    joinings: &[Joining],
) -> Result<BTreeMap<ComponentId, (usize, i64)>, sqlx::Error> {
    let components: BTreeSet<i64> = joinings.iter().map(|joining| joining.component.0).collect();
    let rows: Vec<(i64, i32, i64)> = sqlx::query_as(
        "select c.component_id, c.size, c.version from identity.component c
         where c.workspace_id = $1 and c.component_id = any($2)
         order by c.component_id for update",
    )
    .bind(workspace.0)
    .bind(components.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let sized = rows.into_iter().map(|(id, size, version)| {
        (ComponentId(id), (usize::try_from(size).unwrap_or(usize::MAX / 2), version))
    });
    Ok(sized.collect())
}

/// Somebody whom new identifiers were seen with, as stored.
struct Stands {
    place: Place,
    /// Key of the profile.
    leads: SubjectKey,
    neighbours: i64,
    /// Whether some of the component link nobody because it was too large: the rules of today may allow more.
    silenced: bool,
    /// Whether a decision is about one of the new ones, of any joining.
    decided: bool,
}

/// Those whom the new ones were seen with, read once the components are locked, by their place in the evidence.
async fn read_known(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    evidence: &NewEvidence<'_>,
    joinings: &[Joining],
) -> Result<BTreeMap<usize, Stands>, sqlx::Error> {
    let beside: Vec<_> = joinings.iter().flat_map(|joining| &joining.beside).collect();
    let rooms: Vec<i64> = beside.iter().map(|beside| beside.room.map_or(-1, i64::from)).collect();
    let most = rooms.iter().copied().max().unwrap_or(-1).saturating_add(1);
    let new = joinings.iter().flat_map(|joining| &joining.new);
    let rows = sqlx::query(include_str!("grow.sql"))
        .bind(workspace.0)
        .bind(bytes(beside.iter().map(|beside| &evidence.identifiers[beside.place].0.mac)))
        .bind(rooms)
        .bind(most)
        .bind(bytes(new.map(|&n| &evidence.identifiers[n].0.mac)))
        .fetch_all(connection)
        .await?;
    let mut known = BTreeMap::new();
    for row in rows {
        let place = Place {
            component: ComponentId(row.try_get("component_id")?),
            profile: ProfileId(row.try_get("profile_id")?),
            hub: row.try_get("hub")?,
            contested: row.try_get("contested")?,
        };
        let ord: i64 = row.try_get("ord")?;
        let stands = Stands {
            place,
            leads: key_of(row.try_get("key")?),
            neighbours: row.try_get("neighbours")?,
            silenced: row.try_get("silenced")?,
            decided: row.try_get("decided")?,
        };
        if let Some(beside) = usize::try_from(ord - 1).ok().and_then(|ord| beside.get(ord)) {
            known.insert(beside.place, stands);
        }
    }
    Ok(known)
}

/// Counts the new ones; answers with the versions that the components have by it. All of them are there, and locked: by
/// conflict they are found one by one, however many the planner thinks there are.
async fn write_sizes(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    joined: &BTreeMap<ComponentId, Vec<(ProfileId, Identifier)>>,
) -> Result<BTreeMap<ComponentId, i64>, sqlx::Error> {
    let counts = joined.values().map(|joined| i32::try_from(joined.len()).unwrap_or(i32::MAX));
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "insert into identity.component as c (workspace_id, component_id, size)
         select $1, x.id, x.joined from unnest($2::bigint[], $3::int[]) as x(id, joined)
         order by x.id
         on conflict (workspace_id, component_id) do update set size = c.size + excluded.size
         returning c.component_id, c.version",
    )
    .bind(workspace.0)
    .bind(joined.keys().map(|id| id.0).collect::<Vec<_>>())
    .bind(counts.collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, version)| (ComponentId(id), version)).collect())
}
