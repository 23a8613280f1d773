-- Storage: what is kept for how long, and what is kept of it afterwards. cloud/store/keeping.py does it.

-- Days that readings of a class of devices are kept, as they came and rolled up; null: for ever, 0: never made.
-- The longest class that fits a device's type counts: '*', 'meter', 'meter/electricity_three_phase'.
create table retention_policy (
    device_class text primary key,
    raw_days     integer check (raw_days > 0),
    m1_days      integer check (m1_days >= 0),
    h1_days      integer check (h1_days >= 0),
    d1_days      integer check (d1_days >= 0)
);
insert into retention_policy values ('*', 90, 0, 1100, null);

-- The same for everything else. What belongs to an open alarm or an open case always stays.
create table retention_other (
    what         text primary key check (what in ('dead_letter', 'event', 'alarm', 'case', 'evidence')),
    days         integer check (days > 0)       -- null: for ever
);
insert into retention_other values ('dead_letter', 30), ('event', 400), ('alarm', 1100), ('case', null),
    ('evidence', 180);

create function policy_of(type text) returns retention_policy language sql stable as $$
    select p from retention_policy p
     where p.device_class = '*' or type = p.device_class or type like p.device_class || '/%'
     order by p.device_class <> '*' desc, length(p.device_class) desc limit 1
$$;

-- Readings of a minute, an hour, a day (of +08:00, the city's own). Bad and missing ones are counted and left out of the
-- figures; the mean is total / n_value.
create table rollup_1m (
    series_id    integer not null,
    ts           timestamptz not null,          -- when it begins
    n            integer not null,
    n_value      integer not null,
    n_good       integer not null,
    n_suspect    integer not null,
    n_bad        integer not null,
    n_missing    integer not null,
    low          double precision,
    low_at       timestamptz,
    high         double precision,
    high_at      timestamptz,
    total        double precision,
    first        double precision,
    first_at     timestamptz,
    last         double precision,
    last_at      timestamptz,
    primary key (series_id, ts)
);
create table rollup_1h (like rollup_1m including all);
create table rollup_1d (like rollup_1m including all);
create index rollup_1m_ts on rollup_1m using brin (ts);
create index rollup_1h_ts on rollup_1h using brin (ts);

-- Rollups are made of all readings up to here, by hours. What comes later for an hour before `mark` is late: ingest says so
-- in rollup_dirty, and the hour is made anew.
create table rollup_state (
    one          boolean primary key default true check (one),
    mark         timestamptz not null,          -- ingest calls late what is before it
    horizon      xid8,                          -- transactions below it may not have known the mark
    done_1m      timestamptz not null,
    done         timestamptz not null,
    done_day     timestamptz not null
);
insert into rollup_state (mark, done_1m, done, done_day)
    select h, h, h, date_bin('1 day', h, timestamptz '2000-01-01 00:00+08') from date_trunc('hour', now()) h;

-- Only ever added to by ingest, so that it never waits: the same hour may stand here many times.
create table rollup_dirty (
    series_id    integer not null,
    hour         timestamptz not null
);

-- Where retention of a class stands, so that what is empty is not searched again.
create table retention_done (
    device_class text primary key,
    raw_until    timestamptz not null
);

-- Rows come roughly by time: a few bytes a page find an hour of all series.
create index reading_ts on reading using brin (ts);

-- When the database came back from a backup, and what it does not know since: read by the ledger.
create table restore_point (
    restore_id   bigint generated always as identity primary key,
    taken_at     timestamptz not null,          -- the backup's snapshot
    restored_at  timestamptz not null default now(),
    source       text not null default ''
);
