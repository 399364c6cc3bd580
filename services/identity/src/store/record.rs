//! New evidence of a batch: one transaction with a constant number of set-based statements.
//!
//! Order of locks, the same for everybody, so that nobody waits in a circle: first new identifiers (by hash), then
//! components (by number), as whoever writes click ids does, too. What still fails for somebody else's doing is tried again, it
//! is idempotent; the last try runs alone in its workspace, but for writers of click ids, whose locks are short.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row};
use tracklayer_ids::{SubjectKey, WorkspaceId};

use super::grow::{Grown, grow};
use super::lookup::{FEW_MEMBERS, Place};
use super::outbox::{Waiting, write_narrowings};
use super::region::{Region, RegionError, Seed};
use super::touch::{SeenPair, insert_links};
use super::write::write_difference;
use super::{Store, bytes, uuids};
use crate::difference::{ComponentId, Difference, ProfileId, Stored, difference};
use crate::error::StoreError;
use crate::identifier::{Identifier, ValueMac};
use crate::memory::{FastMap, FastSet};
use crate::metrics;
use crate::policy::Types;
use crate::union_find::UnionFind;

/// Tries beside others before the last one, alone.
const TRIES: u32 = 5;
/// Longest wait for somebody else's lock.
pub(super) const LOCK_TIMEOUT: &str = "2s";
/// Longest wait of the last try for everybody else to leave.
const LOCK_TIMEOUT_ALONE: &str = "10s";
/// Longest statement of a transaction that holds locks.
const STATEMENT_TIMEOUT: &str = "10s";
/// First half of the advisory locks of identity ("idty").
const LOCK_CLASS: i32 = 0x6964_7479;

/// What a batch saw that was not known.
#[derive(Debug, Default)]
pub struct NewEvidence<'e> {
    /// Distinct identifiers of the events concerned, each where it was when it was looked up.
    pub identifiers: Vec<(Identifier, Option<Place>)>,
    /// Their pairs, distinct with their source.
    pub pairs: Vec<SeenPair<'e>>,
}

/// What recording changed.
#[derive(Debug, Default)]
pub struct Recorded<'e> {
    /// Pairs that are stored now: not those of which one end is blocked or erased.
    pub stored: Vec<SeenPair<'e>>,
    /// Components that were locked: what was looked up of them before is stale.
    pub components: BTreeSet<ComponentId>,
    /// Components that new identifiers joined and of which all else is as it was.
    pub grown: Vec<Grown>,
    /// Components that are made of new identifiers alone.
    pub founded: Vec<Founded>,
    /// What consent has to be told now.
    pub narrowings: Vec<Waiting>,
}

/// A component of new identifiers alone: one profile, with nobody in it who is contested or a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    /// Which.
    pub component: ComponentId,
    /// Its profile.
    pub profile: ProfileId,
    /// The version that it was stored with.
    pub version: i64,
    /// The profile's canonical key.
    pub key: SubjectKey,
    /// Whether a person is known.
    pub person: bool,
    /// Its identifiers, at most [`FEW_MEMBERS`].
    pub members: Vec<Identifier>,
}

impl Recorded<'_> {
    /// Both.
    fn and(mut self, other: Self) -> Self {
        self.stored.extend(other.stored);
        self.components.extend(other.components);
        self.grown.extend(other.grown);
        self.founded.extend(other.founded);
        self.narrowings.extend(other.narrowings);
        self
    }
}

/// Why a try failed.
pub(super) enum TryError {
    Again(&'static str, BTreeSet<ValueMac>),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for TryError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code());
        match code.as_deref() {
            Some("40P01") => Self::Again("deadlock", BTreeSet::new()),
            Some("40001") => Self::Again("serialization", BTreeSet::new()),
            Some("55P03") => Self::Again("lock_timeout", BTreeSet::new()),
            _ => Self::Database(error),
        }
    }
}

impl From<RegionError> for TryError {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Open(beside) => Self::Again("moved", beside),
            RegionError::Database(error) => error.into(),
        }
    }
}

impl Store {
    /// Records evidence and brings the profiles it touches up to date: what only joins profiles in a transaction of its own, then
    /// the rest in another. Answers with what is committed, which is all of it unless the database failed. Of the first that is
    /// told, too, where it failed at the second: it is not new when the same is recorded again.
    pub async fn record<'e>(
        &self,
        workspace: WorkspaceId,
        types: &mut Types,
        evidence: NewEvidence<'e>,
    ) -> (Recorded<'e>, Result<(), StoreError>) {
        let failed = StoreError::of("record what was seen together");
        // The caller may go away while one of its transactions begins.
        let mut connection = match tracklayer_postgres::hold(&self.pool).await {
            Ok(connection) => connection,
            Err(source) => return (Recorded::default(), Err(failed(source))),
        };
        let recorded = self.record_on(&mut connection, workspace, types, evidence).await;
        connection.give_back();
        recorded
    }

    async fn record_on<'e>(
        &self,
        connection: &mut PgConnection,
        workspace: WorkspaceId,
        types: &mut Types,
        mut evidence: NewEvidence<'e>,
    ) -> (Recorded<'e>, Result<(), StoreError>) {
        let failed = StoreError::of("record what was seen together");
        let grown = match grow(connection, workspace, types, &mut evidence).await {
            Ok(grown) => grown,
            Err(source) => return (Recorded::default(), Err(failed(source))),
        };
        if evidence.pairs.is_empty() {
            return (grown, Ok(()));
        }
        match self.record_rest(connection, workspace, types, &mut evidence).await {
            Ok(recorded) => (grown.and(recorded), Ok(())),
            Err(source) => (grown, Err(failed(source))),
        }
    }

    /// Records what takes a verdict, as often as it fails for somebody else's doing.
    async fn record_rest<'e>(
        &self,
        connection: &mut PgConnection,
        workspace: WorkspaceId,
        types: &mut Types,
        evidence: &mut NewEvidence<'e>,
    ) -> Result<Recorded<'e>, sqlx::Error> {
        let mut tries = 0;
        let mut beside = BTreeSet::new();
        loop {
            let alone = tries == TRIES;
            match self.try_record(connection, workspace, types, (&mut *evidence, &beside), tries).await {
                Ok(recorded) => return Ok(recorded),
                Err(TryError::Again(why, found)) if !alone => {
                    beside.extend(found);
                    metrics::retried(why);
                    tries += 1;
                    let pause = Duration::from_millis(fastrand::u64(0..2 << tries));
                    tokio::time::sleep(pause).await;
                }
                Err(TryError::Again(why, _)) => {
                    return Err(sqlx::Error::Protocol(format!("gave up after {tries} retries: {why}")));
                }
                Err(TryError::Database(source)) => return Err(source),
            }
        }
    }

    async fn try_record<'e>(
        &self,
        connection: &mut PgConnection,
        workspace: WorkspaceId,
        types: &mut Types,
        (evidence, beside): (&mut NewEvidence<'e>, &BTreeSet<ValueMac>),
        tries: u32,
    ) -> Result<Recorded<'e>, TryError> {
        let mut transaction = connection.begin().await?;
        enter(&mut transaction, workspace, tries == TRIES).await?;
        if tries > 0 {
            refresh(&mut transaction, workspace, evidence).await?;
        }
        let numbers = self.numbers.take(&mut transaction, 2 * evidence.identifiers.len()).await?;
        let claim = Claim::new(evidence, numbers);
        let inserted = claim.insert(&mut transaction, workspace, types).await?;
        let Fresh { nodes: fresh, components } = claim.fresh(&inserted);
        let in_fresh: BTreeSet<ValueMac> = fresh.iter().map(|(node, _)| node.mac).collect();
        let macs: BTreeSet<ValueMac> =
            evidence.identifiers.iter().map(|(identifier, _)| identifier.mac).collect();
        let macs: Vec<ValueMac> = macs.union(beside).filter(|mac| !in_fresh.contains(mac)).copied().collect();
        let provisional: BTreeSet<ComponentId> = claim.provisional.difference(&components).copied().collect();

        let pairs = evidence.pairs.iter().map(|pair| (pair.a, pair.b)).collect();
        let inserted = inserted.keys().copied().collect();
        let seed = Seed {
            workspace,
            macs: &macs,
            pairs: &pairs,
            inserted: &inserted,
            provisional: &provisional,
            fresh: &fresh,
        };
        let region = Region::load(&mut transaction, types, &seed).await?;
        // Both ends must be stored: one may have been blocked or erased in the meantime.
        let stored: Vec<SeenPair<'e>> =
            evidence.pairs.iter().filter(|p| region.holds(p.a) && region.holds(p.b)).copied().collect();
        insert_links(&mut *transaction, workspace, &stored).await?;

        let verdict = region.weigh(types);
        let mut spare = self.numbers.take(&mut transaction, 2 * region.nodes.len()).await?;
        let change = difference(types, &region.nodes, &region.stored, &verdict, || {
            spare.next().expect("a node needs at most one new component and one new profile")
        });
        let cause = |nodes: &[usize]| cause_of(&region, &stored, nodes);
        let versions =
            write_difference(&mut transaction, workspace, &region, &change, &verdict, &cause).await?;
        let narrowings = write_narrowings(&mut transaction, workspace, &change.outdated, &cause).await?;
        transaction.commit().await?;

        change.changes.iter().for_each(|change| metrics::changed(change.kind));
        let before = region.stored.iter().map(|stored| stored.component);
        let components = before.chain(change.component_of.iter().copied()).collect();
        let founded = founded(&fresh, &region, &change, &versions);
        Ok(Recorded { stored, components, grown: Vec::new(), founded, narrowings })
    }
}

/// Of the components that are wholly new, those that the verdict left as they were made up.
fn founded(
    fresh: &[(Identifier, Stored)],
    region: &Region,
    change: &Difference,
    versions: &FastMap<ComponentId, i64>,
) -> Vec<Founded> {
    let rewritten: FastSet<ComponentId> =
        change.rewrites.iter().map(|rewrite| region.stored[rewrite.node].component).collect();
    let mut members: BTreeMap<(ComponentId, ProfileId), Vec<Identifier>> = BTreeMap::new();
    for (identifier, stored) in fresh.iter().filter(|(_, stored)| !rewritten.contains(&stored.component)) {
        members.entry((stored.component, stored.profile)).or_default().push(*identifier);
    }
    let profiles: FastMap<ProfileId, _> =
        change.profiles.iter().map(|state| (state.profile, state)).collect();
    let all = members.into_iter().filter_map(|((component, profile), members)| {
        let (version, state) = (*versions.get(&component)?, *profiles.get(&profile)?);
        let (key, person) = (state.key, state.person);
        // Who was put beside them by a decision is counted, and is none of them.
        let is_whole = change.components.get(&component) == Some(&members.len());
        let is_small = is_whole && members.len() <= FEW_MEMBERS;
        is_small.then_some(Founded { component, profile, version, key, person, members })
    });
    all.collect()
}

/// Bounds the waits of the transaction, and enters the workspace beside others or, as a last resort, alone.
pub(super) async fn enter(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    alone: bool,
) -> Result<(), sqlx::Error> {
    // Two halves of a 64-bit number; workspaces that share one only wait for each other a little more.
    let room = i32::from_be_bytes(std::array::from_fn(|n| workspace.0.to_be_bytes()[n + 4]));
    sqlx::query(
        "select set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
             case when $5 then pg_advisory_xact_lock($3, $4) else pg_advisory_xact_lock_shared($3, $4) end",
    )
    .bind(if alone { LOCK_TIMEOUT_ALONE } else { LOCK_TIMEOUT })
    .bind(STATEMENT_TIMEOUT)
    .bind(LOCK_CLASS)
    .bind(room)
    .bind(alone)
    .execute(connection)
    .await?;
    Ok(())
}

/// Where the identifiers are now: what was looked up before the first try is stale.
async fn refresh(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    evidence: &mut NewEvidence<'_>,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "select value_mac, component_id, profile_id, hub, contested
         from identity.identifier where workspace_id = $1 and value_mac = any($2)",
    )
    .bind(workspace.0)
    .bind(bytes(evidence.identifiers.iter().map(|(identifier, _)| &identifier.mac)))
    .fetch_all(connection)
    .await?;
    let mut places = BTreeMap::new();
    for row in rows {
        let place = Place {
            component: ComponentId(row.try_get("component_id")?),
            profile: ProfileId(row.try_get("profile_id")?),
            hub: row.try_get("hub")?,
            contested: row.try_get("contested")?,
        };
        places.insert(ValueMac(row.try_get("value_mac")?), place);
    }
    for (identifier, place) in &mut evidence.identifiers {
        *place = places.get(&identifier.mac).copied();
    }
    Ok(())
}

/// The event that a change of these nodes is due to: the first new pair that touches one of them.
fn cause_of(region: &Region, pairs: &[SeenPair<'_>], nodes: &[usize]) -> String {
    let touched: BTreeSet<ValueMac> = nodes.iter().map(|&n| region.nodes[n].mac).collect();
    let first = pairs.iter().filter(|pair| touched.contains(&pair.a) || touched.contains(&pair.b));
    first.min_by_key(|pair| pair.first_seen).map_or_else(String::new, |pair| pair.message_id.to_owned())
}

/// New identifiers with the numbers they are provisionally given: those of the one component that they were seen with, so
/// that the usual case needs no rewrite, else made up.
pub(super) struct Claim<'a> {
    rows: Vec<(&'a Identifier, ComponentId, ProfileId)>,
    provisional: BTreeSet<ComponentId>,
    /// Of these, those of groups that nothing stored belongs to.
    alone: BTreeSet<ComponentId>,
}

/// What this transaction inserted, by hash, with whether it has a past: a decision is about it, or it was blocked for a while and its
/// links are still there.
pub(super) type Inserted = BTreeMap<ValueMac, bool>;

/// Groups that are wholly new: nobody else sees their rows, and nothing stored is linked with them, so that there is nothing to lock
/// or to read.
struct Fresh {
    nodes: Vec<(Identifier, Stored)>,
    components: BTreeSet<ComponentId>,
}

impl<'a> Claim<'a> {
    pub(super) fn new(evidence: &'a NewEvidence<'_>, mut numbers: std::ops::Range<i64>) -> Self {
        let place: BTreeMap<ValueMac, usize> =
            evidence.identifiers.iter().enumerate().map(|(n, (identifier, _))| (identifier.mac, n)).collect();
        let mut together = UnionFind::new(evidence.identifiers.len());
        for pair in &evidence.pairs {
            if let (Some(&a), Some(&b)) = (place.get(&pair.a), place.get(&pair.b)) {
                together.union(a, b);
            }
        }
        // Where the group's known identifiers are; `None` once they are in several places.
        let mut known: BTreeMap<usize, Option<(ComponentId, ProfileId)>> = BTreeMap::new();
        for (n, (_, place)) in evidence.identifiers.iter().enumerate() {
            if let Some(place) = place.filter(|place| !place.hub && !place.contested) {
                let here = (place.component, place.profile);
                known
                    .entry(together.find(n))
                    .and_modify(|other| *other = other.filter(|other| *other == here))
                    .or_insert(Some(here));
            }
        }
        let placed: BTreeSet<usize> = (0..evidence.identifiers.len())
            .filter(|n| evidence.identifiers[*n].1.is_some())
            .map(|n| together.find(n))
            .collect();
        let mut alone = BTreeSet::new();
        let mut made: BTreeMap<usize, (ComponentId, ProfileId)> = BTreeMap::new();
        let mut rows = Vec::new();
        let mut provisional = BTreeSet::new();
        for (n, (identifier, place)) in evidence.identifiers.iter().enumerate() {
            if place.is_some() {
                continue;
            }
            let group = together.find(n);
            let (component, profile) = known.get(&group).copied().flatten().unwrap_or_else(|| {
                *made.entry(group).or_insert_with(|| {
                    let mut number = || numbers.next().expect("an identifier needs at most two numbers");
                    let (component, profile) = (ComponentId(number()), ProfileId(number()));
                    provisional.insert(component);
                    if !placed.contains(&group) {
                        alone.insert(component);
                    }
                    (component, profile)
                })
            });
            rows.push((identifier, component, profile));
        }
        Self { rows, provisional, alone }
    }

    /// The groups of which all was inserted, and of which nothing else is known.
    fn fresh(&self, inserted: &Inserted) -> Fresh {
        let has_no_past = |mac: ValueMac| inserted.get(&mac).is_some_and(|has_past| !has_past);
        let mut components = self.alone.clone();
        for (identifier, component, _) in &self.rows {
            if !has_no_past(identifier.mac) {
                components.remove(component);
            }
        }
        let of_them = self.rows.iter().filter(|(_, component, _)| components.contains(component));
        let nodes = of_them.map(|(identifier, component, profile)| {
            let stored = Stored {
                key: identifier.key,
                component: *component,
                profile: *profile,
                hub: false,
                contested: false,
                is_new: true,
            };
            (**identifier, stored)
        });
        Fresh { nodes: nodes.collect(), components }
    }

    /// Inserts them in the one order that everybody keeps, waiting for others who insert the same. Answers with those that
    /// this transaction inserted.
    ///
    /// A decision that is made at the same time is not seen by either way of reading: whoever makes one recomputes what it is about.
    /// Rows are counted and not asked for with `exists`, which may read all links of a workspace into a hash.
    pub(super) async fn insert(
        &self,
        connection: &mut PgConnection,
        workspace: WorkspaceId,
        types: &Types,
    ) -> Result<Inserted, sqlx::Error> {
        if self.rows.is_empty() {
            return Ok(Inserted::new());
        }
        let inserted: Vec<([u8; 32], bool)> = sqlx::query_as(
            "insert into identity.identifier as i (workspace_id, value_mac, type, key, component_id, profile_id)
             select $1, x.mac, x.type, x.key, x.component, x.profile
             from unnest($2::bytea[], $3::text[], $4::uuid[], $5::bigint[], $6::bigint[])
                 as x(mac, type, key, component, profile)
             where not exists (
                     select from identity.blocked b where b.workspace_id = $1 and b.value_mac = x.mac)
               and not exists (
                     select from identity.suppressed s where s.workspace_id = $1 and s.value_mac = x.mac)
             order by x.mac
             on conflict do nothing
             returning i.value_mac, (
                 select count(*) > 0 from (
                     (select from identity.decision d
                      where d.workspace_id = $1 and d.superseded_by is null and d.a_mac = i.value_mac limit 1)
                     union all
                     (select from identity.decision d
                      where d.workspace_id = $1 and d.superseded_by is null and d.b_mac = i.value_mac limit 1)
                     union all
                     (select from identity.link l where l.workspace_id = $1 and l.a_mac = i.value_mac limit 1)
                     union all
                     (select from identity.link l where l.workspace_id = $1 and l.b_mac = i.value_mac limit 1)
                 ) past)",
        )
        .bind(workspace.0)
        .bind(bytes(self.rows.iter().map(|(identifier, ..)| &identifier.mac)))
        .bind(self.rows.iter().map(|(i, ..)| types.name(i.type_index)).collect::<Vec<_>>())
        .bind(uuids(self.rows.iter().map(|(identifier, ..)| identifier.key)))
        .bind(self.rows.iter().map(|(_, component, _)| component.0).collect::<Vec<_>>())
        .bind(self.rows.iter().map(|(.., profile)| profile.0).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        Ok(inserted.into_iter().map(|(mac, has_past)| (ValueMac(mac), has_past)).collect())
    }
}
