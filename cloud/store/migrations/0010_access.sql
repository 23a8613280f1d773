-- Who may do what, and where. A place is a department and a district; '*' in a grant stands for any, '' in a thing for
-- none. Roles and what each may do are data (cloud/auth/rules.py asks them through Casbin).
alter table gateway add column district text not null default '', add column department text not null default '';
alter table device add column district text not null default '', add column department text not null default '';

create table access_role (
    role          text primary key,
    zh            text not null,
    en            text not null,
    second_factor boolean not null default false   -- those who hold it log in with a second factor
);
insert into access_role (role, zh, en) values
    ('admin', '管理员', 'Administrator'), ('auditor', '审计员', 'Auditor'), ('dispatcher', '调度员', 'Dispatcher'),
    ('clerk', '部门经办人', 'Department clerk'), ('operator', '值班员', 'Operator'), ('viewer', '查看', 'Viewer'),
    ('installer', '安装人员', 'Installer'), ('service', '系统账号', 'Service account');

create table access_rule (
    role          text not null references access_role on delete cascade,
    action        text not null,                   -- cloud/auth/policy.py; '*': every action
    primary key (role, action)
);
insert into access_rule (role, action) values
    ('admin', '*'),
    ('auditor', 'view'), ('auditor', 'twin.read'), ('auditor', 'ledger.read'), ('auditor', 'audit.read'),
    ('auditor', 'token.manage'),
    ('dispatcher', 'view'), ('dispatcher', 'alarm.acknowledge'), ('dispatcher', 'case.act'),
    ('dispatcher', 'evidence.open'), ('dispatcher', 'command.send'), ('dispatcher', 'command.approve'),
    ('dispatcher', 'twin.read'), ('dispatcher', 'ledger.read'), ('dispatcher', 'token.manage'),
    ('clerk', 'view'), ('clerk', 'case.act'), ('clerk', 'evidence.open'), ('clerk', 'token.manage'),
    ('operator', 'view'), ('operator', 'alarm.acknowledge'), ('operator', 'case.act'), ('operator', 'evidence.open'),
    ('operator', 'command.send'), ('operator', 'command.approve'), ('operator', 'diagnostics.pull'),
    ('operator', 'twin.read'), ('operator', 'ledger.read'), ('operator', 'token.manage'),
    ('viewer', 'view'), ('viewer', 'twin.read'), ('viewer', 'ledger.read'), ('viewer', 'token.manage'),
    ('installer', 'view'), ('installer', 'twin.read'), ('installer', 'twin.write'), ('installer', 'gateway.enrol'),
    ('installer', 'device.accept'), ('installer', 'diagnostics.pull'), ('installer', 'ledger.read'),
    ('installer', 'token.manage'),
    ('service', 'view'), ('service', 'twin.read'), ('service', 'ledger.read');

-- Counts up with every change of roles and rules, so that each process sees at once that its copy is old.
create table access_version (one boolean primary key default true check (one), version bigint not null default 1);
insert into access_version default values;
create function access_changed() returns trigger language plpgsql as $$
begin
    update access_version set version = version + 1;
    return null;
end $$;
create trigger access_role_changed after insert or update or delete on access_role
    for each statement execute function access_changed();
create trigger access_rule_changed after insert or update or delete on access_rule
    for each statement execute function access_changed();

alter table operator drop constraint operator_role_check;
alter table operator
    add constraint operator_role_known foreign key (role) references access_role,
    add column department text not null default '*',
    add column district text not null default '*',
    add column disabled boolean not null default false,
    add column issuer text,                        -- of the OpenID provider this account logs in with
    add column subject text,                       -- and its name there
    add column totp_secret bytea,                  -- sealed with the core's key; null: no second factor
    add column totp_step bigint not null default 0, -- time step of the last code taken: none is taken twice
    add constraint operator_subject unique (issuer, subject);

-- What somebody may do beside the role in the operator's own row.
create table operator_grant (
    name          text not null references operator on delete cascade,
    role          text not null references access_role,
    department    text not null default '*',
    district      text not null default '*',
    primary key (name, role, department, district)
);

create table operator_recovery (
    name          text not null references operator on delete cascade,
    code_hash     bytea not null,
    used_at       timestamptz,
    primary key (name, code_hash)
);

create table operator_session (
    session_id    text primary key,
    name          text not null references operator on delete cascade,
    factor        text not null,                   -- password | totp | recovery | sso
    address       text not null,
    agent         text not null default '',
    created_at    timestamptz not null default now(),
    seen_at       timestamptz not null default now(),
    expires_at    timestamptz not null,
    ended_at      timestamptz,
    ended_by      text
);
create index operator_session_name on operator_session (name, expires_at desc);
create index operator_session_expires on operator_session (expires_at);

create table api_token (
    token_id      text primary key,
    name          text not null references operator on delete cascade,
    label         text not null,
    secret_hash   bytea not null,
    actions       text[] not null,
    created_by    text not null,
    created_at    timestamptz not null default now(),
    expires_at    timestamptz not null,
    used_at       timestamptz,
    revoked_at    timestamptz,
    revoked_by    text
);
create index api_token_name on api_token (name, created_at desc);

-- States of single sign-on that came back once; kept until they would have ended anyway.
create table sso_state (state_hash bytea primary key, expires_at timestamptz not null);

-- Where a thing belongs. A device that says nothing belongs where its gateway does; a case and an alarm belong to the
-- district of their device, an alarm and a device also to the departments that work on an open case there.
create index alarm_device on alarm (device_id);
create index alarm_evidence on alarm using gin (evidence jsonb_path_ops);
create index case_device on case_file (device_id);
create function district_of(device text, gateway text) returns text language sql stable as $$
    select coalesce(
        (select coalesce(nullif(d.district, ''), g.district) from device d join gateway g using (gateway_id)
          where d.device_id = device),
        (select g.district from gateway g where g.gateway_id = coalesce(gateway, device)), '')
$$;
create function departments_of(device text, gateway text) returns text[] language sql stable as $$
    select array(
        select coalesce(nullif(d.department, ''), g.department) from device d join gateway g using (gateway_id)
         where d.device_id = device
        union select g.department from gateway g
         where g.gateway_id = coalesce(gateway, device)
           and not exists (select 1 from device d where d.device_id = device)
        union select f.department from case_file f where f.device_id = device and f.closed_at is null
        union select unnest(f.support) from case_file f where f.device_id = device and f.closed_at is null)
$$;
create function departments_of_alarm(alarm text, device text, gateway text) returns text[] language sql stable as $$
    select departments_of(device, gateway) || array(
        select f.department from case_alarm x join case_file f using (case_id) where x.alarm_id = alarm
        union select unnest(f.support) from case_alarm x join case_file f using (case_id) where x.alarm_id = alarm)
$$;
-- Whether somebody whose grants are these pairs (department, district) reaches a thing that belongs there.
create function within_grants(held_departments text[], held_districts text[], departments text[], district text)
returns boolean language sql immutable as $$
    select exists (
        select 1 from unnest(held_departments, held_districts) as held(department, area)
         where (held.department = '*' or held.department = any(departments) and held.department <> '')
           and (held.area = '*' or held.area = $4 and held.area <> ''))
$$;

-- An operator as a request needs him (cloud/auth/people.py reads the columns in this order).
create view operator_known as
    select o.name, o.role, o.language, o.must_change, o.department, o.district, o.disabled,
           o.totp_secret is not null as second_factor, o.issuer is not null as sso,
           coalesce((select jsonb_agg(jsonb_build_array(g.role, g.department, g.district) order by g.role, g.department,
                                      g.district) from operator_grant g where g.name = o.name), '[]') as more,
           o.password_hash
      from operator o;
