-- $1 workspace, $2 hashes, $3 most neighbours of each, below 0 where they need not be counted, $4 the most that are counted,
-- $5 hashes of the new ones.
-- A statement of its own behind the one that locks: that one would see what else there is as it was before it had to wait.
select k.ord, i.component_id, i.profile_id, i.hub, i.contested, p.key, n.neighbours, s.silenced, d.decided
from unnest($2::bytea[], $3::bigint[]) with ordinality as k(mac, room, ord)
cross join lateral (
    select i.component_id, i.profile_id, i.hub, i.contested
    from identity.identifier i
    where i.workspace_id = $1 and i.value_mac = k.mac
    limit 1
) i
cross join lateral (
    select p.key from identity.profile p where p.workspace_id = $1 and p.profile_id = i.profile_id limit 1
) p
cross join lateral (
    select count(*) as neighbours
    from (
        (select distinct l.b_mac from identity.link l
         where l.workspace_id = $1 and l.a_mac = k.mac and k.room >= 0 limit $4)
        union all
        (select distinct l.a_mac from identity.link l
         where l.workspace_id = $1 and l.b_mac = k.mac and k.room >= 0 limit $4)
    ) l
) n
cross join lateral (
    select count(*) > 0 as silenced
    from (
        select 1 from identity.collision c
        where c.workspace_id = $1 and c.component_id = i.component_id and c.state = 'open' and c.kind = 'oversize'
        limit 1
    ) c
) s
cross join (
    select exists (select from identity.decision d
            where d.workspace_id = $1 and d.superseded_by is null and d.a_mac = any($5::bytea[]))
        or exists (select from identity.decision d
            where d.workspace_id = $1 and d.superseded_by is null and d.b_mac = any($5::bytea[])) as decided
) d
