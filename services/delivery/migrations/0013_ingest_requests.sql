-- Requests that a platform took and judges later (Google's Data Manager): written with the commit of their events, asked about until the
-- verdict is there, kept for a month after it. The events stay what the ledger has them as, "delivered" with the mark "unconfirmed".
create table delivery.ingest_request (
    workspace_id bigint not null,
    connection_id bigint not null,
    request_id text not null,
    partition integer not null,
    -- Of the request, as committed by the lane.
    events bigint not null,
    sent_at timestamptz not null,
    -- How often the platform answered that it is not done yet, and the answer that told.
    looks integer not null default 0,
    -- A claim raises it and nothing lowers it, so that who claimed before writes nothing any more.
    claim bigint not null default 0,
    -- Null: nobody asks any more.
    next_look_at timestamptz,
    -- SUCCESS, PARTIAL_SUCCESS, FAILED; UNKNOWN: the platform never told. Empty: not told yet.
    status text not null default '',
    failed bigint not null default 0,
    -- Reason -> events.
    reasons jsonb not null default '{}',
    warnings jsonb not null default '{}',
    -- Why it is not told yet, or never was.
    detail text not null default '',
    told_at timestamptz,
    constraint ingest_request_pkey primary key (workspace_id, connection_id, request_id)
);
-- By connection, so that each has its turn however much another has due.
create index ingest_request_due on delivery.ingest_request (workspace_id, connection_id, next_look_at)
    where next_look_at is not null;
create index ingest_request_told on delivery.ingest_request (told_at) where told_at is not null;
create index ingest_request_newest on delivery.ingest_request (workspace_id, connection_id, sent_at desc);
-- Those that did not go well, which are few.
create index ingest_request_troubled on delivery.ingest_request (workspace_id, connection_id, sent_at desc)
    where told_at is not null and (status <> 'SUCCESS' or warnings <> '{}');
