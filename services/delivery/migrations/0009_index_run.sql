-- Sorted runs: by them a message_id's positions are found, and what was sold at a connection. A row of its own for each event costs
-- more than the rest of its books (a random place in a b-tree, and with it whole pages in the write-ahead log); a run is one row
-- for all events of a commit. Runs of a level are merged into one of the next; what is newer has the lower level, or on the same
-- level the higher number. `delivery.message_index` and `delivery.order_sent` keep what was there before, and the second the orders
-- that were changed after they were sold.
create sequence delivery.index_run_number;
create table delivery.index_run (
    workspace_id bigint not null,
    -- 0: message_ids; else orders, as that connection has sold them.
    connection_id bigint not null,
    partition integer not null,
    level smallint not null,
    run bigint not null,
    segment integer not null,
    first_hash bigint not null,
    last_hash bigint not null,
    records integer not null,
    -- Records of one width, sorted by the hash that each begins with (services/delivery/src/runs.rs).
    body bytea not null,
    constraint index_run_pkey primary key (workspace_id, connection_id, partition, level, run, segment)
) with (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
-- Hashes do not compress, and a lookup reads a part.
alter table delivery.index_run alter column body set storage external;
