-- $1 workspace, $2 hashes, $3 $4 $5 pairs with their source, $6 most members of a profile, $7 most of one whose click ids are
-- told by member, $8 components whose profiles are remembered, $9 hashes to look for among the blocked and the suppressed:
-- those of $2, and what else of the batch is remembered; $10 hashes of which only the click ids are asked.
-- The limits inside lateral joins are more than ever there is: they keep the plan at index probes, whatever the statistics.
-- No part joins another: a planner that expects a row where there are a thousand would make it anew for each.
with asked as materialized (
    select u.mac, u.ord, i.profile_id, i.hub, i.contested
    from unnest($2::bytea[]) with ordinality as u(mac, ord)
    left join lateral (
        select i.profile_id, i.hub, i.contested
        from identity.identifier i
        where i.workspace_id = $1 and i.value_mac = u.mac
        limit 1
    ) i on true
),
profiles as materialized (
    select a.profile_id, p.component_id, p.key, p.person, a.ords, a.marks, a.asked, m.macs, m.keys, m.member_marks, c.version
    from (
        select profile_id, array_agg(ord order by ord) as ords,
            array_agg((hub::int + contested::int * 2)::int2 order by ord) as marks,
            array_agg(mac order by ord) as asked
        from asked where profile_id is not null group by profile_id
    ) a
    cross join lateral (
        select * from identity.profile p where p.workspace_id = $1 and p.profile_id = a.profile_id limit 1
    ) p
    cross join lateral (
        select c.version from identity.component c
        where c.workspace_id = $1 and c.component_id = p.component_id limit 1
    ) c
    cross join lateral (
        select array_agg(i.value_mac) as macs, array_agg(i.key) as keys,
            array_agg((i.hub::int + i.contested::int * 2)::int2) as member_marks
        from (
            select i.value_mac, i.key, i.hub, i.contested from identity.identifier i
            where i.workspace_id = $1 and i.profile_id = a.profile_id
            limit $6
        ) i
    ) m
)
select 1::int2 as what, 0::bigint as ord, p.profile_id, p.component_id, p.person::int::int2 as flags, p.key, p.ords,
       p.marks, p.keys, null::text as value, null::timestamptz as first_seen, null::timestamptz as last_seen,
       null::bytea as mac, p.version, null::bigint[] as versions, p.macs, p.member_marks
from profiles p
union all
select 2::int2, a.ord, 0, 0, 0::int2, null, null, null, null, null, null, null, null, 0, null, null, null
from unnest($9::bytea[]) with ordinality as a(mac, ord)
cross join lateral (select 1 from identity.blocked b where b.workspace_id = $1 and b.value_mac = a.mac limit 1) b
-- Asked once: most workspaces have none.
where (select exists (select 1 from identity.blocked where workspace_id = $1))
union all
select 3::int2, a.ord, 0, 0, 0::int2, null, null, null, null, null, null, null, null, 0, null, null, null
from unnest($9::bytea[]) with ordinality as a(mac, ord)
cross join lateral (select 1 from identity.suppressed s where s.workspace_id = $1 and s.value_mac = a.mac limit 1) s
where (select exists (select 1 from identity.suppressed where workspace_id = $1))
union all
-- Pairs that were seen before, with the times of the source that asks.
select 4::int2, p.ord, 0, 0, 0::int2, null, null, null, null, null, l.first_seen, l.last_seen, null, 0, null, null, null
from unnest($3::bytea[], $4::bytea[], $5::bigint[]) with ordinality as p(a, b, source, ord)
cross join lateral (
    select count(*) as sources,
        min(l.first_seen) filter (where l.source_id = p.source) as first_seen,
        max(l.last_seen) filter (where l.source_id = p.source) as last_seen
    from identity.link l
    where l.workspace_id = $1 and l.a_mac = p.a and l.b_mac = p.b
) l
where l.sources > 0
union all
-- Click ids of profiles, with whose they are where the members are few; else the newest of each kind.
select 5::int2, 0, p.profile_id, 0, c.kind, null, null, null, null, c.value, c.first_seen, c.last_seen, c.value_mac, 0, null,
    null, null
from profiles p
cross join lateral unnest(p.macs) as m(value_mac)
cross join lateral (
    select * from identity.click_id c where c.workspace_id = $1 and c.value_mac = m.value_mac limit 9
) c
where cardinality(p.macs) <= $7
union all
select 5::int2, 0, c.profile_id, 0, c.kind, null, null, null, null, c.value, c.first_seen, c.last_seen, null, 0, null, null, null
from (
    select distinct on (p.profile_id, c.kind) p.profile_id, c.kind, c.value,
        min(c.first_seen) over (partition by p.profile_id, c.kind, c.value) as first_seen, c.last_seen
    from profiles p
    cross join lateral unnest(p.macs) as m(value_mac)
    cross join lateral (
        select * from identity.click_id c where c.workspace_id = $1 and c.value_mac = m.value_mac limit 9
    ) c
    where cardinality(p.macs) > $7
    order by p.profile_id, c.kind, c.last_seen desc, c.value desc
) c
union all
-- Their own sightings, of those whose profile did not tell.
select 6::int2, a.ord, 0, 0, c.kind, null, null, null, null, c.value, c.first_seen, c.last_seen, null, 0, null, null, null
from (
    select a.mac, a.ord from asked a where a.profile_id is null
    union all
    select a.mac, a.ord from profiles p cross join lateral unnest(p.asked, p.ords) as a(mac, ord)
    where cardinality(p.macs) > $7
) a
cross join lateral (
    select * from identity.click_id c where c.workspace_id = $1 and c.value_mac = a.mac limit 9
) c
union all
-- What is remembered counts while its component is the same.
select 7::int2, 0, 0, 0, 0::int2, null, array_agg(c.component_id), null, null, null, null, null, null, 0, array_agg(c.version),
    null, null
from identity.component c
where c.workspace_id = $1 and c.component_id = any($8)
having count(*) > 0
union all
-- What time it is: transactions below the first number are over; those that were under way are all below the second, which is
-- drawn for it. Asked where something is read that may be remembered.
select 8::int2, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, 0, 0, 0::int2, null, null, null, null, null, null,
       null, null, pg_current_xact_id()::text::bigint, null, null, null
where cardinality($2::bytea[]) > 0 or cardinality($10::bytea[]) > 0
union all
-- Of members of what is remembered.
select 9::int2, a.ord, 0, 0, c.kind, null, null, null, null, c.value, c.first_seen, c.last_seen, null, 0, null, null, null
from unnest($10::bytea[]) with ordinality as a(mac, ord)
cross join lateral (
    select * from identity.click_id c where c.workspace_id = $1 and c.value_mac = a.mac limit 9
) c
