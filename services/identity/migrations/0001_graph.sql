-- The graph of identifiers. An identifier is known by its keyed hash, which covers its type: no clear value is stored. One
-- that was never seen together with another is not stored at all; its key is computed.
create table identity.identifier (
    workspace_id bigint not null,
    value_mac bytea not null,
    type text not null,
    key uuid not null,
    component_id bigint not null,
    profile_id bigint not null,
    hub boolean not null default false,
    contested boolean not null default false,
    constraint identifier_pkey primary key (workspace_id, value_mac)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
create index identifier_component_idx on identity.identifier (workspace_id, component_id);
create index identifier_profile_idx on identity.identifier (workspace_id, profile_id);

-- Evidence: who was seen together, by which source, since when. Never deleted by a merge or a split.
create table identity.link (
    workspace_id bigint not null,
    a_mac bytea not null,
    b_mac bytea not null,
    source_id bigint not null,
    first_seen timestamptz not null,
    last_seen timestamptz not null,
    first_message_id text not null,
    constraint link_pkey primary key (workspace_id, a_mac, b_mac, source_id),
    constraint link_in_order check (a_mac < b_mac)
);
create index link_b_idx on identity.link (workspace_id, b_mac, a_mac);

-- What is locked and recomputed together.
create table identity.component (
    workspace_id bigint not null,
    component_id bigint not null,
    size integer not null,
    constraint component_pkey primary key (workspace_id, component_id)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

create table identity.profile (
    workspace_id bigint not null,
    profile_id bigint not null,
    component_id bigint not null,
    key uuid not null,
    person boolean not null,
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    constraint profile_pkey primary key (workspace_id, profile_id),
    constraint profile_key_key unique (workspace_id, key) deferrable initially deferred
);

-- Numbers of components and profiles are handed out to processes in blocks of 1,000.
create sequence identity.block_of_numbers;
