-- $1 workspace, $2 hashes, $3 most neighbours of each, below 0 where they need not be counted, $4 the most that are counted.
select k.ord, i.component_id, i.profile_id, i.hub, i.contested, p.key, n.neighbours
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
