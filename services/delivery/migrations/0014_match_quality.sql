-- What the persons of events could be matched by, per minute of receipt and the platform's name of the event: written by the commit
-- that settles them as delivered or shadowed, so that the sums are those of the ledger. The partition is part of the key and summed on
-- read, as in `rollup`. No row is about one event or one person.
create table delivery.match_quality (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    minute bigint not null,
    event_name text not null,
    events bigint not null,
    -- Events that went out with each key, in the order of the keys' numbers, from 0.
    sent bigint[] not null,
    constraint match_quality_pkey primary key (workspace_id, connection_id, partition, minute, event_name)
) with (fillfactor = 80);
create index match_quality_by_minute on delivery.match_quality (minute);
-- A report looks at the minutes of its window, whichever lanes they are of.
create index match_quality_of_window on delivery.match_quality (workspace_id, minute);

-- Events of which a key had a value that was of no use, and why; none of it went out.
create table delivery.match_quality_left_out (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    minute bigint not null,
    event_name text not null,
    key smallint not null,
    reason text not null,
    events bigint not null,
    constraint match_quality_left_out_pkey
        primary key (workspace_id, connection_id, partition, minute, event_name, key, reason)
) with (fillfactor = 80);
create index match_quality_left_out_by_minute on delivery.match_quality_left_out (minute);
create index match_quality_left_out_of_window on delivery.match_quality_left_out (workspace_id, minute);

-- When a platform was asked for its own figure of a connection's events, and what came of it.
create table delivery.platform_quality_reading (
    workspace_id bigint not null,
    connection_id bigint not null,
    -- Which change of the connection asked: a later one asks at once.
    revision bigint not null,
    asked_at timestamptz not null,
    -- When it last answered.
    read_at timestamptz,
    -- Why it did not at the last try; empty: it did.
    problem text not null default '',
    constraint platform_quality_reading_pkey primary key (workspace_id, connection_id)
);

-- Its figures as of `read_at`.
create table delivery.platform_quality (
    workspace_id bigint not null,
    connection_id bigint not null,
    event_name text not null,
    -- On the platform's own scale.
    score double precision,
    -- By key, percent of the events, as the platform counts.
    coverage jsonb not null,
    constraint platform_quality_pkey primary key (workspace_id, connection_id, event_name)
);
