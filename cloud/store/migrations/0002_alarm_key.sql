-- The newest alarms of one key, cleared ones too: told from a replay and from chattering without reading the table.
create index alarm_key on alarm (scenario, key, onset_at desc);
