-- Blocks of received events that cannot be read and that an operator has given up: resolve passes them when it comes there, and puts
-- as many lost events in their place. A row stays as the record of who gave up what, and why it could not be read.
create table delivery.skipped_block (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    base_offset bigint not null,
    event_count integer not null,
    -- Whether that is how many were written: over a log of records nobody knows once the header cannot be read.
    is_counted boolean not null,
    why text not null,
    asked_by text not null,
    asked_at timestamptz not null default now(),
    constraint skipped_block_pkey primary key (workspace_id, partition, generation, base_offset)
);

-- Resolved blocks that could not be read and in whose place an operator has put lost events: their bytes as they were, and whose
-- decision it was. Without a payload: it was in a log.
create table delivery.replaced_block (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    base_offset bigint not null,
    event_count integer not null,
    header bytea not null,
    payload bytea,
    why text not null,
    asked_by text not null,
    asked_at timestamptz not null default now(),
    constraint replaced_block_pkey primary key (workspace_id, partition, generation, base_offset, asked_at)
);
