-- What a refund needs to know of its order, which its own webhook does not say: ids, place, total. No name and no address.
create table ingest.shopify_order (
    workspace_id bigint not null,
    source_id bigint not null,
    order_id text not null,
    known text not null,
    seen_at timestamptz not null default now(),
    constraint shopify_order_pkey primary key (workspace_id, source_id, order_id)
);

create index shopify_order_seen_at on ingest.shopify_order (seen_at);
