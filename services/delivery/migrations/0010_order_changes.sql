-- Changes of orders: when the newest one was stated (the next has to be later), what an order was matched by (an adjustment at Google's
-- Data Manager has to say it again), and since when a change waits for its order.
alter table delivery.order_sent add column adjusted_at timestamptz;
alter table delivery.retry add column waiting_since timestamptz;

-- Sealed under a key of the workspace; kept for as long as the order can be adjusted.
create table delivery.order_match_key (
    workspace_id bigint not null,
    connection_id bigint not null,
    order_hash bigint not null,
    sold_at timestamptz not null,
    sealed text not null,
    constraint order_match_key_pkey primary key (workspace_id, connection_id, order_hash)
);
create index order_match_key_by_time on delivery.order_match_key using brin (sold_at);
