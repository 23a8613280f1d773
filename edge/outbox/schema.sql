-- schema, epoch, previous_epoch, epoch_reason
create table if not exists meta (name text primary key, value not null) without rowid;

-- One row a batch; a lane is a gapless sequence. Rows leave only when the cloud has committed them.
create table if not exists batch (
    lane     integer not null,
    seq      integer not null,
    made_ms  integer not null,
    readings integer not null,
    events   integer not null,
    first_ms integer not null,               -- of its readings; 0 without any
    last_ms  integer not null,
    digest   integer not null,               -- of its readings, as a signed number
    crc      integer not null,               -- of the payload: a disk that garbles is found out before the core is told
    payload  blob not null,
    unique (lane, seq)
);

-- Rows of an earlier epoch that the core may or may not have: asked before they are sent again (parking.py).
create table if not exists parked (
    epoch    integer not null,
    lane     integer not null,
    seq      integer not null,
    payload  blob not null,
    unique (epoch, lane, seq)
);

-- Running totals of all that was ever accepted in this epoch: what the proof compares with the database.
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
