-- Open cases by place, and the cases of an alarm, without reading through years of closed ones.
create index case_open on case_file (device_id, type) where closed_at is null;
create index case_alarm_alarm on case_alarm (alarm_id);
