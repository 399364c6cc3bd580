-- Where the next event of a partition goes. Locked in ascending order by journal.append, for the length of one statement.
create table journal.head (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null default 1,
    next_offset bigint not null default 0,
    constraint head_pkey primary key (workspace_id, partition)
) with (fillfactor = 50);

-- Record batches, one row for hundreds of events. Time partitions are dropped whole; a row is never updated.
create table journal.received (
    workspace_id bigint not null,
    partition integer not null,
    generation integer not null,
    base_offset bigint not null,
    event_count integer not null,
    appended_on date not null default (now() at time zone 'utc')::date,
    appended_at timestamptz not null default now(),
    header bytea not null,
    payload bytea not null,
    constraint received_pkey primary key (workspace_id, partition, generation, base_offset, appended_on)
) partition by range (appended_on);

-- Payloads are compressed already: another attempt costs time and saves nothing.
alter table journal.received alter column payload set storage external;

-- Takes what no day's partition takes, so that an append never fails for a partition that nobody made.
create table journal.received_default partition of journal.received default;

-- Makes the partitions of today and the next days; safe to repeat, and at the same time by several processes. Appends go on
-- meanwhile: attaching locks the default partition, not the parent, and gives up (55P03) rather than let readers queue behind
-- a long one.
create function journal.ensure_partitions(days_ahead integer) returns void
language plpgsql as $$
declare
    day date;
    name text;
begin
    perform set_config('lock_timeout', '300ms', true);
    perform pg_advisory_xact_lock(hashtext('journal.ensure_partitions'));
    for i in 0..days_ahead loop
        day := (now() at time zone 'utc')::date + i;
        name := format('received_%s', to_char(day, 'YYYYMMDD'));
        if to_regclass(format('journal.%I', name)) is null
            and not exists (select 1 from journal.received_default where appended_on = day)
        then
            execute format('create table journal.%I (like journal.received including all)', name);
            -- Says what the bounds will, so that attaching has nothing to look through.
            execute format(
                'alter table journal.%I add constraint of_day check (appended_on >= %L and appended_on < %L)',
                name, day, day + 1);
            execute format(
                'alter table journal.received attach partition journal.%I for values from (%L) to (%L)',
                name, day, day + 1);
            execute format('alter table journal.%I drop constraint of_day', name);
        end if;
    end loop;
end
$$;
