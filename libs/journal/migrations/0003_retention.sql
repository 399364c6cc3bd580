-- Drops the time partitions of past days in which every block is behind the places given, one for each (workspace, partition):
-- the least of all cursors. A partition with a block of whom no place is given stays. Dropping locks the parent for a moment,
-- and gives up (55P03) rather than let appends queue behind a long read.
create function journal.drop_read_days(
    p_workspace bigint[], p_partition integer[], p_generation integer[], p_offset bigint[]
) returns void
language plpgsql as $$
declare
    day date;
    name text;
    unread boolean;
begin
    perform set_config('lock_timeout', '300ms', true);
    perform pg_advisory_xact_lock(hashtext('journal.ensure_partitions'));
    for name, day in
        select c.relname, to_date(substr(c.relname, 10), 'YYYYMMDD')
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'journal.received'::regclass and c.relname ~ '^received_[0-9]{8}$'
        order by c.relname
    loop
        exit when day >= (now() at time zone 'utc')::date;
        -- An append that began before midnight may be under way: whoever holds this lock sees what it wrote.
        lock table only journal.received in access exclusive mode;
        -- Offsets rise, so that the last block of a partition speaks for all of them.
        execute format(
            'select exists (
                 select 1 from journal.head h
                 left join unnest($1, $2, $3, $4) as b (w, p, g, o) on b.w = h.workspace_id and b.p = h.partition
                 cross join lateral (
                     select r.generation, r.base_offset + r.event_count as behind from journal.%I r
                     where r.workspace_id = h.workspace_id and r.partition = h.partition
                     order by r.generation desc, r.base_offset desc limit 1
                 ) last
                 where b.w is null or (last.generation, last.behind) > (b.g, b.o))', name)
        into unread using p_workspace, p_partition, p_generation, p_offset;
        exit when unread;
        execute format('drop table journal.%I', name);
    end loop;
end
$$;
