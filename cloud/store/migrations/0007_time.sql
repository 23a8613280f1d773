-- Time: rows stay as they came; what is known of the error of a gateway's clock is kept beside them and applied when
-- they are read.

alter table reading add column clock_run smallint not null default 0;  -- which run of the gateway's clock stamped it

-- Every correction as it was told. Rows are only ever added.
create table clock_correction (
    correction_id bigint generated always as identity primary key,
    gateway_id   text not null references gateway,
    run          smallint not null,
    from_at      timestamptz not null,          -- by the wrong clock, inclusive
    to_at        timestamptz not null,          -- by the wrong clock, exclusive
    offset_ms    bigint not null,               -- true time minus said time
    uncertainty_ms bigint not null,
    reason       text not null,                 -- boot | step | drift
    told_at      timestamptz not null default now()
);
create index clock_correction_gateway on clock_correction (gateway_id, correction_id);

-- What follows from them: later ones overrule earlier ones, so that the ranges of one run never overlap.
create table clock_truth (
    gateway_id   text not null references gateway,
    run          smallint not null,
    from_at      timestamptz not null,
    to_at        timestamptz not null,
    shift        interval not null,             -- to be added to the said time; never zero
    uncertainty_ms bigint not null,
    reason       text not null,
    primary key (gateway_id, run, from_at)
);

-- Readings of one series at their true times. A reading with a lag has its time from the device: it stays.
create function reading_true(of_series integer, since timestamptz, until timestamptz)
    returns table (ts timestamptz, value double precision, quality smallint, lag_ms integer, said_ts timestamptz,
                   uncertainty_ms bigint)
    language sql stable as $$
    with wrong as materialized (
        select c.* from clock_truth c join device d using (gateway_id) join series s using (device_id)
         where s.series_id = of_series
    )
    select r.ts, r.value, r.quality, r.lag_ms, r.ts, 0::bigint
      from reading r
     where r.series_id = of_series and r.ts >= since and r.ts < until
       and not exists (select from wrong w where w.run = r.clock_run and r.lag_ms = 0
                          and r.ts >= w.from_at and r.ts < w.to_at)
    union all
    select r.ts + w.shift, r.value, r.quality, r.lag_ms, r.ts, w.uncertainty_ms
      from wrong w
      join reading r on r.series_id = of_series and r.clock_run = w.run and r.lag_ms = 0
       and r.ts >= greatest(w.from_at, since - w.shift) and r.ts < least(w.to_at, until - w.shift)
$$;

-- The same for all series: what rollups are made from.
create function readings_true(since timestamptz, until timestamptz)
    returns table (series_id integer, ts timestamptz, value double precision, quality smallint)
    language sql stable as $$
    with wrong as materialized (
        select s.series_id, c.run, c.from_at, c.to_at, c.shift
          from clock_truth c join device d using (gateway_id) join series s using (device_id)
         where (c.from_at < until and c.to_at > since) or (c.from_at + c.shift < until and c.to_at + c.shift > since)
    )
    select r.series_id, r.ts, r.value, r.quality
      from reading r
     where r.ts >= since and r.ts < until
       and not exists (select from wrong w where w.series_id = r.series_id and w.run = r.clock_run and r.lag_ms = 0
                          and r.ts >= w.from_at and r.ts < w.to_at)
    union all
    select r.series_id, r.ts + w.shift, r.value, r.quality
      from wrong w
      join reading r on r.series_id = w.series_id and r.clock_run = w.run and r.lag_ms = 0
       and r.ts >= greatest(w.from_at, since - w.shift) and r.ts < least(w.to_at, until - w.shift)
$$;

-- The newest reading of a series by true time, not later than `until`.
create function last_true(of_series integer, until timestamptz)
    returns table (ts timestamptz, value double precision, quality smallint)
    language sql stable as $$
    with wrong as materialized (
        select c.* from clock_truth c join device d using (gateway_id) join series s using (device_id)
         where s.series_id = of_series
    ), candidates as (
        (select r.ts, r.value, r.quality
           from reading r
          where r.series_id = of_series and r.ts <= until
            and not exists (select from wrong w where w.run = r.clock_run and r.lag_ms = 0
                               and r.ts >= w.from_at and r.ts < w.to_at)
          order by r.ts desc limit 1)
        union all
        select n.ts + w.shift, n.value, n.quality
          from wrong w cross join lateral (
               select r.ts, r.value, r.quality from reading r
                where r.series_id = of_series and r.clock_run = w.run and r.lag_ms = 0
                  and r.ts >= w.from_at and r.ts < w.to_at and r.ts <= until - w.shift
                order by r.ts desc limit 1) n
    )
    select c.ts, c.value, c.quality from candidates c order by c.ts desc limit 1
$$;
