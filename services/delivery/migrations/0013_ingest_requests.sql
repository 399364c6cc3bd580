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
    -- How often it was asked about. A claim raises it, so that who claimed before writes nothing any more.
    looks integer not null default 0,
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
create index ingest_request_due on delivery.ingest_request (next_look_at) where next_look_at is not null;
create index ingest_request_told on delivery.ingest_request (told_at) where told_at is not null;
create index ingest_request_newest on delivery.ingest_request (workspace_id, connection_id, sent_at desc);
