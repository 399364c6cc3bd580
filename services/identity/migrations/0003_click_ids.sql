-- The newest click id and browser id of each kind, by the device they were seen on (else the person).
create table identity.click_id (
    workspace_id bigint not null,
    value_mac bytea not null,
    kind smallint not null,
    value text not null,
    first_seen timestamptz not null,
    last_seen timestamptz not null,
    constraint click_id_pkey primary key (workspace_id, value_mac, kind)
) with (fillfactor = 80);
