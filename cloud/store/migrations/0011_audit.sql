-- What was done by whom. Rows are only ever added.
create table audit_entry (
    entry_id     bigint generated always as identity primary key,
    at           timestamptz not null default now(),
    who          text not null,
    action       text not null,
    what         text not null,
    detail       jsonb not null default '{}'
);
