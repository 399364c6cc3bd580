-- What was said about consent, for each key that it was said under. Append-only but for the times: a repeat of the same
-- content moves last_at, and nothing is ever removed by a newer statement.
create table consent.signal (
    workspace_id bigint not null,
    -- Keyed hash of an identifier; never the identifier.
    subject_key uuid not null,
    -- 1 gpc, 2 categories, 3 object unreadable, 4 tcf, 5 gpp, 6 us privacy, 7 consent mode, 8 explicit.
    channel smallint not null,
    -- First 16 bytes of SHA-256 over channel and content (and the time, where each act counts: 8).
    content_hash uuid not null,
    -- The statement as it came.
    content text not null,
    -- A person was known when it was made.
    person boolean not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    -- Not replaced by a newer statement of its channel: what decisions read.
    current boolean not null,
    provenance text not null,
    -- Evidence of the first time.
    message_id text not null,
    received_at timestamptz not null,
    constraint signal_pkey primary key (workspace_id, subject_key, channel, content_hash),
    constraint signal_channel_check check (channel between 1 and 8),
    constraint signal_times_check check (first_at <= last_at)
) with (fillfactor = 85);

-- What a decision reads: a handful of rows for each key. last_at is in no index, so that a repeat is a HOT update.
create index signal_current_idx on consent.signal (workspace_id, subject_key) where current;
