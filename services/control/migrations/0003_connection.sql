-- A connection: one destination with its settings. The document is kept as the operator wrote it (json, not jsonb: order and
-- numbers stay), its secrets sealed under the master key.
create table control.connection (
    workspace_id  bigint not null,
    connection_id bigint generated always as identity,
    name          text not null,
    kind          text not null,
    mode          text not null,
    document      json not null,
    revision      bigint not null default 1,
    created_at    timestamptz not null default now(),
    changed_at    timestamptz not null default now(),
    constraint connection_pkey primary key (workspace_id, connection_id),
    constraint connection_workspace_fkey foreign key (workspace_id) references control.workspace (workspace_id),
    constraint connection_name_key unique (workspace_id, name),
    constraint connection_name_check check (name ~ '^[a-z0-9-]{1,63}$'),
    constraint connection_mode_check check (mode in ('off', 'shadow', 'live'))
);
