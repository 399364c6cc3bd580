-- Pauses of connections: what holds now, and for who asks later who paused what and why. At most one of a connection holds.
create table control.connection_pause (
    workspace_id  bigint not null,
    connection_id bigint not null,
    pause_id      bigint generated always as identity,
    paused_at     timestamptz not null default now(),
    paused_by     text not null,
    reason        text not null,
    resumed_at    timestamptz,
    resumed_by    text not null default '',
    constraint connection_pause_pkey primary key (workspace_id, connection_id, pause_id),
    constraint connection_pause_connection_fkey
        foreign key (workspace_id, connection_id) references control.connection (workspace_id, connection_id),
    constraint connection_pause_reason_check check (char_length(reason) <= 200)
);
create unique index connection_pause_holds_key on control.connection_pause (workspace_id, connection_id)
    where resumed_at is null;

-- Windows in which a connection, or (without one) every connection of the workspace, is held. Times as an operator said them, on the
-- clocks of the time zone: only who looks makes instants of them. A removed window stays for who asks later.
create table control.freeze_window (
    workspace_id  bigint not null,
    freeze_id     bigint generated always as identity,
    connection_id bigint,
    time_zone     text not null,
    -- Week after week on these days; none: once.
    days          text[] not null,
    window_from   text not null,
    window_to     text not null,
    reason        text not null,
    created_at    timestamptz not null default now(),
    created_by    text not null,
    removed_at    timestamptz,
    removed_by    text not null default '',
    constraint freeze_window_pkey primary key (workspace_id, freeze_id),
    constraint freeze_window_workspace_fkey foreign key (workspace_id) references control.workspace (workspace_id),
    constraint freeze_window_connection_fkey
        foreign key (workspace_id, connection_id) references control.connection (workspace_id, connection_id),
    constraint freeze_window_reason_check check (char_length(reason) <= 200)
);

-- How fast all lanes of a connection together send what has waited for a release, events a second; 0: no limit; null: the default.
alter table control.connection add column release_events_per_second integer
    constraint connection_release_events_per_second_check check (release_events_per_second between 0 and 1000000);

create trigger connection_pause_config_changed after insert or update or delete on control.connection_pause
    for each statement execute function control.config_changed();
create trigger freeze_window_config_changed after insert or update or delete on control.freeze_window
    for each statement execute function control.config_changed();
