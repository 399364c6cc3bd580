-- Replays: events of a connection that are sent again, as an operator asked. Which, who asked and when; nothing here changes but that it
-- is cancelled.
create table delivery.replay (
    workspace_id bigint not null,
    replay_id bigint generated always as identity,
    connection_id bigint not null,
    -- dead_letters, journal
    origin text not null,
    -- Empty and null select everything.
    codes text[] not null,
    event_names text[] not null,
    message_ids text[] not null,
    received_from timestamptz,
    received_to timestamptz,
    delivered_too boolean not null,
    past_dedup_window boolean not null,
    before_start boolean not null,
    asked_by text not null,
    asked_at timestamptz not null default now(),
    cancelled_by text,
    cancelled_at timestamptz,
    constraint replay_pkey primary key (workspace_id, replay_id)
);

-- How far each lane is with a replay: what it looks at next, and where it ends. Only the holder of the lane's lease moves it, in the
-- transaction that takes what it has found.
create table delivery.replay_lane (
    workspace_id bigint not null,
    replay_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    generation integer not null,
    next_offset bigint not null,
    end_generation integer not null,
    end_offset bigint not null,
    walked bigint not null default 0,
    positions bigint not null,
    -- Also of a replay that was cancelled.
    done_at timestamptz,
    -- Why the next page could not be read or judged.
    failure text,
    constraint replay_lane_pkey primary key (workspace_id, replay_id, partition)
) with (fillfactor = 50);
-- What there is to do, for all lanes.
create index replay_lane_open on delivery.replay_lane (workspace_id, connection_id, partition, replay_id) where done_at is null;

-- What was found, by what became of it.
create table delivery.replay_count (
    workspace_id bigint not null,
    replay_id bigint not null,
    partition integer not null,
    what text not null,
    reason text not null,
    events bigint not null,
    constraint replay_count_pkey primary key (workspace_id, replay_id, partition, what, reason)
) with (fillfactor = 80);

-- Each event that a replay has taken: what the ledger said before, and what it said in the end. Without an end the event stands in
-- `delivery.retry`.
create table delivery.replay_event (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    generation integer not null,
    event_offset bigint not null,
    replay_id bigint not null,
    state smallint not null,
    reason text not null,
    taken_at timestamptz not null default now(),
    ended_state smallint,
    ended_reason text,
    ended_at timestamptz,
    constraint replay_event_pkey primary key (workspace_id, connection_id, partition, generation, event_offset, replay_id)
);
create index replay_event_open on delivery.replay_event (workspace_id, connection_id, partition) where ended_at is null;
create index replay_event_by_replay on delivery.replay_event (workspace_id, replay_id, ended_state, ended_reason);
