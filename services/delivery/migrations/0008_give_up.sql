-- What an operator gives up unread: a lane passes everything before that position without sending it, and says so in the ledger.
-- One row for each lane, gone when the lane is there.
create table delivery.lane_give_up (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    generation integer not null,
    next_offset bigint not null,
    asked_at timestamptz not null default now(),
    constraint lane_give_up_pkey primary key (workspace_id, connection_id, partition)
);
