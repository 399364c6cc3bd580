-- A batch of decisions. Receipts name its events by their place in message_ids, so that an id is stored once however many
-- connections asked.
create table consent.decision_batch (
    workspace_id bigint not null,
    batch_id uuid not null,
    decided_at timestamptz not null,
    policy_version text not null,
    policy_hash bytea not null,
    -- Newest narrowing that the decisions saw.
    narrowing_seq bigint not null,
    build text not null,
    message_ids text[] not null,
    constraint decision_batch_pkey primary key (workspace_id, batch_id)
);

-- For the retention: batches arrive in the order of their time.
create index decision_batch_decided_at_idx on consent.decision_batch using brin (decided_at);

-- One row for each distinct answer of a batch, denials as well as sends.
create table consent.receipt (
    workspace_id bigint not null,
    batch_id uuid not null,
    -- Number within the batch, from 1.
    part integer not null,
    connection_id bigint not null,
    kind text not null,
    -- 1 allow, 2 allow restricted, 3 deny.
    outcome smallint not null,
    reason text not null,
    place text not null,
    -- Bits: 0 necessary, 1 functional, 2 analytics, 3 ad_measurement, 4 ad_targeting, 5 sale_share.
    denied_purposes smallint not null,
    -- Bit i (lowest first in each byte) set: message_ids[i + 1] got this answer.
    members bytea not null,
    constraint receipt_pkey primary key (workspace_id, batch_id, part),
    constraint receipt_batch_fkey foreign key (workspace_id, batch_id)
        references consent.decision_batch (workspace_id, batch_id) on delete cascade
);
