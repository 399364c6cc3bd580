//! What a recompute reads: the components that new evidence touches, locked, with their links and the hubs beside them.
//!
//! A region is closed: a link from one of its non-hubs leads to another of its nodes, unless a decision separates the two or
//! the other end is in a component too large to be loaded. Whatever changed between finding and locking shows up as
//! [`RegionError::Open`], and the caller starts again.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tracklayer_ids::WorkspaceId;

use super::{bytes, key_of};
use crate::decision::pair;
use crate::difference::{ComponentId, ProfileId, Stored};
use crate::graph::{Graph, Node, Verdict, weigh};
use crate::identifier::{Identifier, ValueMac};
use crate::policy::{TypeIndex, Types};

/// How many times the cap a component may have before it is no longer loaded: nothing joins it any more.
const FROZEN_AT_CAPS: usize = 10;

/// Why a region could not be read.
#[derive(Debug)]
pub(super) enum RegionError {
    /// The region is not closed: another transaction changed components between finding and locking them, or links lead to
    /// these identifiers, which another try has to take in.
    Open(BTreeSet<ValueMac>),
    /// The database.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for RegionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// What the region is read for.
pub(super) struct Seed<'a> {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Identifiers of the new evidence, and those that an earlier try found links to.
    pub macs: &'a [ValueMac],
    /// Pairs of the new evidence, lower hash first.
    pub pairs: &'a BTreeSet<(ValueMac, ValueMac)>,
    /// Of `macs`, those that this transaction inserted.
    pub inserted: &'a BTreeSet<ValueMac>,
    /// Components that this transaction made up for them.
    pub provisional: &'a BTreeSet<ComponentId>,
    /// Identifiers, not of `macs`, that this transaction inserted and that nothing stored can be linked with.
    pub fresh: &'a [(Identifier, Stored)],
}

/// Locked components with everything that their profiles follow from.
#[derive(Debug, Default)]
pub(super) struct Region {
    /// Their identifiers.
    pub nodes: Vec<Node>,
    /// What is stored about each.
    pub stored: Vec<Stored>,
    /// Where a hash is among the nodes.
    pub place: BTreeMap<ValueMac, usize>,
    /// Identifiers of the seed that are in a component too large to be loaded.
    pub frozen: BTreeSet<ValueMac>,
    edges: BTreeSet<(usize, usize)>,
    merged: BTreeSet<(usize, usize)>,
}

impl Region {
    /// Locks and reads. Statements: three, and up to two more where there are hubs or links out of the region; none where all of it is
    /// fresh.
    pub(super) async fn load(
        connection: &mut PgConnection,
        types: &mut Types,
        seed: &Seed<'_>,
    ) -> Result<Self, RegionError> {
        let mut region = Self::default();
        let fresh = seed.fresh.iter().map(|(i, stored)| (i.type_index, i.mac, *stored)).collect();
        if seed.macs.is_empty() {
            region.take_nodes(fresh);
            region.join(seed.pairs, &BTreeSet::new(), &BTreeSet::new());
            return Ok(region);
        }
        let frozen_at = types.max_cluster() * FROZEN_AT_CAPS;
        let locked = lock_components(connection, seed, frozen_at).await?;
        let (live, frozen): (Vec<_>, Vec<_>) = locked.into_iter().partition(|(_, size)| *size < frozen_at);
        let frozen: BTreeSet<ComponentId> = frozen.into_iter().map(|(id, _)| id).collect();
        let live: BTreeSet<ComponentId> =
            live.into_iter().map(|(id, _)| id).chain(seed.provisional.iter().copied()).collect();

        let read = region.read_nodes(connection, types, seed, (&live, &frozen)).await?;
        region.take_nodes([fresh, read].concat());
        region.read_links(connection, seed, &live, frozen_at).await?;
        region.mark_hubs_with_links_elsewhere(connection, seed.workspace, &live).await?;
        Ok(region)
    }

    /// The profiles of the region.
    pub(super) fn weigh(&self, types: &Types) -> Verdict {
        let edges: Vec<_> = self.edges.iter().copied().collect();
        let merged: Vec<_> = self.merged.iter().copied().collect();
        weigh(&Graph { types, nodes: &self.nodes, edges: &edges, merged: &merged })
    }

    /// Whether an identifier of the seed is stored at all.
    pub(super) fn holds(&self, mac: ValueMac) -> bool {
        self.place.contains_key(&mac) || self.frozen.contains(&mac)
    }

    /// Takes in nodes, in the order of their hashes.
    fn take_nodes(&mut self, mut nodes: Vec<(TypeIndex, ValueMac, Stored)>) {
        nodes.sort_unstable_by_key(|(_, mac, _)| *mac);
        for (type_index, mac, stored) in nodes {
            self.place.insert(mac, self.nodes.len());
            self.nodes.push(Node { type_index, mac, known_hub: stored.hub, linked_elsewhere: false });
            self.stored.push(stored);
        }
    }

    async fn read_nodes(
        &mut self,
        connection: &mut PgConnection,
        types: &mut Types,
        seed: &Seed<'_>,
        (live, frozen): (&BTreeSet<ComponentId>, &BTreeSet<ComponentId>),
    ) -> Result<Vec<(TypeIndex, ValueMac, Stored)>, RegionError> {
        let rows = sqlx::query(
            "select value_mac, type, key, component_id, profile_id, hub, contested
             from identity.identifier where workspace_id = $1 and component_id = any($2)
             union
             select value_mac, type, key, component_id, profile_id, hub, contested
             from identity.identifier where workspace_id = $1 and value_mac = any($3)",
        )
        .bind(seed.workspace.0)
        .bind(ids(live))
        .bind(bytes(seed.macs))
        .fetch_all(connection)
        .await?;
        let mut nodes = Vec::with_capacity(rows.len());
        for row in rows {
            let mac = ValueMac(row.try_get("value_mac")?);
            let mut stored = stored(&row, seed.inserted.contains(&mac))?;
            if frozen.contains(&stored.component) {
                if !stored.is_new {
                    self.frozen.insert(mac);
                    continue;
                }
                // It was provisionally put where it was seen, but nothing joins that any more.
                stored = Stored { component: ComponentId::NONE, profile: ProfileId::NONE, ..stored };
            } else if !live.contains(&stored.component) {
                return Err(RegionError::Open(BTreeSet::new()));
            }
            nodes.push((types.intern(row.try_get("type")?), mac, stored));
        }
        Ok(nodes)
    }

    async fn read_links(
        &mut self,
        connection: &mut PgConnection,
        seed: &Seed<'_>,
        live: &BTreeSet<ComponentId>,
        frozen_at: usize,
    ) -> Result<(), RegionError> {
        // Links of hubs are many, and all that matters of them is read from the other side.
        let rows = sqlx::query(
            "with members as materialized (
                 select value_mac, hub from identity.identifier
                 where workspace_id = $1 and component_id = any($2)
             )
             select 'link' as what, l.a_mac, l.b_mac from members m
             join identity.link l on l.workspace_id = $1 and l.a_mac = m.value_mac where not m.hub
             union
             select 'link', l.a_mac, l.b_mac from members m
             join identity.link l on l.workspace_id = $1 and l.b_mac = m.value_mac where not m.hub
             union
             select d.act, d.a_mac, d.b_mac from members m
             join identity.decision d on d.workspace_id = $1 and d.a_mac = m.value_mac
             where d.superseded_by is null and d.act <> 'block'
             union
             select d.act, d.a_mac, d.b_mac from members m
             join identity.decision d on d.workspace_id = $1 and d.b_mac = m.value_mac
             where d.superseded_by is null and d.act <> 'block'",
        )
        .bind(seed.workspace.0)
        .bind(ids(live))
        .fetch_all(&mut *connection)
        .await?;
        let mut links: BTreeSet<(ValueMac, ValueMac)> = seed.pairs.clone();
        let mut separated = BTreeSet::new();
        let mut merged = BTreeSet::new();
        for row in rows {
            let ends = pair(ValueMac(row.try_get("a_mac")?), ValueMac(row.try_get("b_mac")?));
            match row.try_get::<&str, _>("what")? {
                "merge" => merged.insert(ends),
                "separate" => separated.insert(ends),
                _ => links.insert(ends),
            };
        }
        links.extend(&merged);
        let mut outside = self.join(&links, &separated, &merged);
        outside.retain(|mac| !self.frozen.contains(mac));
        // What is stored nowhere was blocked or erased, and links nobody.
        if any_is_live(connection, seed.workspace, &outside, frozen_at).await? {
            return Err(RegionError::Open(outside));
        }
        Ok(())
    }

    /// Links the nodes; answers with what lies outside.
    fn join(
        &mut self,
        links: &BTreeSet<(ValueMac, ValueMac)>,
        separated: &BTreeSet<(ValueMac, ValueMac)>,
        merged: &BTreeSet<(ValueMac, ValueMac)>,
    ) -> BTreeSet<ValueMac> {
        let mut outside = BTreeSet::new();
        for (a, b) in links.difference(separated) {
            match (self.place.get(a), self.place.get(b)) {
                (Some(&a), Some(&b)) => {
                    self.edges.insert((a, b));
                }
                (Some(_), None) => {
                    outside.insert(*b);
                }
                (None, Some(_)) => {
                    outside.insert(*a);
                }
                (None, None) => {}
            }
        }
        for (a, b) in merged {
            if let (Some(&a), Some(&b)) = (self.place.get(a), self.place.get(b)) {
                self.merged.insert((a, b));
            }
        }
        outside
    }

    async fn mark_hubs_with_links_elsewhere(
        &mut self,
        connection: &mut PgConnection,
        workspace: WorkspaceId,
        live: &BTreeSet<ComponentId>,
    ) -> Result<(), RegionError> {
        let hubs: Vec<[u8; 32]> = self.nodes.iter().filter(|n| n.known_hub).map(|n| n.mac.0).collect();
        if hubs.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(include_str!("linked_elsewhere.sql"))
            .bind(workspace.0)
            .bind(hubs)
            .bind(ids(live))
            .fetch_all(connection)
            .await?;
        for row in rows {
            if let Some(&hub) = self.place.get(&ValueMac(row.try_get("mac")?)) {
                self.nodes[hub].linked_elsewhere = true;
            }
        }
        Ok(())
    }
}

/// Locks, in ascending order, the components of the seed's identifiers, of what decisions merged with them, and of the
/// hubs beside all these. Answers with their sizes.
async fn lock_components(
    connection: &mut PgConnection,
    seed: &Seed<'_>,
    frozen_at: usize,
) -> Result<Vec<(ComponentId, usize)>, sqlx::Error> {
    let rows = sqlx::query(include_str!("lock_components.sql"))
        .bind(seed.workspace.0)
        .bind(bytes(seed.macs))
        .bind(i32::try_from(frozen_at).unwrap_or(i32::MAX))
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let size = usize::try_from(row.try_get::<i32, _>("size")?).unwrap_or(0);
            Ok((ComponentId(row.try_get("component_id")?), size))
        })
        .collect()
}

/// Whether any of these is stored in a component that should have been loaded.
async fn any_is_live(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    macs: &BTreeSet<ValueMac>,
    frozen_at: usize,
) -> Result<bool, sqlx::Error> {
    if macs.is_empty() {
        return Ok(false);
    }
    sqlx::query_scalar(
        "select exists (
             select from identity.identifier i
             join identity.component c on c.workspace_id = $1 and c.component_id = i.component_id
             where i.workspace_id = $1 and i.value_mac = any($2) and c.size < $3)",
    )
    .bind(workspace.0)
    .bind(bytes(macs))
    .bind(i32::try_from(frozen_at).unwrap_or(i32::MAX))
    .fetch_one(connection)
    .await
}

fn stored(row: &PgRow, is_new: bool) -> Result<Stored, sqlx::Error> {
    Ok(Stored {
        key: key_of(row.try_get("key")?),
        component: ComponentId(row.try_get("component_id")?),
        profile: ProfileId(row.try_get("profile_id")?),
        hub: row.try_get("hub")?,
        contested: row.try_get("contested")?,
        is_new,
    })
}

fn ids(components: &BTreeSet<ComponentId>) -> Vec<i64> {
    components.iter().map(|id| id.0).collect()
}
