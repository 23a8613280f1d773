-- Rollouts: a change of the twin document "update", brought to many gateways in waves.
create table rollout (
    rollout_id   bigint generated always as identity primary key,
    title        text not null,
    change       jsonb not null,                -- laid over each gateway's document, see protocols/updates/document.py
    plan         jsonb not null,                -- waves, thresholds, concurrency: cloud/updates/waves.py
    state        text not null check (state in ('running', 'paused', 'stopped', 'aborted', 'done')),
    reason       text not null default '',      -- why it is in that state
    wave         integer not null default 0,    -- the one under way, from 0
    wave_at      timestamptz not null,          -- when it began
    created_by   text not null,
    created_at   timestamptz not null,
    ended_at     timestamptz
);
create index rollout_open on rollout (rollout_id) where state in ('running', 'paused', 'stopped');

create table rollout_gateway (
    rollout_id   bigint not null references rollout,
    gateway_id   text not null references gateway,
    wave         integer not null,
    state        text not null default 'pending',
    version      bigint not null default 0,     -- of the document this rollout wanted; 0: none yet
    before       jsonb,                         -- the document that was wanted before; null: there was none
    detail       text not null default '',
    offered_at   timestamptz,
    forgiven     boolean not null default false, -- an error that whoever resumed has looked at
    ended_at     timestamptz,
    primary key (rollout_id, gateway_id)
);
