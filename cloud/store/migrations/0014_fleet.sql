-- Tags and groups: how somebody who looks after a thousand gateways names a hundred of them.
create table gateway_tag (
    gateway_id   text not null references gateway on delete cascade,
    tag          text not null,
    primary key (gateway_id, tag)
);
create index gateway_tag_tag on gateway_tag (tag);
create table device_tag (
    device_id    text not null references device on delete cascade,
    tag          text not null,
    primary key (device_id, tag)
);
create index device_tag_tag on device_tag (tag);

-- A group is a question, not a list: what fits it tomorrow belongs to it tomorrow.
create table fleet_group (
    name         text primary key,
    kind         text not null check (kind in ('gateways', 'devices')),
    query        text not null,
    author       text not null,
    at           timestamptz not null default now()
);

-- "0.10.2+source" as {0,10,2}: versions compare by their numbers. Null where there are none.
create function version_key(version text) returns int[] language sql immutable parallel safe as $$
    select array(select left(part, 9)::int from unnest(string_to_array(substring(version from '^v?([0-9]+(\.[0-9]+)*)'), '.'))
                 as part) where version ~ '^v?[0-9]'
$$;
