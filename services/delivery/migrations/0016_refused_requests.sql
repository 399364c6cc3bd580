-- Where the events of a request stand in the partition, so that a verdict about the whole request can move
-- them: generation, offset, and whether a request before it may have brought the event, one beside the other.
-- What was delivered before is not among them. Empty for requests that older processes have sent, of which a
-- verdict moves nothing; emptied by a verdict that says nothing of each event.
alter table delivery.ingest_request
    add column generations integer[] not null default '{}',
    add column event_offsets bigint[] not null default '{}',
    add column sent_before boolean[] not null default '{}';
