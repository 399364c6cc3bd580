-- The twin audit: duplicates per minute of their receipt, the source whose event had won before, and the source that sent the copy;
-- written by the commit that resolves them. Where both are one source, or it is a further copy of one, it is a repeat and no twin. The
-- partition is part of the key and summed on read, as in `rollup`. No row is about one event or one person.
create table delivery.twin_count (
    workspace_id bigint not null,
    partition integer not null,
    minute bigint not null,
    first_source_id bigint not null,
    second_source_id bigint not null,
    -- Found by the order alone: the message_ids differ.
    by_order boolean not null,
    -- All of them.
    copies bigint not null,
    -- Those that are the first of their source, if that is another one than the winner's.
    twins bigint not null,
    -- Those before which no other source had sent a copy: the winners that have a twin.
    first_twins bigint not null,
    constraint twin_count_pkey
        primary key (workspace_id, partition, minute, first_source_id, second_source_id, by_order)
) with (fillfactor = 80);
create index twin_count_by_minute on delivery.twin_count (minute);
-- The audit looks at the minutes of its window, in whichever partition.
create index twin_count_of_window on delivery.twin_count (workspace_id, minute);

-- From which minute of receipt on everything is counted: what was accepted before this table was there may have had twins that nobody
-- counted, and what was counted longer ago is forgotten.
create table delivery.twin_start (
    only_row boolean not null default true,
    minute bigint not null,
    constraint twin_start_pkey primary key (only_row),
    constraint twin_start_one_row check (only_row)
);
insert into delivery.twin_start (minute)
select case
    when exists (select from delivery.rollup where connection_id = 0) then floor(extract(epoch from now()) / 60)::bigint + 1
    else 0
end;
