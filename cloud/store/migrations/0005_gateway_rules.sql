-- Rules run per gateway: a gateway's data may lag behind (its outbox drains after a night offline) without its
-- neighbours in the shard waiting for it, and without its devices being called silent.
drop table engine_state;
create table gateway_rules (
    gateway_id   text primary key references gateway,
    snapshot     bytea not null,
    at           timestamptz not null default now()
);
