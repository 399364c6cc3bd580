-- Changes of orders: when the newest one was stated (the next has to be later), whether all of an order came back (also of one whose
-- worth is not known), whether it was given another worth, and how long a change has waited for its order, holds apart.
alter table delivery.order_sent
    add column adjusted_at timestamptz,
    add column all_back boolean not null default false,
    add column restated boolean not null default false;
alter table delivery.retry add column waited_ms bigint;

-- What an order was matched by, since an adjustment at Google's Data Manager has to say it again. Sealed under a key of the workspace;
-- kept for as long as the order can be adjusted, and no longer than its person is not erased. `subject_keys` says whom it is of.
create table delivery.order_match_key (
    workspace_id bigint not null,
    connection_id bigint not null,
    order_hash bigint not null,
    sold_at timestamptz not null,
    sealed text not null,
    subject_keys bytea[] not null,
    constraint order_match_key_pkey primary key (workspace_id, connection_id, order_hash)
);
create index order_match_key_by_time on delivery.order_match_key (sold_at);
create index order_match_key_by_subject on delivery.order_match_key using gin (subject_keys);

-- Up to which number of consent's narrowing log merges and erasures have been applied to them for good.
create table delivery.match_key_narrowing (
    workspace_id bigint not null,
    seen_seq bigint not null,
    constraint match_key_narrowing_pkey primary key (workspace_id)
);
