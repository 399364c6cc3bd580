-- A workspace: the wall between two customers. What services need of it travels to them by WatchConfig.
create table control.workspace (
    workspace_id   bigint generated always as identity,
    name           text not null,
    partitions     integer not null,
    value_from     text[] not null,
    value_fallback text not null,
    created_at     timestamptz not null default now(),
    constraint workspace_pkey primary key (workspace_id),
    constraint workspace_name_key unique (name),
    constraint workspace_name_check check (name ~ '^[a-z0-9-]{1,63}$'),
    constraint workspace_partitions_check check (partitions between 1 and 64),
    constraint workspace_value_fallback_check check (value_fallback in ('', 'products'))
);
