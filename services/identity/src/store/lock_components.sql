-- $1 workspace, $2 hashes, $3 size from which a component is no longer looked into.
-- The rows are locked in the order of the sort, so that two transactions wait for each other in one direction only.
with merged as (
    select case when d.a_mac = any($2) then d.b_mac else d.a_mac end as mac
    from identity.decision d
    where d.workspace_id = $1 and d.superseded_by is null and d.act = 'merge' and d.a_mac = any($2)
    union
    select d.a_mac
    from identity.decision d
    where d.workspace_id = $1 and d.superseded_by is null and d.act = 'merge' and d.b_mac = any($2)
),
own as materialized (
    select i.component_id from identity.identifier i where i.workspace_id = $1 and i.value_mac = any($2)
    union
    select i.component_id from merged m join identity.identifier i on i.workspace_id = $1 and i.value_mac = m.mac
),
members as materialized (
    select i.value_mac
    from own o
    join identity.identifier i on i.workspace_id = $1 and i.component_id = o.component_id
    left join identity.component c on c.workspace_id = $1 and c.component_id = o.component_id
    where not i.hub and coalesce(c.size, 0) < $3
),
wanted as (
    select component_id from own
    union
    select h.component_id
    from members m
    join identity.link l on l.workspace_id = $1 and l.a_mac = m.value_mac
    join identity.identifier h on h.workspace_id = $1 and h.value_mac = l.b_mac
    where h.hub
    union
    select h.component_id
    from members m
    join identity.link l on l.workspace_id = $1 and l.b_mac = m.value_mac
    join identity.identifier h on h.workspace_id = $1 and h.value_mac = l.a_mac
    where h.hub
)
select c.component_id, c.size
from identity.component c
where c.workspace_id = $1 and c.component_id in (select component_id from wanted)
order by c.component_id
for update of c
