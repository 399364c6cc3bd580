-- The same counting as in 0005 and 0006, by arrays. A join with what changed was planned for the few rows that a new workspace
-- has, and that plan stayed: each batch of click ids then read all identifiers of the workspace. Rows asked for by an array,
-- or one by one, are found by their index, whatever the statistics say. Components are locked in the order in which everybody
-- locks them.
create function identity.components_change(workspace bigint, ids bigint[]) returns void language plpgsql as $$
begin
    perform from identity.component c
    where c.workspace_id = workspace and c.component_id = any(ids)
    order by c.component_id for no key update;
    update identity.component c set size = c.size where c.workspace_id = workspace and c.component_id = any(ids);
end $$;

create or replace function identity.identifiers_change() returns trigger language plpgsql as $$
begin
    perform identity.components_change(changed.workspace_id, changed.ids)
    from (
        select both_sides.workspace_id, array_agg(distinct both_sides.component_id) as ids
        from (
            select workspace_id, component_id from before
            union
            select workspace_id, component_id from now
        ) as both_sides
        group by both_sides.workspace_id order by both_sides.workspace_id
    ) as changed;
    return null;
end $$;

create or replace function identity.identifiers_go() returns trigger language plpgsql as $$
declare
    changed record;
begin
    for changed in
        select workspace_id, component_id, count(*)::integer as gone from before
        group by workspace_id, component_id order by workspace_id, component_id
    loop
        update identity.component c set size = c.size - changed.gone
        where c.workspace_id = changed.workspace_id and c.component_id = changed.component_id;
    end loop;
    return null;
end $$;

create or replace function identity.clicks_change() returns trigger language plpgsql as $$
begin
    perform identity.components_change(seen_in.workspace_id, seen_in.ids)
    from (
        select x.workspace_id, array_agg(distinct i.component_id) as ids
        from changed x
        cross join lateral (
            select i.component_id from identity.identifier i
            where i.workspace_id = x.workspace_id and i.value_mac = x.value_mac limit 1
        ) i
        group by x.workspace_id order by x.workspace_id
    ) as seen_in;
    return null;
end $$;
