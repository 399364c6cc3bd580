-- Whom consent's narrowing log still has to name for a change of profiles: written in the transaction of the change, deleted
-- once the log has the entry. Until `not_before` the process that wrote a row tells consent itself, afterwards any may.
create table identity.narrowing (
    workspace_id bigint not null,
    narrowing_id bigint generated always as identity,
    cause text not null,
    subject_keys uuid[] not null,
    evidence text not null,
    not_before timestamptz not null,
    constraint narrowing_pkey primary key (workspace_id, narrowing_id),
    constraint narrowing_cause check (cause in ('merge', 'split', 'erasure'))
) with (autovacuum_vacuum_scale_factor = 0.02);
create index narrowing_due_idx on identity.narrowing (not_before);
