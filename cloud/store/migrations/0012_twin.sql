-- Twins: documents the city wants in force on a gateway, every version of them, and what the gateway made of them.
create table twin_desired (
    gateway_id   text not null references gateway,
    name         text not null,                 -- config | update | ...
    version      bigint not null,
    document     jsonb not null,
    author       text not null,
    comment      text not null default '',
    at           timestamptz not null default now(),
    primary key (gateway_id, name, version)
);
create table twin_reported (
    gateway_id   text not null references gateway,
    name         text not null,
    version      bigint not null,               -- of the desired document it is about; 0: none
    state        text not null,                 -- received | applying | applied | refused | failed | rolled_back
    detail       text not null default '',
    document     jsonb,
    at           timestamptz not null,          -- gateway's clock
    told_at      timestamptz not null default now(),
    sent_version bigint not null default 0,
    primary key (gateway_id, name)
);

-- Orders. A state is only ever what is known: "sent" when the broker has it, "received" when the gateway says so.
create table command (
    command_id   text primary key,
    gateway_id   text not null references gateway,
    device_id    text not null,                 -- the gateway's own id: the gateway itself
    name         text not null,
    arguments    jsonb not null default '{}',
    state        text not null,                 -- waiting | queued | sent | received | done | refused | failed | expired | unknown
    code         text not null default '',
    detail       text not null default '',
    read_back    jsonb not null default '{}',
    requested_by text not null,
    idempotency_key text,
    approved_by  text,
    dangerous    boolean not null default false,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz not null,
    sent_at      timestamptz,
    received_at  timestamptz,
    ended_at     timestamptz
);
create unique index command_key on command (requested_by, idempotency_key) where idempotency_key is not null;
create index command_open on command (gateway_id) where ended_at is null;
create index command_recent on command (created_at desc);
