-- The number of the newest narrowing of a workspace. Whoever writes signals locks this row first and holds it to the end
-- of the transaction: numbers are given without gaps, and no two writers of a workspace ever wait for each other in a ring.
create table consent.narrowing_head (
    workspace_id bigint not null,
    seq bigint not null,
    constraint narrowing_head_pkey primary key (workspace_id)
);

-- Who is to be decided about again. An empty list of keys names everybody.
create table consent.narrowing (
    workspace_id bigint not null,
    seq bigint not null,
    subject_keys uuid[] not null,
    cause text not null,
    message_id text not null,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint narrowing_pkey primary key (workspace_id, seq),
    constraint narrowing_cause_check check (
        cause in ('gpc', 'categories', 'withdrawal', 'unreadable', 'string', 'policy', 'merge', 'split', 'erasure')
    )
);
