-- How far each lane has come, and where it began.
create table delivery.lane_cursor (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    start_generation integer not null,
    start_offset bigint not null,
    generation integer not null,
    next_offset bigint not null,
    -- The newest commit of retries, so that one whose answer was lost is not applied twice.
    last_retries uuid,
    constraint lane_cursor_pkey primary key (workspace_id, connection_id, partition)
) with (fillfactor = 50);

-- What became of each event of a range, one row for many events.
create table delivery.ledger_block (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    generation integer not null,
    base_offset bigint not null,
    event_count integer not null,
    epoch bigint not null,
    committed_at timestamptz not null default now(),
    entries bytea not null,
    constraint ledger_block_pkey primary key (workspace_id, connection_id, partition, generation, base_offset)
);

-- What was not settled when its range was: held for a retry, delivered late, dead. The block says "late" for these.
create table delivery.ledger_late (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    generation integer not null,
    event_offset bigint not null,
    source_id bigint not null,
    state smallint not null,
    reason text not null,
    detail text not null default '',
    attempts integer not null,
    latency_ms integer not null,
    changed_at timestamptz not null default now(),
    constraint ledger_late_pkey primary key (workspace_id, connection_id, partition, generation, event_offset)
);

-- Requests that were about to be written: committed before the first byte, settled with the outcome.
create table delivery.intent (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    intent_id uuid not null,
    epoch bigint not null,
    generation integer not null,
    event_offsets bigint[] not null,
    started_at timestamptz not null default now(),
    constraint intent_pkey primary key (workspace_id, connection_id, partition, intent_id)
);

-- Events that wait for another try of their own, or behind one of their key. They carry their own copy.
create table delivery.retry (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    generation integer not null,
    event_offset bigint not null,
    order_key bigint not null,
    -- Requests that carried it.
    attempts integer not null,
    -- How often the platform asked to try it again later, and how often it had trouble of its own: each has its own limit.
    tries integer not null default 0,
    transient_holds integer not null default 0,
    next_at timestamptz not null,
    first_sent_at timestamptz,
    reason text not null,
    resolved bytea not null,
    constraint retry_pkey primary key (workspace_id, connection_id, partition, generation, event_offset)
);
-- The earliest event of each key, and when it is due, without a look at the copies.
create index retry_by_key on delivery.retry
    (workspace_id, connection_id, partition, order_key, generation, event_offset) include (next_at);

-- Events that will not be delivered unless a person acts, with their own copy.
create table delivery.dead_letter (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    generation integer not null,
    event_offset bigint not null,
    message_id text not null,
    code text not null,
    field text not null default '',
    detail text not null default '',
    request text not null default '',
    answer text not null default '',
    died_at timestamptz not null default now(),
    resolved bytea not null,
    constraint dead_letter_pkey primary key (workspace_id, connection_id, partition, generation, event_offset)
);
create index dead_letter_newest on delivery.dead_letter (workspace_id, died_at desc);

-- Counts per minute, source, state and reason. The partition is part of the key and summed on read, so that lanes never
-- wait for each other.
create table delivery.rollup (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    minute bigint not null,
    source_id bigint not null,
    state smallint not null,
    reason text not null,
    events bigint not null,
    constraint rollup_pkey primary key (workspace_id, connection_id, partition, minute, source_id, state, reason)
) with (fillfactor = 80);

-- Receipt to delivery, in buckets that grow by a tenth, and requests sent.
create table delivery.latency (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    bucket integer not null,
    events bigint not null,
    constraint latency_pkey primary key (workspace_id, connection_id, partition, bucket)
) with (fillfactor = 80);

create table delivery.request_count (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    requests bigint not null,
    constraint request_count_pkey primary key (workspace_id, connection_id, partition)
) with (fillfactor = 50);

-- Why a lane holds, for operators; one row per lane, gone when it moves.
create table delivery.lane_hold (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    kind text not null,
    detail text not null,
    attempts integer not null,
    since timestamptz not null default now(),
    next_at timestamptz not null,
    constraint lane_hold_pkey primary key (workspace_id, connection_id, partition)
);
