-- Over a journal that numbers records (Kafka), each a block of events: where the cursor stands in that log, and what the record
-- looked like that was read last. All null where the journal numbers events (PostgreSQL).
alter table delivery.resolve_cursor
    add column record_offset bigint,
    add column record_step integer,
    add column record_mark bigint;

-- There the payload is a record of its own, appended before the commit: it exists only because a row here names it. Beside it
-- the places in `received` before and behind the range, by which a reader finds an event again, and a changed log its end.
-- A row whose record was trimmed names none any more; its header goes on counting.
alter table delivery.resolved
    alter column payload drop not null,
    add column payload_record bigint,
    add column from_offset bigint,
    add column from_step integer,
    add column record_offset bigint,
    add column record_step integer,
    add column record_mark bigint;
