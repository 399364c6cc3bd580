-- Events that count though their message_id was used before for something else, per source and hour of receipt (hours since the Unix
-- epoch): written by the commit that resolves them, so that none is counted twice or missed. `cause` is 1 where the id was another event's (of
-- another type or name), 2 where it was another order's. The partition is part of the key and summed on read, as in `rollup`: resolve loops
-- never wait for each other here. No row is about one event. Processes of an earlier version write none.
create table delivery.reused_id (
    workspace_id bigint not null,
    hour bigint not null,
    partition integer not null,
    source_id bigint not null,
    cause smallint not null,
    events bigint not null,
    constraint reused_id_pkey primary key (workspace_id, hour, partition, source_id, cause),
    constraint reused_id_cause_check check (cause in (1, 2))
) with (fillfactor = 80);
