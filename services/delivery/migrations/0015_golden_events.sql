-- Events whose requests are to stay as they are: what drift is told by. Input and request are sealed under a key of the workspace;
-- `subject_keys` says whose they are, so that they go with an erasure.
create table delivery.golden_event (
    workspace_id bigint not null,
    connection_id bigint not null,
    -- From 1, in the order in which they were frozen.
    number integer not null,
    -- The clock that their requests are built by.
    clock timestamptz not null,
    frozen_at timestamptz not null default now(),
    -- With which release, and which change of the connection.
    version text not null,
    revision bigint not null,
    sealed text not null,
    subject_keys bytea[] not null,
    constraint golden_event_pkey primary key (workspace_id, connection_id, number)
);

-- Up to which number of consent's narrowing log merges and erasures have been applied to them for good.
create table delivery.golden_narrowing (
    workspace_id bigint not null,
    seen_seq bigint not null,
    constraint golden_narrowing_pkey primary key (workspace_id)
);
