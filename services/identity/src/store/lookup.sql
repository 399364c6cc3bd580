-- $1 workspace, $2 hashes, $3 whether each brings click ids, $4 $5 $6 pairs with their source, $7 most members of a profile.
-- The limits inside lateral joins are more than ever there is: they keep the plan at index probes, whatever the statistics.
with asked as materialized (
    select u.mac, u.brings, u.ord from unnest($2::bytea[], $3::bool[]) with ordinality as u(mac, brings, ord)
),
known as materialized (
    select a.ord, i.profile_id, (i.hub::int + i.contested::int * 2)::int2 as mark, i.contested
    from asked a
    join identity.identifier i on i.workspace_id = $1 and i.value_mac = a.mac
),
profiles as materialized (
    select p.profile_id, p.component_id, p.key, p.person, k.ords, k.marks
    from (
        select profile_id, array_agg(ord order by ord) as ords, array_agg(mark order by ord) as marks
        from known group by profile_id
    ) k
    join identity.profile p on p.workspace_id = $1 and p.profile_id = k.profile_id
),
members as materialized (
    select p.profile_id, m.value_mac, m.key
    from profiles p
    cross join lateral (
        select i.value_mac, i.key
        from identity.identifier i
        where i.workspace_id = $1 and i.profile_id = p.profile_id
        limit $7
    ) m
)
select 1::int2 as what, 0::bigint as ord, p.profile_id, p.component_id, p.person::int::int2 as flags, p.key, p.ords,
       p.marks, m.keys, null::text as value, null::timestamptz as first_seen, null::timestamptz as last_seen
from profiles p
join (select profile_id, array_agg(key) as keys from members group by profile_id) m on m.profile_id = p.profile_id
union all
select 2::int2, a.ord, 0, 0, 0::int2, null, null, null, null, null, null, null
from asked a join identity.blocked b on b.workspace_id = $1 and b.value_mac = a.mac
union all
select 3::int2, a.ord, 0, 0, 0::int2, null, null, null, null, null, null, null
from asked a join identity.suppressed s on s.workspace_id = $1 and s.value_mac = a.mac
union all
-- Pairs that were seen before, with the times of the source that asks.
select 4::int2, p.ord, 0, 0, 0::int2, null, null, null, null, null, l.first_seen, l.last_seen
from unnest($4::bytea[], $5::bytea[], $6::bigint[]) with ordinality as p(a, b, source, ord)
cross join lateral (
    select count(*) as sources,
        min(l.first_seen) filter (where l.source_id = p.source) as first_seen,
        max(l.last_seen) filter (where l.source_id = p.source) as last_seen
    from identity.link l
    where l.workspace_id = $1 and l.a_mac = p.a and l.b_mac = p.b
) l
where l.sources > 0
union all
select 5::int2, 0, c.profile_id, 0, c.kind, null, null, null, null, c.value, c.first_seen, c.last_seen
from (
    select distinct on (m.profile_id, c.kind) m.profile_id, c.kind, c.value, c.first_seen, c.last_seen
    from members m
    cross join lateral (
        select * from identity.click_id c where c.workspace_id = $1 and c.value_mac = m.value_mac limit 9
    ) c
    order by m.profile_id, c.kind, c.last_seen desc, c.value desc
) c
union all
-- Their own sightings only of those that bring more, and where no profile says the same.
select 6::int2, a.ord, 0, 0, c.kind, null, null, null, null, c.value, c.first_seen, c.last_seen
from (
    select a.ord, a.mac from asked a left join known k on k.ord = a.ord
    where a.brings or k.ord is null or k.contested
) a
cross join lateral (
    select * from identity.click_id c where c.workspace_id = $1 and c.value_mac = a.mac limit 9
) c
