-- $1 workspace, $2 hubs, $3 components of the region. Stops at the first neighbour found outside.
select h.mac
from unnest($2::bytea[]) as h(mac)
where exists (
    select from identity.link l
    join identity.identifier i on i.workspace_id = $1 and i.value_mac = l.b_mac
    where l.workspace_id = $1 and l.a_mac = h.mac and not i.hub and i.component_id <> all($3)
      and not exists (
        select from identity.decision d
        where d.workspace_id = $1 and d.a_mac = l.a_mac and d.b_mac = l.b_mac
          and d.act = 'separate' and d.superseded_by is null)
) or exists (
    select from identity.link l
    join identity.identifier i on i.workspace_id = $1 and i.value_mac = l.a_mac
    where l.workspace_id = $1 and l.b_mac = h.mac and not i.hub and i.component_id <> all($3)
      and not exists (
        select from identity.decision d
        where d.workspace_id = $1 and d.a_mac = l.a_mac and d.b_mac = l.b_mac
          and d.act = 'separate' and d.superseded_by is null)
)
