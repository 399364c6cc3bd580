-- Click ids belong to what a component's version tells (0005), so that whoever remembers a profile may remember them, too. Counted
-- here and not by the writers, as there. What this cannot see is an identifier that another transaction stores or moves at
-- the same time, nor can that one see the click id: who remembers waits until no such transaction is left
-- (`services/identity/src/familiar.rs`).
create function identity.clicks_change() returns trigger language plpgsql as $$
begin
    update identity.component c set size = c.size
    from (
        -- Locked in the order in which everybody locks them.
        select c.workspace_id, c.component_id from identity.component c
        where (c.workspace_id, c.component_id) in (
            select i.workspace_id, i.component_id
            from changed x
            join identity.identifier i on i.workspace_id = x.workspace_id and i.value_mac = x.value_mac
        )
        order by c.workspace_id, c.component_id
        for no key update
    ) as held
    where c.workspace_id = held.workspace_id and c.component_id = held.component_id;
    return null;
end $$;
create trigger clicks_come after insert on identity.click_id
    referencing new table as changed
    for each statement execute function identity.clicks_change();
create trigger clicks_change after update on identity.click_id
    referencing new table as changed
    for each statement execute function identity.clicks_change();
create trigger clicks_go after delete on identity.click_id
    referencing old table as changed
    for each statement execute function identity.clicks_change();

-- A version names a state, and no other state of that component ever has the same name: not even after the database has lost its
-- newest commits to a failover, when a count would come to the same number by another way.
alter table identity.component alter column version set default (random() * 9e18)::bigint;
create or replace function identity.component_changes() returns trigger language plpgsql as $$
begin
    new.version := (random() * 9e18)::bigint;
    return new;
end $$;

-- What goes is taken off the size, too, so that who comes back changes it.
create or replace function identity.identifiers_go() returns trigger language plpgsql as $$
begin
    update identity.component c set size = c.size - changed.gone
    from (
        select workspace_id, component_id, count(*)::integer as gone from before group by workspace_id, component_id
    ) as changed
    where c.workspace_id = changed.workspace_id and c.component_id = changed.component_id;
    return null;
end $$;
