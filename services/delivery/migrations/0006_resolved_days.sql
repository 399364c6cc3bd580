-- The resolved journal in days, which are dropped whole. What was there before becomes one partition, with everything up to today.
--
-- Each day has a primary key of its own and their parent has none: one of the parent would have to hold the day, and to be built
-- over everything that was there before, with the table locked. So all that takes time here is one look through the rows, without
-- their payloads, when they are attached.
do $$
declare
    today date := (now() at time zone 'utc')::date;
    name text := format('resolved_%s', to_char(today, 'YYYYMMDD'));
begin
    execute format('alter table delivery.resolved add column resolved_on date not null default %L', today);
    alter table delivery.resolved alter column resolved_on set default (now() at time zone 'utc')::date;
    execute format('alter table delivery.resolved rename to %I', name);
    execute format('alter table delivery.%I rename constraint resolved_pkey to %I', name, name || '_pkey');
    execute format('create table delivery.resolved (like delivery.%I including defaults including storage)
                        partition by range (resolved_on)', name);
    execute format('alter table delivery.resolved attach partition delivery.%I for values from (minvalue) to (%L)',
                   name, today + 1);
end
$$;

-- Takes what no day's partition takes.
create table delivery.resolved_default partition of delivery.resolved default;
alter table delivery.resolved_default add primary key (workspace_id, partition, generation, base_offset);

-- Makes the partitions of today and the next days, as journal.ensure_partitions does.
create function delivery.ensure_days(days_ahead integer) returns void
language plpgsql as $$
declare
    day date;
    name text;
begin
    perform set_config('lock_timeout', '100ms', true);
    perform pg_advisory_xact_lock(hashtext('delivery.resolved_days'));
    for i in 0..days_ahead loop
        day := (now() at time zone 'utc')::date + i;
        name := format('resolved_%s', to_char(day, 'YYYYMMDD'));
        if to_regclass(format('delivery.%I', name)) is null
            and not exists (select 1 from delivery.resolved_default where resolved_on = day)
        then
            execute format('create table delivery.%I (like delivery.resolved including all,
                                primary key (workspace_id, partition, generation, base_offset))', name);
            -- Says what the bounds will, so that attaching has nothing to look through.
            execute format(
                'alter table delivery.%I add constraint of_day check (resolved_on >= %L and resolved_on < %L)',
                name, day, day + 1);
            execute format(
                'alter table delivery.resolved attach partition delivery.%I for values from (%L) to (%L)',
                name, day, day + 1);
            execute format('alter table delivery.%I drop constraint of_day', name);
        end if;
    end loop;
end
$$;
select delivery.ensure_days(3);

-- Drops the oldest day that ended before that time, if all of it is behind the places given, one for each (workspace, partition):
-- the least of the lanes. Answers its name; null: there is none. A partition of whom no place is given holds every day in which
-- it has something. Gives up (55P03) rather than let commits queue behind a long read. What came to the default partition
-- before its day was made goes like any day.
create function delivery.drop_settled_day(
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
