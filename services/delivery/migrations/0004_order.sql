-- What was sent for an order at a connection: refunds become a retraction or a restatement of what is left.
create table delivery.order_sent (
    workspace_id bigint not null,
    connection_id bigint not null,
    order_hash bigint not null,
    value numeric,
    total numeric,
    currency text,
    sold_at timestamptz,
    refunded numeric not null default 0,
    constraint order_sent_pkey primary key (workspace_id, connection_id, order_hash)
);
