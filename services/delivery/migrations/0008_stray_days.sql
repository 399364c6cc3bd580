-- As before, and empties the default partition, too: what came to it before its day was made goes like any day.
create or replace function delivery.drop_settled_day(
    p_before timestamptz, p_workspace bigint[], p_partition integer[], p_generation integer[], p_offset bigint[]
) returns text
language plpgsql as $$
declare
    day date;
    name text;
    stray date;
begin
    perform set_config('lock_timeout', '100ms', true);
    perform pg_advisory_xact_lock(hashtext('delivery.resolved_days'));
    select c.relname, to_date(substr(c.relname, 10), 'YYYYMMDD') into name, day
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'delivery.resolved'::regclass and c.relname ~ '^resolved_[0-9]{8}$'
    order by c.relname limit 1;
    select min(resolved_on) into stray from delivery.resolved_default;
    if stray is not null and (day is null or stray < day) then
        day := stray;
        name := 'resolved_default';
    end if;
    if day is null or day >= (least(p_before, now()) at time zone 'utc')::date then
        return null;
    end if;
    -- A commit that began before midnight may be under way: whoever holds this lock sees what it wrote.
    lock table only delivery.resolved in access exclusive mode;
    perform 1
    from delivery.resolve_cursor c
    left join unnest(p_workspace, p_partition, p_generation, p_offset) as b (w, p, g, o)
        on b.w = c.workspace_id and b.p = c.partition
    cross join lateral (
        -- Offsets rise, so that the last block of a partition speaks for all of them.
        select r.generation, r.base_offset + r.event_count as behind from delivery.resolved r
        where r.workspace_id = c.workspace_id and r.partition = c.partition and r.resolved_on <= day
        order by r.generation desc, r.base_offset desc limit 1
    ) as last
    where b.w is null or (last.generation, last.behind) > (b.g, b.o)
    limit 1;
    if found then
        return null;
    end if;
    if name = 'resolved_default' then
        delete from delivery.resolved_default where resolved_on = day;
    else
        execute format('drop table delivery.%I', name);
    end if;
    return name;
end
$$;
