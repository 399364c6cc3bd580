-- The version of the whole configuration. Its row lock is held until the change commits, so that versions become visible in
-- order. Triggers, not the program, count it up: a change by another replica, an older binary or a person with psql is told
-- as well. The notification only hurries; followers look at the version every two seconds anyway.
create table control.config_version (
    only_row boolean not null default true,
    version  bigint not null,
    constraint config_version_pkey primary key (only_row),
    constraint config_version_only_row_check check (only_row)
);
insert into control.config_version (version) values (1);

create function control.config_changed() returns trigger language plpgsql as $$
begin
    update control.config_version set version = version + 1;
    perform pg_notify('tracklayer_control_config', '');
    return null;
end
$$;

create trigger workspace_config_changed after insert or update or delete on control.workspace
    for each statement execute function control.config_changed();
create trigger source_config_changed after insert or update or delete on control.source
    for each statement execute function control.config_changed();
create trigger connection_config_changed after insert or update or delete on control.connection
    for each statement execute function control.config_changed();
create trigger admin_key_config_changed after insert or update or delete on control.admin_key
    for each statement execute function control.config_changed();
