-- A source: one write key, of which only the SHA-256 and a hint are kept. The key alone names the workspace, hence it is
-- unique over all of them.
create table control.source (
    workspace_id           bigint not null,
    source_id              bigint generated always as identity,
    name                   text not null,
    write_key_sha256       bytea not null,
    write_key_hint         text not null,
    channel                text not null,
    default_place          text not null,
    user_id_type           text not null,
    enabled                boolean not null default true,
    dedup_ttl_seconds      integer not null,
    banner_writes_defaults boolean not null,
    dedup_by_order_id      boolean not null,
    created_at             timestamptz not null default now(),
    constraint source_pkey primary key (workspace_id, source_id),
    constraint source_workspace_fkey foreign key (workspace_id) references control.workspace (workspace_id),
    constraint source_name_key unique (workspace_id, name),
    constraint source_write_key_key unique (write_key_sha256),
    constraint source_name_check check (name ~ '^[a-z0-9-]{1,63}$'),
    constraint source_write_key_check check (octet_length(write_key_sha256) = 32),
    constraint source_channel_check check (channel in ('browser', 'server', 'mobile')),
    constraint source_dedup_ttl_check check (dedup_ttl_seconds between 60 and 7776000)
);
