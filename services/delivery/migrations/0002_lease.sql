-- Processes that take part, for fair shares.
create table delivery.member (
    process uuid not null,
    seen_at timestamptz not null,
    constraint member_pkey primary key (process)
);

-- Who reads what: connection 0 is the partition's resolve, any other its lane. The epoch rises with each new holder and is
-- named by every commit, so that a paused process that wakes up later cannot commit.
create table delivery.lease (
    workspace_id bigint not null,
    connection_id bigint not null,
    partition integer not null,
    holder uuid,
    epoch bigint not null,
    expires_at timestamptz not null,
    constraint lease_pkey primary key (workspace_id, connection_id, partition)
) with (fillfactor = 50);
