-- When the newest change of an order happened, by its own account. `adjusted_at`, with which it was told, may stand behind it: no two changes
-- are told with one time. Null: nothing changed it, or a process of the version before told of it, and `adjusted_at` stands for it.
alter table delivery.order_sent add column changed_at timestamptz;
