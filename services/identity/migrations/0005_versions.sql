-- Which state of a component somebody knows: what belongs to it, and everything about its profiles, is as it was while the
-- number is the same. Counted here and not by the writers, so that no writer can forget it, not even one of the release
-- before during an update.
-- In the order in which writers take them, so that this waits for them and no more.
lock table identity.identifier, identity.component in access exclusive mode;
alter table identity.component add column version bigint not null default 0;

create function identity.component_changes() returns trigger language plpgsql as $$
begin
    new.version := old.version + 1;
    return new;
end $$;
create trigger component_changes before update on identity.component
    for each row execute function identity.component_changes();

-- An identifier that moves or is marked changes what it leaves and what it comes to. One that is new, too, changes the size.
create function identity.identifiers_change() returns trigger language plpgsql as $$
begin
    update identity.component c set size = c.size
    from (
        select workspace_id, component_id from before
        union
        select workspace_id, component_id from now
    ) as changed
    where c.workspace_id = changed.workspace_id and c.component_id = changed.component_id;
    return null;
end $$;
create trigger identifiers_change after update on identity.identifier
    referencing old table as before new table as now
    for each statement execute function identity.identifiers_change();

create function identity.identifiers_go() returns trigger language plpgsql as $$
begin
    update identity.component c set size = c.size
    from (select distinct workspace_id, component_id from before) as changed
    where c.workspace_id = changed.workspace_id and c.component_id = changed.component_id;
    return null;
end $$;
create trigger identifiers_go after delete on identity.identifier
    referencing old table as before
    for each statement execute function identity.identifiers_go();
