create table if not exists meta (name text primary key, value integer not null) without rowid;

-- One row a batch; a lane is a gapless sequence. Rows leave only when the cloud has committed them.
create table if not exists batch (
    lane     integer not null,
    seq      integer not null,
    made_ms  integer not null,
    readings integer not null,
    events   integer not null,
    payload  blob not null,
    unique (lane, seq)
);

-- Running totals of all that was ever accepted: what the proof compares with the database.
create table if not exists lane (
    lane     integer primary key,
    next_seq integer not null,
    acked    integer not null default 0,
    readings integer not null default 0,
    events   integer not null default 0,
    digest   text not null default '0',
    thinned  integer not null default 0
) without rowid;

create table if not exists series (
    alias       integer primary key,
    device      text not null,
    point       text not null,
    unit        text not null,
    decimals    integer not null,
    reference   integer not null,
    device_type text not null,
    lanes       integer not null default 0,  -- bit set: lanes in which it has been declared
    unique (device, point)
);

-- Identities of pushes that are already in the outbox (or beyond), so that a repeat after a restart is recognised.
create table if not exists exchange (id text primary key, made_ms integer not null) without rowid;
create index if not exists exchange_made on exchange (made_ms);

-- Opaque state kept with the data it belongs to (scenario engine snapshot).
create table if not exists state (name text primary key, value blob not null) without rowid;
