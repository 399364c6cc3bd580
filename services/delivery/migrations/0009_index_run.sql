-- Sorted runs: by them a message_id's positions are found, and what was sold at a connection. A row of its own for each event costs
-- more than the rest of its books (a random place in a b-tree, and with it whole pages in the write-ahead log); a run is one row
-- for all events of a commit. Runs of a level are merged into one of the next; of two runs the one with the higher number is newer in
-- all that it holds. `delivery.message_index` and `delivery.order_sent` keep what was there before, and the second the orders
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
    constraint index_run_pkey primary key (workspace_id, connection_id, partition, level, run, last_hash, segment)
) with (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
-- Hashes do not compress, and a lookup reads a part.
alter table delivery.index_run alter column body set storage external;
-- Which runs there are.
create index index_run_first_idx on delivery.index_run (workspace_id, connection_id) where segment = 0;

-- Where generations ended because a log had lost what came after: what was claimed from there on is nowhere. Those that ended before
-- this table was there, or by a change of the layout, have no row.
create table delivery.ended_generation (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    next_offset bigint not null,
    constraint ended_generation_pkey primary key (workspace_id, partition, generation)
);

-- Whether a sale counts instead of the one that a row has.
create function delivery.is_later(sold_at timestamptz, than timestamptz) returns boolean
language sql immutable parallel safe as $$
    select sold_at is not null and (than is null or sold_at > than)
$$;
