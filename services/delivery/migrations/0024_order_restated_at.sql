-- When the newest new value of an order was stated, by its own account: refunds from before it are part of it. Null: none was since the
-- order was sold, or a process of the version before told of it.
alter table delivery.order_sent add column restated_at timestamptz;
