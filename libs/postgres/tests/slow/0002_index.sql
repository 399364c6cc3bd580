-- no-transaction
create index concurrently note_id_text on sample.note (id, text);
