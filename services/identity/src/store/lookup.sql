-- $1 workspace, $2 hashes, $3 $4 $5 pairs with their source, $6 most members of a profile.
with asked as materialized (
    select u.mac, u.ord from unnest($2::bytea[]) with ordinality as u(mac, ord)
),
known as materialized (
    select a.ord, i.component_id, i.profile_id, (i.hub::int + i.contested::int * 2)::int2 as flags
    from asked a
    join identity.identifier i on i.workspace_id = $1 and i.value_mac = a.mac
),
profiles as materialized (
    select p.profile_id, p.key, p.person
    from (select distinct k.profile_id from known k) k
    join identity.profile p on p.workspace_id = $1 and p.profile_id = k.profile_id
),
members as materialized (
    select p.profile_id, m.value_mac, m.key
    from profiles p
    cross join lateral (
        select i.value_mac, i.key
        from identity.identifier i
        where i.workspace_id = $1 and i.profile_id = p.profile_id
        limit $6
    ) m
)
select 1::int2 as what, k.ord, k.profile_id, k.component_id, k.flags, null::uuid as key, null::text as value,
       null::timestamptz as first_seen, null::timestamptz as last_seen
from known k
union all
select 2::int2, a.ord, 0, 0, 0::int2, null, null, null, null
from asked a join identity.blocked b on b.workspace_id = $1 and b.value_mac = a.mac
union all
select 3::int2, a.ord, 0, 0, 0::int2, null, null, null, null
from asked a join identity.suppressed s on s.workspace_id = $1 and s.value_mac = a.mac
union all
select 4::int2, p.ord, 0, 0, 0::int2, null, null,
       min(l.first_seen) filter (where l.source_id = p.source), max(l.last_seen) filter (where l.source_id = p.source)
from unnest($3::bytea[], $4::bytea[], $5::bigint[]) with ordinality as p(a, b, source, ord)
join identity.link l on l.workspace_id = $1 and l.a_mac = p.a and l.b_mac = p.b
group by p.ord
union all
select 5::int2, 0, p.profile_id, 0, (p.person::int * 4)::int2, p.key, null, null, null from profiles p
union all
select 6::int2, 0, m.profile_id, 0, 0::int2, m.key, null, null, null from members m
union all
select 7::int2, 0, c.profile_id, 0, c.kind, null, c.value, c.first_seen, c.last_seen
from (
    select distinct on (m.profile_id, c.kind) m.profile_id, c.kind, c.value, c.first_seen, c.last_seen
    from members m
    join identity.click_id c on c.workspace_id = $1 and c.value_mac = m.value_mac
    order by m.profile_id, c.kind, c.last_seen desc, c.value desc
) c
union all
select 8::int2, a.ord, 0, 0, c.kind, null, c.value, c.first_seen, c.last_seen
from asked a join identity.click_id c on c.workspace_id = $1 and c.value_mac = a.mac
