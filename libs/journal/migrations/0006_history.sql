-- Which history of the database positions belong to; one row. A standby that is promoted and a backup that is restored begin another
-- one, in which partitions may end before events that were acknowledged, claimed or sent: it begins with new generations, so that no
-- position is ever given to two events.
create table journal.history (
    only_row boolean not null default true,
    -- Random: of two standbys that are promoted one after the other each may come to the same timeline.
    id uuid not null default gen_random_uuid(),
    -- Where it was begun: what journal.timeline() and journal.database_cluster() said.
    timeline text not null,
    database_cluster text not null,
    -- In which generation a workspace begins of which nothing is known: the history before may have known it.
    first_generation integer not null default 1,
    begun_at timestamptz not null default now(),
    constraint history_pkey primary key (only_row),
    constraint history_one_row check (only_row)
);

-- Up to which generation a partition's positions in a log of records may be of events that the log has lost. Where the journal is in
-- these tables, heads and ends of layouts say it more exactly.
create table journal.lost_generation (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    constraint lost_generation_pkey primary key (workspace_id, partition)
);

-- What this very transaction writes to: the timeline of the write-ahead log, which a promotion and a recovery to a point in time
-- change, and the table's number, which is another one after a dump was read in. No transaction lives through a promotion and
-- writes. pg_control_checkpoint() would tell the old timeline until the first checkpoint after a promotion; pg_walfile_name() tells the
-- new one from the first moment that anything can be written, to every role. A service of PostgreSQL's kind that has no such
-- functions gets 'untold'. Source: PostgreSQL 15, "System Administration Functions", "Timelines", and
-- src/backend/access/transam/xlogfuncs.c; 2026-11.
create function journal.timeline() returns text
language plpgsql as $$
declare
    of_the_table text := to_regclass('journal.history')::oid::text;
begin
    if pg_is_in_recovery() then
        raise exception 'nothing can be written: the server is a standby' using errcode = '25006';
    end if;
    return substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '/' || of_the_table;
exception
    when feature_not_supported or insufficient_privilege or undefined_function then
        return 'untold/' || of_the_table;
end
$$;

-- The cluster of data files, as initdb has named it. Read from a file: for when something begins, not for every commit.
create function journal.database_cluster() returns text
language plpgsql as $$
begin
    return (select s.system_identifier::text from pg_control_system() s);
exception
    when feature_not_supported or insufficient_privilege or undefined_function then
        return 'untold';
end
$$;

insert into journal.history (timeline, database_cluster) values (journal.timeline(), journal.database_cluster());

-- The history that is written to. If the database has another one than is written down, the next is begun, and where the journal is in
-- these tables every generation that is open ends where its partitions end now. Heads are locked as append locks them. Two further on:
-- what was lost may have opened the next generation itself, by a change of the layout. A workspace without a layout (it was appended to
-- by a release before these only) gets one, and with it a new generation, before anything else is appended to it.
create function journal.renew(p_ends_generations boolean) returns uuid
language plpgsql as $$
declare
    here text := journal.timeline();
    cluster_here text := journal.database_cluster();
    known journal.history%rowtype;
    last record;
begin
    select h.* into known from journal.history h;
    if known.timeline = here and known.database_cluster = cluster_here then
        return known.id;
    end if;
    -- Whoever waits here finds it done.
    select h.* into known from journal.history h for update;
    if known.timeline = here and known.database_cluster = cluster_here then
        return known.id;
    end if;
    if p_ends_generations then
        perform 1 from journal.head h order by h.workspace_id, h.partition for update;
        for last in
            select distinct on (l.workspace_id) l.workspace_id, l.generation, l.partitions, l.revision
            from journal.layout l order by l.workspace_id, l.generation desc
        loop
            insert into journal.layout_end (workspace_id, generation, partition, next_offset)
            select h.workspace_id, h.generation, h.partition, h.next_offset
            from journal.head h where h.workspace_id = last.workspace_id and h.next_offset > 0;
            update journal.head h set generation = last.generation + 2, next_offset = 0
            where h.workspace_id = last.workspace_id;
            if found then
                insert into journal.layout (workspace_id, generation, partitions, revision)
                values (last.workspace_id, last.generation + 2, last.partitions, last.revision);
            end if;
        end loop;
    end if;
    update journal.history h
    set id = gen_random_uuid(), timeline = here, database_cluster = cluster_here,
        first_generation = h.first_generation + 2, begun_at = now()
    returning h.id into known.id;
    return known.id;
end
$$;

-- As before, in the history that is written to.
create or replace function journal.open_layout(p_workspace bigint, p_partitions integer, p_revision bigint)
returns table (out_generation integer, out_partitions integer)
language plpgsql as $$
declare
    last record;
begin
    perform journal.renew(true);
    -- Nobody begins another one meanwhile.
    perform 1 from journal.history h for share;
    perform pg_advisory_xact_lock(hashtextextended('journal.open_layout', p_workspace));
    select l.generation, l.partitions, l.revision into last
    from journal.layout l where l.workspace_id = p_workspace order by l.generation desc limit 1;
    if found and (last.partitions = p_partitions or last.revision >= p_revision) then
        out_generation := last.generation;
        out_partitions := last.partitions;
        return next;
        return;
    end if;

    perform 1 from journal.head h where h.workspace_id = p_workspace order by h.partition for update;
    select max(h.generation) into out_generation
    from journal.head h where h.workspace_id = p_workspace and h.next_offset > 0;
    if last.generation is null and out_generation is null then
        select h.first_generation into out_generation from journal.history h;
    else
        -- Nobody knows how that was spread which was appended before layouts were written down: it is a generation of its own.
        insert into journal.layout_end (workspace_id, generation, partition, next_offset)
        select h.workspace_id, h.generation, h.partition, h.next_offset
        from journal.head h where h.workspace_id = p_workspace and h.next_offset > 0;
        out_generation := coalesce(last.generation, out_generation) + 1;
        update journal.head h set generation = out_generation, next_offset = 0 where h.workspace_id = p_workspace;
    end if;
    insert into journal.head (workspace_id, partition, generation)
    select p_workspace, n, out_generation from generate_series(0, p_partitions - 1) as n
    on conflict on constraint head_pkey do nothing;
    insert into journal.layout (workspace_id, generation, partitions, revision)
    values (p_workspace, out_generation, p_partitions, p_revision);
    out_partitions := p_partitions;
    return next;
end
$$;

-- As before; in a history that is not begun yet it stores nothing, as for a generation that is not open any more: who asks for the
-- layout then begins it.
create or replace function journal.append_to(
    p_workspace bigint[], p_partition integer[], p_generation integer[], p_count integer[], p_header bytea[],
    p_payload bytea[]
) returns table (ord bigint, out_base_offset bigint)
language plpgsql as $$
declare
    block record;
begin
    perform 1 from journal.history h where h.timeline = journal.timeline();
    if not found then
        return;
    end if;
    for block in
        select u.ord as n, u.w, u.p, u.g, u.c, u.h, u.b
        from unnest(p_workspace, p_partition, p_generation, p_count, p_header, p_payload)
            with ordinality as u (w, p, g, c, h, b, ord)
        order by u.w, u.p, u.ord
    loop
        -- Whoever waited here for a change of the layout looks at the generation anew.
        update journal.head as head
        set next_offset = head.next_offset + block.c
        where head.workspace_id = block.w and head.partition = block.p and head.generation = block.g
        returning head.next_offset - block.c into out_base_offset;
        if found then
            insert into journal.received (workspace_id, partition, generation, base_offset, event_count, header, payload)
            values (block.w, block.p, block.g, out_base_offset, block.c, block.h, block.b);
        end if;
        ord := block.n;
        return next;
    end loop;
end
$$;

-- A log of records has lost what stood behind the end of this generation.
create function journal.tell_lost(p_workspace bigint, p_partition integer, p_generation integer) returns void
language sql as $$
    insert into journal.lost_generation as known (workspace_id, partition, generation)
    values (p_workspace, p_partition, p_generation)
    on conflict on constraint lost_generation_pkey do update
    set generation = greatest(known.generation, excluded.generation)
$$;
