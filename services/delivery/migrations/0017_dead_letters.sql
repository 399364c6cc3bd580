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
