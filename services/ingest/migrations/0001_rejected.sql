-- Events that could not be accepted, kept for whoever mends the sender. Bounded by the service: so many per source and hour.
create table ingest.rejected (
    workspace_id bigint not null,
    rejected_id bigint generated always as identity,
    source_id bigint not null,
    received_at timestamptz not null,
    message_id text not null,
    code text not null,
    field text not null,
    reason text not null,
    raw bytea not null,
    constraint rejected_pkey primary key (workspace_id, rejected_id)
);

create index rejected_received_at on ingest.rejected (received_at);
