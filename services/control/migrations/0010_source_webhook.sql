-- Which webhooks a source takes and what their kind is told, secrets sealed under the master key; null: none. As connections' documents,
-- kept as json: order and numbers stay.
alter table control.source add column webhook json;
