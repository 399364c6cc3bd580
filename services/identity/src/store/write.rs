//! What a recompute writes: the difference, set by set. All rows belong to components that the transaction has locked.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use tracklayer_ids::WorkspaceId;

use super::region::Region;
use super::{bytes, uuids};
use crate::difference::{Change, ComponentId, Difference};
use crate::evidence::CollisionKey;
use crate::graph::Verdict;
use crate::identifier::ValueMac;
use crate::memory::FastMap;

/// Writes a difference of a region. `cause` names the event that a node's change is due to. Answers with the versions of components
/// that are new.
pub(super) async fn write_difference(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    region: &Region,
    difference: &Difference,
    verdict: &Verdict,
    cause: impl Fn(&[usize]) -> String,
) -> Result<FastMap<ComponentId, i64>, sqlx::Error> {
    write_identifiers(connection, workspace, region, difference).await?;
    let versions = write_components(connection, workspace, difference).await?;
    write_profiles(connection, workspace, difference).await?;
    write_changes(connection, workspace, &difference.changes, &cause).await?;
    write_collisions(connection, workspace, region, difference, verdict, &cause).await?;
    Ok(versions)
}

async fn write_identifiers(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    region: &Region,
    difference: &Difference,
) -> Result<(), sqlx::Error> {
    let rewrites = &difference.rewrites;
    if rewrites.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update identity.identifier i
         set component_id = x.component, profile_id = x.profile, hub = x.hub, contested = x.contested
         from unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bool[], $6::bool[])
             as x(mac, component, profile, hub, contested)
         where i.workspace_id = $1 and i.value_mac = x.mac",
    )
    .bind(workspace.0)
    .bind(bytes(rewrites.iter().map(|r| &region.nodes[r.node].mac)))
    .bind(rewrites.iter().map(|r| r.component.0).collect::<Vec<_>>())
    .bind(rewrites.iter().map(|r| r.profile.0).collect::<Vec<_>>())
    .bind(rewrites.iter().map(|r| r.hub).collect::<Vec<_>>())
    .bind(rewrites.iter().map(|r| r.contested).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_components(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    difference: &Difference,
) -> Result<FastMap<ComponentId, i64>, sqlx::Error> {
    let sizes = difference.components.values().map(|size| i32::try_from(*size).unwrap_or(i32::MAX));
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "with gone as (
             delete from identity.component where workspace_id = $1 and component_id = any($4)
         )
         insert into identity.component as c (workspace_id, component_id, size)
         select $1, x.id, x.size from unnest($2::bigint[], $3::int[]) as x(id, size)
         on conflict (workspace_id, component_id) do update set size = excluded.size
         where c.size <> excluded.size
         returning c.component_id, c.version",
    )
    .bind(workspace.0)
    .bind(difference.components.keys().map(|id| id.0).collect::<Vec<_>>())
    .bind(sizes.collect::<Vec<_>>())
    .bind(difference.gone_components.iter().map(|id| id.0).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(id, version)| (ComponentId(id), version)).collect())
}

async fn write_profiles(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    difference: &Difference,
) -> Result<(), sqlx::Error> {
    let profiles = &difference.profiles;
    if profiles.is_empty() && difference.gone_profiles.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "with gone as (
             delete from identity.profile where workspace_id = $1 and profile_id = any($6)
         )
         insert into identity.profile as p (workspace_id, profile_id, component_id, key, person)
         select $1, x.profile, x.component, x.key, x.person
         from unnest($2::bigint[], $3::bigint[], $4::uuid[], $5::bool[]) as x(profile, component, key, person)
         on conflict (workspace_id, profile_id) do update set
             component_id = excluded.component_id, key = excluded.key, person = excluded.person,
             version = p.version + 1",
    )
    .bind(workspace.0)
    .bind(profiles.iter().map(|p| p.profile.0).collect::<Vec<_>>())
    .bind(profiles.iter().map(|p| p.component.0).collect::<Vec<_>>())
    .bind(uuids(profiles.iter().map(|p| p.key)))
    .bind(profiles.iter().map(|p| p.person).collect::<Vec<_>>())
    .bind(difference.gone_profiles.iter().map(|id| id.0).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Arrays of keys of different lengths travel as one array with an owner for each element.
async fn write_changes(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    changes: &[Change],
    cause: &impl Fn(&[usize]) -> String,
) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let owned = |keys: fn(&Change) -> &[tracklayer_ids::SubjectKey]| {
        let pairs =
            changes.iter().zip(1i64..).flat_map(move |(c, n)| keys(c).iter().map(move |key| (n, *key)));
        let (owners, keys): (Vec<i64>, Vec<_>) = pairs.unzip();
        (owners, uuids(keys))
    };
    let (before_owners, before) = owned(|change| &change.before);
    let (after_owners, after) = owned(|change| &change.after);
    sqlx::query(
        "insert into identity.merge_log (workspace_id, kind, cause, before_keys, after_keys)
         select $1, x.kind, x.cause,
             array(select b.key from unnest($4::bigint[], $5::uuid[]) as b(owner, key) where b.owner = x.n),
             array(select a.key from unnest($6::bigint[], $7::uuid[]) as a(owner, key) where a.owner = x.n)
         from unnest($2::text[], $3::text[]) with ordinality as x(kind, cause, n)
         order by x.n",
    )
    .bind(workspace.0)
    .bind(changes.iter().map(|change| change.kind.as_str()).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| cause(&change.nodes)).collect::<Vec<_>>())
    .bind(before_owners)
    .bind(before)
    .bind(after_owners)
    .bind(after)
    .execute(connection)
    .await?;
    Ok(())
}

/// Opens what is new, closes what is gone, carries the rest to the component where it is now.
async fn write_collisions(
    connection: &mut PgConnection,
    workspace: WorkspaceId,
    region: &Region,
    difference: &Difference,
    verdict: &Verdict,
    cause: &impl Fn(&[usize]) -> String,
) -> Result<(), sqlx::Error> {
    let mut open: BTreeMap<[u8; 32], (CollisionKey, ComponentId, String)> = BTreeMap::new();
    for collision in &verdict.collisions {
        let key = CollisionKey::new(collision, &region.nodes);
        let nodes: Vec<usize> =
            key.through.iter().chain(&key.between).filter_map(|mac| region.place.get(mac).copied()).collect();
        if let Some(&first) = nodes.first() {
            open.insert(fingerprint(&key), (key, difference.component_of[first], cause(&nodes)));
        }
    }
    let before = region.stored.iter().filter(|stored| !stored.is_new).map(|stored| stored.component.0);
    let mut components: Vec<i64> = before.collect();
    components.sort_unstable();
    components.dedup();
    if open.is_empty() && components.is_empty() {
        return Ok(());
    }
    let owned = |macs: fn(&CollisionKey) -> &std::collections::BTreeSet<ValueMac>| {
        let pairs = open
            .values()
            .zip(1i64..)
            .flat_map(move |((key, ..), n)| macs(key).iter().map(move |mac| (n, mac.0)));
        pairs.unzip::<i64, [u8; 32], Vec<_>, Vec<_>>()
    };
    let (between_owners, between) = owned(|key| &key.between);
    let (through_owners, through) = owned(|key| &key.through);
    sqlx::query(
        "with gone as (
             update identity.collision set state = 'obsolete'
             where workspace_id = $1 and component_id = any($2) and state = 'open' and fingerprint <> all($3)
         )
         insert into identity.collision as c (workspace_id, fingerprint, component_id, kind, sample_message_id,
             between_macs, through_macs)
         select $1, x.fingerprint, x.component, x.kind, x.cause,
             array(select b.mac from unnest($7::bigint[], $8::bytea[]) as b(owner, mac) where b.owner = x.n),
             array(select t.mac from unnest($9::bigint[], $10::bytea[]) as t(owner, mac) where t.owner = x.n)
         from unnest($3::bytea[], $4::bigint[], $5::text[], $6::text[]) with ordinality
             as x(fingerprint, component, kind, cause, n)
         order by x.n
         on conflict (workspace_id, fingerprint) do update set
             component_id = excluded.component_id,
             state = case when c.state = 'obsolete' then 'open' else c.state end
         where c.component_id <> excluded.component_id or c.state = 'obsolete'",
    )
    .bind(workspace.0)
    .bind(components)
    .bind(open.keys().copied().collect::<Vec<_>>())
    .bind(open.values().map(|(_, component, _)| component.0).collect::<Vec<_>>())
    .bind(open.values().map(|(key, ..)| key.kind.as_str()).collect::<Vec<_>>())
    .bind(open.values().map(|(.., cause)| cause.as_str()).collect::<Vec<_>>())
    .bind(between_owners)
    .bind(between)
    .bind(through_owners)
    .bind(through)
    .execute(connection)
    .await?;
    Ok(())
}

/// The same for the same collision on every replay.
fn fingerprint(key: &CollisionKey) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(key.kind.as_str());
    for (side, macs) in [(b"between", &key.between), (b"through", &key.through)] {
        hash.update(side);
        macs.iter().for_each(|mac| hash.update(mac.0));
    }
    hash.finalize().into()
}
