-- Policies that were ever in force, verbatim. A version stands for one text for ever.
create table consent.policy (
    version text not null,
    hash bytea not null,
    document text not null,
    activated_at timestamptz not null default clock_timestamp(),
    constraint policy_pkey primary key (version)
);

-- The one that is in force.
create table consent.policy_in_force (
    only_row boolean not null default true,
    version text not null,
    constraint policy_in_force_pkey primary key (only_row),
    constraint policy_in_force_one_row check (only_row),
    constraint policy_in_force_version_fkey foreign key (version) references consent.policy (version)
);
