-- Rows that a gateway was told are committed and that this database does not hold: it came back from a backup (or
-- something worse has happened). Only the gateway knows how far the old core had come; it says so in its account.
create table lane_forgotten (
    gateway_id   text not null,
    epoch        bigint not null,
    lane         text not null,
    acked        bigint not null,               -- a core had acknowledged up to here; beyond lane_cursor.seq it is lost
    restore_id   bigint references restore_point,  -- the restore that explains it; null: none does
    heard_at     timestamptz not null default now(),
    primary key (gateway_id, epoch, lane)
);

-- Where the last restore left the lane. A lane that has moved on since had lost nothing by it.
alter table lane_cursor add column restored_seq bigint;

-- What accounts have already said. Of restores before this table nobody noted where they left the lanes.
insert into lane_forgotten (gateway_id, epoch, lane, acked, restore_id)
select a.gateway_id, a.epoch, a.lane, a.acked, (select max(restore_id) from restore_point)
  from lane_account a left join lane_cursor c using (gateway_id, epoch, lane)
 where a.acked > coalesce(c.seq, 0);
