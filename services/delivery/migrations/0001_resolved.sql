-- The resolved journal: one row per commit of a range of `received`, at the same positions. A row exists only because the
-- commit that moved the cursor over its range wrote it.
create table delivery.resolved (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    base_offset bigint not null,
    event_count integer not null,
    resolved_at timestamptz not null default now(),
    header bytea not null,
    payload bytea not null,
    constraint resolved_pkey primary key (workspace_id, partition, generation, base_offset)
);
alter table delivery.resolved alter column payload set storage external;

-- How far resolve has come in each partition.
create table delivery.resolve_cursor (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    next_offset bigint not null,
    constraint resolve_cursor_pkey primary key (workspace_id, partition)
) with (fillfactor = 50);

-- message_id -> every position that carries it, winners and duplicates, once per event.
create table delivery.message_index (
    workspace_id bigint not null,
    message_hash bigint not null,
    partition integer not null,
    generation integer not null,
    event_offset bigint not null,
    constraint message_index_pkey primary key (workspace_id, message_hash, partition, generation, event_offset)
);

-- The history of the dedup store. A lost, emptied, promoted or evicting Redis opens the next generation; a resolve commit names the
-- one that its claims were made in.
create table delivery.dedup_generation (
    only_row boolean not null default true,
    generation bigint not null,
    run_id text not null,
    evicted_keys bigint not null,
    sentinel text not null,
    rebuilt boolean not null,
    constraint dedup_generation_pkey primary key (only_row),
    constraint dedup_generation_one_row check (only_row)
);
