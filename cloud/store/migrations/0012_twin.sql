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
-- One row a document: the newest version wanted, and what the gateway last said of which version.
create table twin_reported (
    gateway_id   text not null references gateway,
    name         text not null,
    wanted       bigint not null default 0,     -- newest version in twin_desired
    version      bigint not null default 0,     -- of the desired document the state is about; 0: none
    state        text not null default '',      -- '' | received | applying | applied | refused | failed | rolled_back
    detail       text not null default '',
    document     jsonb,                         -- what is in force on the gateway, as far as told
    at           timestamptz,                   -- gateway's clock
    told_at      timestamptz,
    primary key (gateway_id, name)
);
create index twin_due on twin_reported (gateway_id) where wanted > version;

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
    tried_at     timestamptz,                   -- last handed to the broker: from then on it may have happened
    sent_at      timestamptz,
    received_at  timestamptz,
    ended_at     timestamptz
);
create unique index command_key on command (requested_by, idempotency_key) where idempotency_key is not null;
create index command_open on command (gateway_id) where ended_at is null;
create index command_recent on command (created_at desc);
