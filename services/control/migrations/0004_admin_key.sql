-- Admin keys, as SHA-256 only. Without a workspace a key is the installation's and sees all. Deleting a row ends the key and
-- every console session that was opened with it.
create table control.admin_key (
    workspace_id bigint,
    admin_key_id bigint generated always as identity,
    key_sha256   bytea not null,
    label        text not null,
    created_at   timestamptz not null default now(),
    constraint admin_key_pkey primary key (admin_key_id),
    constraint admin_key_sha256_key unique (key_sha256),
    constraint admin_key_workspace_fkey foreign key (workspace_id) references control.workspace (workspace_id),
    constraint admin_key_sha256_check check (octet_length(key_sha256) = 32)
);
create index admin_key_workspace_idx on control.admin_key (workspace_id);
