-- What was done by whom, as a Merkle tree after RFC 6962: rows are only ever added. cloud/audit/README.md says what that
-- proves and what it does not.
create table audit_entry (
    entry_id     bigint generated always as identity primary key,
    at           timestamptz not null default now(),
    who          text not null,
    action       text not null,
    what         text not null,
    detail       json not null default '{}'     -- json, not jsonb: the leaf covers the bytes as they were written
);
create index audit_entry_at on audit_entry (at);
create index audit_entry_who on audit_entry (who, entry_id desc);
create index audit_entry_action on audit_entry (action, entry_id desc);

-- One row a sealed entry. Its own table, so that an entry is never written twice.
create table audit_leaf (
    leaf_index   bigint primary key,            -- 0, 1, 2 ... without gaps
    entry_id     bigint not null unique,
    hash         bytea not null
);
-- Roots of complete subtrees: node (level, position) covers leaves [position << level, (position + 1) << level).
create table audit_node (
    level        smallint not null check (level > 0),
    position     bigint not null,
    hash         bytea not null,
    primary key (level, position)
);
-- Signed tree heads, each naming the one before it.
create table audit_head (
    head_no      bigint primary key,            -- 1, 2, 3 ...
    size         bigint not null,
    at           timestamptz not null,
    note         text not null                  -- C2SP tlog-checkpoint, signed
);
create index audit_head_size on audit_head (size);
-- Up to which entry number everything has been sealed or its absence has been put on record.
create table audit_progress (
    one_row      boolean primary key default true check (one_row),
    settled_id   bigint not null
);
insert into audit_progress (settled_id) values (0);

create function audit_only_adds() returns trigger language plpgsql as $$
begin
    raise exception 'the audit log is only ever added to (% on %)', tg_op, tg_table_name using errcode = 'insufficient_privilege';
end
$$;
create trigger only_adds before update or delete or truncate on audit_entry
    for each statement execute function audit_only_adds();
create trigger only_adds before update or delete or truncate on audit_leaf
    for each statement execute function audit_only_adds();
create trigger only_adds before update or delete or truncate on audit_node
    for each statement execute function audit_only_adds();
create trigger only_adds before update or delete or truncate on audit_head
    for each statement execute function audit_only_adds();
