-- What the decision owner decided; per pair the row that no other supersedes counts.
create table identity.decision (
    workspace_id bigint not null,
    decision_id bigint generated always as identity,
    act text not null,
    a_mac bytea not null,
    b_mac bytea,
    decided_by text not null,
    reason text not null,
    decided_at timestamptz not null,
    superseded_by bigint,
    constraint decision_pkey primary key (workspace_id, decision_id),
    constraint decision_act check (act in ('merge', 'separate', 'block')),
    constraint decision_in_order check ((act = 'block') = (b_mac is null) and (b_mac is null or a_mac < b_mac))
);
create index decision_a_idx on identity.decision (workspace_id, a_mac) where superseded_by is null;
create index decision_b_idx on identity.decision (workspace_id, b_mac) where superseded_by is null;

-- Identifiers that link nobody.
create table identity.blocked (
    workspace_id bigint not null,
    value_mac bytea not null,
    constraint blocked_pkey primary key (workspace_id, value_mac)
);

-- Erased identifiers: seen again, they create nothing.
create table identity.suppressed (
    workspace_id bigint not null,
    value_mac bytea not null,
    suppressed_at timestamptz not null default now(),
    constraint suppressed_pkey primary key (workspace_id, value_mac)
);

-- Changes of profiles that had keys before, by key.
create table identity.merge_log (
    workspace_id bigint not null,
    seq bigint generated always as identity,
    kind text not null,
    before_keys uuid[] not null,
    after_keys uuid[] not null,
    cause text not null,
    at timestamptz not null default now(),
    constraint merge_log_pkey primary key (workspace_id, seq),
    constraint merge_log_kind check (kind in ('merge', 'contest', 'split', 'rekey'))
);

-- The queue of the decision owner. The fingerprint is a hash of what the collision is about.
create table identity.collision (
    workspace_id bigint not null,
    fingerprint bytea not null,
    component_id bigint not null,
    kind text not null,
    state text not null default 'open',
    between_macs bytea[] not null,
    through_macs bytea[] not null,
    sample_message_id text not null,
    opened_at timestamptz not null default now(),
    constraint collision_pkey primary key (workspace_id, fingerprint),
    constraint collision_kind check (kind in ('exclusive', 'hub', 'oversize')),
    constraint collision_state check (state in ('open', 'decided', 'obsolete'))
);
create index collision_component_idx on identity.collision (workspace_id, component_id) where state = 'open';
