-- The ledger: what gateways say they have produced, beside what was committed (lane_cursor), and why the rest is not
-- there. Everything here is bounded: by gateways, epochs, lanes, reasons and, for ranges, by merging.

-- One life of an outbox, and how it came to follow the one before.
create table outbox_epoch (
    gateway_id   text not null,
    epoch        bigint not null,
    previous_epoch bigint not null default 0,   -- 0: none known
    reason       text not null default '',      -- new | damaged | restored | core_forgot; '': not said
    heard_at     timestamptz not null default now(),
    accounted_at timestamptz,                   -- gateway's clock at its last account of this epoch
    account_heard_at timestamptz,
    primary key (gateway_id, epoch)
);

-- The newest account of each lane, by the gateway's own book.
create table lane_account (
    gateway_id   text not null,
    epoch        bigint not null,
    lane         text not null,
    seq          bigint not null,               -- last row written
    acked        bigint not null,
    readings     bigint not null,               -- ever put into the lane in this epoch, thinned ones included
    events       bigint not null,
    digest       bigint not null,
    thinned      bigint not null,
    oldest_at    timestamptz,                   -- when the oldest waiting row was made; null: nothing waits
    waiting_bytes bigint not null,
    checked_seq  bigint not null default 0,     -- the row at which both books were last compared
    checked_at   timestamptz,
    content      text not null default '',      -- equal | differs | not_comparable; '': not compared yet
    primary key (gateway_id, epoch, lane)
);

-- What never became a row, as the gateway counts it.
create table dropped_account (
    gateway_id   text not null,
    epoch        bigint not null,
    reason       text not null,                 -- memory_full | disk_refused | unknown_device ...
    readings     bigint not null,
    events       bigint not null,
    changed_at   timestamptz not null default now(),
    primary key (gateway_id, epoch, reason)
);

-- Where something is missing or in doubt, and why: neighbouring rows are one range.
create table ledger_gap (
    gap_id       bigint generated always as identity primary key,
    gateway_id   text not null,
    epoch        bigint not null,
    lane         text not null,
    kind         text not null,                 -- thinned | rejected | clock_unknown
    reason       text not null,
    series_id    integer not null default 0,    -- 0: the lane as a whole
    first_seq    bigint not null,
    last_seq     bigint not null,
    row_count    bigint not null,               -- rows of the range that are concerned
    readings     bigint not null,
    first_at     timestamptz,                   -- times of the readings, where they are known
    last_at      timestamptz,
    told_at      timestamptz not null default now()
);
create index ledger_gap_place on ledger_gap (gateway_id, epoch, lane, kind, reason, series_id, last_seq desc);

-- All that was set aside, counted; `dead_letter` keeps the first ones of each kind.
create table dead_letter_tally (
    gateway_id   text not null,                 -- '': nobody we know
    reason       text not null,
    letters      bigint not null,
    kept         bigint not null,
    kept_bytes   bigint not null,
    last_kept    boolean not null,
    first_at     timestamptz not null default now(),
    last_at      timestamptz not null default now(),
    primary key (gateway_id, reason)
);

alter table lane_cursor
    add column thinned_digest bigint not null default 0,  -- of the readings the stones stand for
    add column unproven bigint not null default 0;        -- rows whose content cannot be compared: set aside, no digest

-- Ingest workers, for fair shares. A worker is alive while its session holds the lock (cloud/ingest/members.py).
create table ingest_worker (
    worker_id    text primary key,
    number       integer not null unique,
    host         text not null,
    process      integer not null,
    allowed      smallint[] not null,
    beats        bigint not null default 0,
    started_at   timestamptz not null default now(),
    seen_at      timestamptz not null default now()
);
