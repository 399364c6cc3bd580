-- Up to where everybody has read: for each partition the least of its cursors, as delivery tells it every few seconds. What stands
-- behind that is what ingest counts towards its budget. What may be dropped is not decided by it.
create table journal.read_place (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    next_offset bigint not null,
    constraint read_place_pkey primary key (workspace_id, partition)
) with (fillfactor = 50);

-- When somebody took it on to tell; one row. Of all processes of delivery one does at a time.
create table journal.read_told (
    only_row boolean not null default true,
    told_at timestamptz not null default '-infinity',
    -- Nothing had been received by then: no earlier release reads it without telling.
    began_empty boolean not null,
    constraint read_told_pkey primary key (only_row),
    constraint read_told_one_row check (only_row)
);
insert into journal.read_told (began_empty) select not exists (select from journal.head where next_offset > 0);
