-- How much a source may send: events a second at each replica of ingest; 0: no limit; null: what the installation says.
alter table control.source add column max_events_per_second integer
    constraint source_max_events_per_second_check check (max_events_per_second between 0 and 10000000);
