-- What a process can read. One that does not say so is of before there was more than one level.
alter table delivery.member add column feature_level integer not null default 1;
