-- What a lane that writes files needs to write them again: where they go, their names, and how many of the intent's events each of
-- them has, in the order of `event_offsets`. Empty for intents of requests.
alter table delivery.intent add column files text not null default '';
