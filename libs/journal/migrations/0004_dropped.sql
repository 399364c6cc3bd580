-- What stood in days that were dropped, in ranges without holes: what was counted from their blocks is counted from these. A range
-- that begins where another ends becomes one with it, so that a partition has about one row however old it is.
create table journal.dropped (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    first_offset bigint not null,
    next_offset bigint not null,
    -- Events by the headers of the blocks; by their rows it is the length of the range.
    counted bigint not null,
    constraint dropped_pkey primary key (workspace_id, partition, generation, first_offset),
    constraint dropped_not_empty check (next_offset > first_offset)
);

-- It dropped without counting.
drop function journal.drop_read_days(bigint[], integer[], integer[], bigint[]);

-- Drops a past day and keeps what was counted of it: ranges that hold all of it, in ascending order. Fails (40001) if there is more
-- in it by now. Dropping locks the parent for a moment, and gives up (55P03) rather than let appends queue behind a long read; the
-- lock is taken last and no client has it for longer than this call.
create function journal.drop_day(
    p_day date, p_workspace bigint[], p_partition integer[], p_generation integer[], p_first bigint[], p_next bigint[],
    p_counted bigint[]
) returns void
language plpgsql as $$
declare
    name text := format('received_%s', to_char(p_day, 'YYYYMMDD'));
    gone bigint;
    given bigint;
begin
    perform set_config('lock_timeout', '100ms', true);
    perform pg_advisory_xact_lock(hashtext('journal.ensure_partitions'));
    if p_day >= (now() at time zone 'utc')::date then
        raise exception 'a day that is not over cannot be dropped' using errcode = '40001';
    end if;
    perform journal.count_dropped(p_workspace, p_partition, p_generation, p_first, p_next, p_counted);

    if to_regclass(format('journal.%I', name)) is null then
        -- The day had no partition of its own. What comes late stays and is counted another time.
        with deleted as (
            delete from only journal.received_default where appended_on = p_day returning event_count
        )
        select coalesce(sum(event_count), 0) into gone from deleted;
        select coalesce(sum(u.n - u.f), 0) into given from unnest(p_first, p_next) as u (f, n);
        if gone <> given then
            raise exception 'the day holds % events, % were counted', gone, given using errcode = '40001';
        end if;
        return;
    end if;

    -- An append that began before midnight may be under way: whoever holds this lock sees what it wrote.
    lock table only journal.received in access exclusive mode;
    -- Offsets rise, so that the last block of a partition speaks for all of them.
    perform 1
    from journal.head h
    left join (
        select distinct on (u.w, u.p) u.w, u.p, u.g, u.n
        from unnest(p_workspace, p_partition, p_generation, p_next) as u (w, p, g, n)
        order by u.w, u.p, u.g desc, u.n desc
    ) as counted on counted.w = h.workspace_id and counted.p = h.partition
    cross join lateral (
        select r.generation, r.base_offset + r.event_count as behind from journal.received r
        where r.workspace_id = h.workspace_id and r.partition = h.partition and r.appended_on = p_day
        order by r.generation desc, r.base_offset desc limit 1
    ) as last
    where counted.w is null or (last.generation, last.behind) > (counted.g, counted.n)
    limit 1;
    if found then
        raise exception 'the day holds more than was counted' using errcode = '40001';
    end if;
    execute format('drop table journal.%I', name);
end
$$;

-- Adds ranges to journal.dropped: each becomes one with those that it touches.
create function journal.count_dropped(
    p_workspace bigint[], p_partition integer[], p_generation integer[], p_first bigint[], p_next bigint[], p_counted bigint[]
) returns void
language plpgsql as $$
declare
    r record;
    behind record;
begin
    for r in
        select u.* from unnest(p_workspace, p_partition, p_generation, p_first, p_next, p_counted) as u (w, p, g, f, n, c)
        order by u.w, u.p, u.g, u.f
    loop
        delete from journal.dropped d
        where d.workspace_id = r.w and d.partition = r.p and d.generation = r.g and d.first_offset = r.n
        returning d.next_offset, d.counted into behind;
        if found then
            r.n := behind.next_offset;
            r.c := r.c + behind.counted;
        end if;
        update journal.dropped d set next_offset = r.n, counted = d.counted + r.c
        where d.workspace_id = r.w and d.partition = r.p and d.generation = r.g and d.next_offset = r.f;
        if not found then
            insert into journal.dropped values (r.w, r.p, r.g, r.f, r.n, r.c);
        end if;
    end loop;
end
$$;
