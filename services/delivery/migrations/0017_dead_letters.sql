-- Dead letters go with their people. `subject_keys` says whose the event is: null where nobody has looked yet, as in letters of older
-- processes, which are filed by their copies; empty where it is nobody's.
alter table delivery.dead_letter add column subject_keys bytea[];
create index dead_letter_by_subject on delivery.dead_letter using gin (subject_keys);
create index dead_letter_unfiled on delivery.dead_letter (workspace_id) where subject_keys is null;
-- They go by age as well.
create index dead_letter_by_time on delivery.dead_letter (died_at);

-- Up to which number of consent's narrowing log merges and erasures have been applied to them for good.
create table delivery.dead_letter_narrowing (
    workspace_id bigint not null,
    seen_seq bigint not null,
    constraint dead_letter_narrowing_pkey primary key (workspace_id)
);

-- Which dead letters operators have closed, by whom: what was selected, and how many there were. The letters are gone.
create table delivery.dead_letter_close (
    workspace_id bigint not null,
    close_id uuid not null,
    connection_id bigint not null,
    codes text[] not null,
    message_ids text[] not null,
    died_before timestamptz not null,
    letters bigint not null default 0,
    asked_by text not null,
    asked_at timestamptz not null default now(),
    constraint dead_letter_close_pkey primary key (workspace_id, close_id)
);
