-- The core's tables. Times are timestamptz (UTC inside). Written for plain PostgreSQL; where TimescaleDB is there,
-- cloud/store/timescale.py turns `reading` into a hypertable, else cloud/store/partitions.py keeps day partitions.

create table gateway (
    gateway_id   text primary key,
    shard        smallint not null check (shard between 0 and 63),
    name_zh      text not null default '',
    name_en      text not null default '',
    lon          double precision,
    lat          double precision,
    enrolled_at  timestamptz not null default now(),
    online       boolean,                       -- null: never heard of
    state_at     timestamptz,                   -- when `online` last changed or was confirmed
    health       jsonb not null default '{}',   -- last heartbeat: cpu_pct, memory_mb, disk_free_mb, outbox_*, link_*
    health_at    timestamptz,
    version      text not null default '',
    epoch        bigint                         -- the outbox's life now being received
);

create table device (
    device_id    text primary key,
    gateway_id   text not null references gateway,
    device_type  text not null default '',
    name_zh      text not null default '',
    name_en      text not null default '',
    lon          double precision,
    lat          double precision,
    h3_9         text,                          -- H3 cell, resolution 9
    online       boolean,                       -- null: unknown, and shown as unknown
    state_at     timestamptz,
    detail       text not null default '',
    seen_at      timestamptz                    -- last reading or event of it
);
create index device_gateway on device (gateway_id);

create table series (
    series_id    integer generated always as identity primary key,
    device_id    text not null references device,
    point        text not null,
    unit         text not null default '',
    decimals     smallint not null default 3,
    unique (device_id, point)
);

-- What a gateway calls a series in one life of its outbox.
create table series_alias (
    gateway_id   text not null,
    epoch        bigint not null,
    alias        integer not null,
    series_id    integer not null references series,
    reference    bigint not null default 0,
    decimals     smallint not null,
    primary key (gateway_id, epoch, alias)
);

create table reading (
    series_id    integer not null,
    ts           timestamptz not null,
    value        double precision,              -- null: the device had no value
    lag_ms       integer not null default 0,    -- seen by the gateway minus source time
    quality      smallint not null default 0
) partition by range (ts);
create index reading_series_ts on reading (series_id, ts desc);

-- The newest reading of each series by source time; late data never overwrites it.
create table last_value (
    series_id    integer primary key references series,
    ts           timestamptz not null,
    value        double precision,
    quality      smallint not null
) with (fillfactor = 70);

-- How far each lane of each outbox has been committed, and what was committed. Moves in the transaction of the data.
create table lane_cursor (
    gateway_id   text not null,
    epoch        bigint not null,
    lane         text not null,                 -- event | data | backfill | evidence
    seq          bigint not null,
    batches      bigint not null default 0,
    readings     bigint not null default 0,
    events       bigint not null default 0,
    bytes        bigint not null default 0,
    digest       bigint not null default 0,     -- sum over readings of a 64-bit mix of (alias, ts, value), mod 2^64
    thinned      bigint not null default 0,     -- readings the gateway declared dropped
    repeats      bigint not null default 0,     -- batches recognised as already committed
    updated_at   timestamptz not null default now(),
    primary key (gateway_id, epoch, lane)
);

-- Latency histograms: bucket i counts durations of about 1.05^i ms.
create table latency (
    gateway_id   text not null,
    kind         text not null,                 -- sensor_to_commit | sensor_to_alarm
    buckets      bigint[] not null,
    primary key (gateway_id, kind)
);

create table dead_letter (
    dead_letter_id bigint generated always as identity primary key,
    received_at  timestamptz not null default now(),
    topic        text not null,
    gateway_id   text,
    epoch        bigint,
    lane         text,
    seq          bigint,
    reason       text not null,
    detail       text not null default '',
    size_bytes   integer not null,
    payload      bytea not null                 -- at most the first 64 KiB
);

create table event (
    event_id     text primary key,
    gateway_id   text,
    ts           timestamptz not null,          -- time of the fact
    seen_at      timestamptz not null,          -- gateway's clock at raising
    received_at  timestamptz not null default now(),
    type         text not null,
    level        text not null,
    state        text not null default '',      -- '' | raise | update | clear
    key          text not null default '',
    scenario     text not null default '',
    device_id    text not null,
    point        text not null default '',
    "values"     jsonb not null default '{}',
    quality      text not null default 'good',
    lon          double precision,
    lat          double precision,
    h3_9         text,
    evidence     jsonb not null default '[]',   -- [{sha256, kind, masked, mime}]
    drill        boolean not null default false
);
create index event_ts on event (ts desc, event_id);
create index event_device on event (device_id, ts desc);

create table alarm (
    alarm_id     text primary key,              -- derives from (scenario, key, onset): a replay raises nothing twice
    key          text not null,
    scenario     text not null,
    type         text not null,                 -- event type that raised it
    gateway_id   text,
    device_id    text not null,
    point        text not null default '',
    level        text not null,
    peak_level   text not null,
    state        text not null,                 -- raised | acknowledged | cleared
    onset_at     timestamptz not null,          -- time of the fact that raised it
    raised_at    timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    acked_at     timestamptz,
    acked_by     text,
    cleared_at   timestamptz,
    repeats      integer not null default 0,    -- raises folded into this one
    "values"     jsonb not null default '{}',
    evidence     jsonb not null default '[]',
    lon          double precision,
    lat          double precision,
    h3_9         text,
    drill        boolean not null default false
);
create unique index alarm_open_key on alarm (scenario, key) where state <> 'cleared';
create index alarm_queue on alarm (state, raised_at desc);

create table case_file (
    case_id      bigint generated always as identity primary key,
    number       text not null unique,          -- HF-<type>-<yyyymmdd>-<5 digits>
    type         text not null,
    flow         text not null,                 -- event | emergency
    scenario     text not null,
    level        text not null,
    state        text not null,                 -- see cloud/cases/flows.py
    title_zh     text not null,
    title_en     text not null,
    department   text not null,
    support      text[] not null default '{}',
    device_id    text not null,
    lon          double precision,
    lat          double precision,
    opened_at    timestamptz not null,
    accept_due   timestamptz not null,
    onsite_due   timestamptz not null,
    close_due    timestamptz not null,
    accepted_at  timestamptz,
    onsite_at    timestamptz,
    closed_at    timestamptz,
    workflow     jsonb not null default '{}',   -- serialised BPMN instance
    version      integer not null default 1     -- optimistic lock
);
create index case_state on case_file (state, close_due);

create table case_alarm (
    case_id      bigint not null references case_file,
    alarm_id     text not null references alarm,
    primary key (case_id, alarm_id)
);

create table case_transition (
    transition_id bigint generated always as identity primary key,
    case_id      bigint not null references case_file,
    at           timestamptz not null default now(),
    who          text not null,                 -- operator name, or rule:<scenario>
    action       text not null,
    from_state   text not null,
    to_state     text not null,
    reason       text not null default ''
);
create index case_transition_case on case_transition (case_id, transition_id);

create table evidence (
    sha256       text primary key,
    mime         text not null,
    kind         text not null,
    masked       boolean not null,
    size_bytes   integer not null,
    device_id    text not null,
    ts           timestamptz not null,
    content      bytea,                         -- null until all chunks are there and the hash is right
    received_at  timestamptz not null default now()
);
create table evidence_chunk (
    sha256       text not null,
    offset_bytes integer not null,
    content      bytea not null,
    primary key (sha256, offset_bytes)
);

create table operator (
    name         text primary key,
    password_hash text not null,                -- argon2id
    role         text not null check (role in ('admin', 'operator', 'viewer')),
    language     text not null default 'zh-CN',
    must_change  boolean not null default true,
    failed       integer not null default 0,
    locked_until timestamptz,
    created_at   timestamptz not null default now()
);

-- Scenario engine state of the cloud side, one row a shard.
create table engine_state (
    shard        smallint primary key,
    snapshot     bytea not null,
    at           timestamptz not null default now()
);

create table setting (
    name         text primary key,
    value        jsonb not null
);
