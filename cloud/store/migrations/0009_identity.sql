-- Who a gateway is: its claim before it is there, its certificates afterwards, and whether it may come at all.

-- A one-time code on a box. Only a hash of its secret half is here; the selector finds the row.
create table gateway_claim (
    claim_id     bigint generated always as identity primary key,
    selector     text not null unique,
    secret_hash  bytea not null,                -- SHA-256
    gateway_id   text not null,
    shard        smallint not null check (shard between 0 and 63),
    made_by      text not null,
    made_at      timestamptz not null default now(),
    expires_at   timestamptz not null,
    attempts     integer not null default 0,    -- with the right selector and a wrong secret
    used_at      timestamptz,
    used_from    text not null default '',
    csr_hash     bytea,                         -- of the request that used it: its repeat gets the same answer
    voided_at    timestamptz
);
create index gateway_claim_open on gateway_claim (gateway_id) where used_at is null and voided_at is null;

create table gateway_certificate (
    serial       text primary key,              -- lower-case hexadecimal
    gateway_id   text not null references gateway,
    issued_at    timestamptz not null default now(),
    not_before   timestamptz not null,
    not_after    timestamptz not null,
    csr_hash     bytea not null,                -- SHA-256 of the request: a repeated request gets the same certificate
    pem          text not null,                 -- with its chain, without the root
    superseded_at timestamptz,                  -- when its successor was issued
    revoked_at   timestamptz
);
create unique index gateway_certificate_request on gateway_certificate (gateway_id, csr_hash);
create index gateway_certificate_newest on gateway_certificate (gateway_id, issued_at desc);
create index gateway_certificate_revoked on gateway_certificate (not_after) where revoked_at is not null;

-- Whether a gateway with a certificate may come in.
create table gateway_access (
    gateway_id   text primary key references gateway,
    revoked_at   timestamptz,
    revoked_by   text not null default '',
    reason       text not null default '',
    kick_wanted_at timestamptz,                 -- its live session is to be ended (revoked, or another box took its place)
    kicked_at    timestamptz                    -- when that was last done
);

-- Boxes that showed themselves under one identity: each start of an agent draws a random session name.
create table gateway_session (
    gateway_id   text not null references gateway,
    session      text not null,
    first_at     timestamptz not null default now(),
    last_at      timestamptz not null default now(),
    said_ms      bigint not null,               -- its own clock when it last said so
    times        integer not null default 0,    -- how often it came back after another session had been heard
    primary key (gateway_id, session)
);

-- Devices nobody has entered. `admission` 'auto': a gateway's devices enter by themselves; 'accept': they wait here.
alter table gateway add column admission text not null default 'auto' check (admission in ('auto', 'accept'));
create table device_pending (
    gateway_id   text not null references gateway,
    device_id    text not null,
    device_type  text not null default '',
    source       text not null default '',      -- 'series': it already sends; 'unlisted': a station that dialled in
    detail       text not null default '',
    first_at     timestamptz not null default now(),
    last_at      timestamptz not null default now(),
    times        bigint not null default 1,
    state        text not null default 'pending' check (state in ('pending', 'accepted', 'rejected')),
    decided_by   text not null default '',
    decided_at   timestamptz,
    primary key (gateway_id, device_id)
);
create index device_pending_open on device_pending (last_at desc) where state = 'pending';
