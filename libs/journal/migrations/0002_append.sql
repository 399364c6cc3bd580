-- Appends one block per (workspace, partition). One auto-committed call: heads are locked in ascending order, so that two
-- appends never deadlock; no client round trip happens while a lock is held, so a stopped client blocks nobody; the locks
-- are let go at commit, so offsets become visible in order and without holes.
create function journal.append(
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
        insert into journal.received (workspace_id, partition, generation, base_offset, event_count, header, payload)
        values (block.w, block.p, out_generation, out_base_offset, block.c, block.h, block.b);
        ord := block.n;
        return next;
    end loop;
end
$$;
