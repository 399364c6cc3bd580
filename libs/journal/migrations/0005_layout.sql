-- Into how many partitions a workspace's events are spread, from a generation on. Only journal.open_layout writes it.
create table journal.layout (
    workspace_id bigint not null,
    generation integer not null,
    partitions integer not null,
    -- Version of the configuration that asked for it: an older one changes nothing any more.
    revision bigint not null,
    opened_at timestamptz not null default now(),
    constraint layout_pkey primary key (workspace_id, generation),
    constraint layout_partitions_check check (partitions between 1 and 64)
);

-- Where a generation ended whose layout was changed, for each partition in which something stands.
create table journal.layout_end (
    workspace_id bigint not null,
    generation integer not null,
    partition integer not null,
    next_offset bigint not null,
    constraint layout_end_pkey primary key (workspace_id, generation, partition)
);

-- The layout that is open, after the one that is asked for was opened if it is another and of a newer configuration. Changing it
-- ends the generation in all partitions at once: heads are locked as append locks them, so that an append is wholly before or wholly
-- after it.
create function journal.open_layout(p_workspace bigint, p_partitions integer, p_revision bigint)
returns table (out_generation integer, out_partitions integer)
language plpgsql as $$
declare
    last record;
begin
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
        out_generation := 1;
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

-- The layout of a journal that cannot change it: the last one, or else the first that is asked for. It has no heads here.
create function journal.keep_layout(p_workspace bigint, p_partitions integer, p_revision bigint)
returns table (out_generation integer, out_partitions integer)
language sql as $$
    insert into journal.layout (workspace_id, generation, partitions, revision)
    select p_workspace, 1, p_partitions, p_revision
    where not exists (select 1 from journal.layout l where l.workspace_id = p_workspace)
    on conflict on constraint layout_pkey do nothing;
    select l.generation, l.partitions from journal.layout l
    where l.workspace_id = p_workspace order by l.generation desc limit 1
$$;

-- Appends one block per (workspace, partition), each of events that were spread by the layout of its generation. One whose
-- generation is not open any more is not stored, and has no offset in the answer. As to locks it is as journal.append.
create function journal.append_to(
    p_workspace bigint[], p_partition integer[], p_generation integer[], p_count integer[], p_header bytea[],
    p_payload bytea[]
) returns table (ord bigint, out_base_offset bigint)
language plpgsql as $$
declare
    block record;
begin
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

-- What the release before calls. It does not know of layouts, and would go on spreading by the first one: after a change of it,
-- which comes when all processes are of this release, it stores nothing.
create or replace function journal.append(
    p_workspace bigint[], p_partition integer[], p_count integer[], p_header bytea[], p_payload bytea[]
) returns table (ord bigint, out_generation integer, out_base_offset bigint)
language plpgsql as $$
declare
    block record;
begin
    for block in
        select u.ord as n, u.w, u.p, u.c, u.h, u.b
        from unnest(p_workspace, p_partition, p_count, p_header, p_payload) with ordinality as u (w, p, c, h, b, ord)
        order by u.w, u.p, u.ord
    loop
        update journal.head as head
        set next_offset = head.next_offset + block.c
        where head.workspace_id = block.w and head.partition = block.p
        returning head.generation, head.next_offset - block.c into out_generation, out_base_offset;
        if not found then
            insert into journal.head as head (workspace_id, partition, next_offset)
            values (block.w, block.p, block.c)
            on conflict on constraint head_pkey do update set next_offset = head.next_offset + excluded.next_offset
            returning head.generation, head.next_offset - block.c into out_generation, out_base_offset;
        end if;
        if exists (select 1 from journal.layout l where l.workspace_id = block.w offset 1) then
            raise exception 'the layout of workspace % was changed: this process is of a release before that and has to be replaced',
                block.w using errcode = '55000';
        end if;
        insert into journal.received (workspace_id, partition, generation, base_offset, event_count, header, payload)
        values (block.w, block.p, out_generation, out_base_offset, block.c, block.h, block.b);
        ord := block.n;
        return next;
    end loop;
end
$$;
