"""Orders from asking to outcome. A state says only what is known; nothing is called delivered that is not.

```
 asked ─▶ waiting ──second person──▶ queued ──handed to the broker──▶ sent ──gateway has it──▶ received ─▶ done
            │ (dangerous ones)         │                               │                                  refused
            └─▶ refused                └─▶ expired (never sent)        └─▶ unknown (no word)              failed
                                                                                                          expired
```
``queued`` lasts as long as the gateway is offline. A gateway's own word always replaces what the core had to presume
(``expired`` with code ``not_sent``, ``unknown`` with code ``no_word``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from cloud.audit import Entry, record
from cloud.notify import notify
from cloud.nul import has_nul
from cloud.query.sight import EVERYTHING, Sight
from protocols.core.errors import CityBrainError, ConfigError
from protocols.core.ids import uuid7
from protocols.devices import load as load_type
from protocols.devices.arguments import check_arguments
from protocols.uplink.batch import CommandOutcome

SHORTEST_LIFE_S, LONGEST_LIFE_S = 5, 7 * 86_400
DEFAULT_LIFE_S = 60
MOST_OPEN = 1000  # orders of one gateway that have not ended
_MAX_ARGUMENTS_BYTES = 16_384
#: How long after its time the core waits for a gateway's word before it says that there is none.
_NO_WORD_AFTER_S = 86_400
#: Commands of the gateway itself; the agent checks their arguments. None of them moves anything on the street.
GATEWAY_COMMANDS = ("doctor", "log_pull")


class CommandError(CityBrainError):
    code = "command"


class CommandNotFound(CommandError):
    code = "command.not_found"


class CommandRefused(CommandError):
    """Not accepted. ``reason``: unknown_device, unknown_command, argument, life, too_many, key, state or
    second_person."""

    code = "command.refused"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CommandRow:
    command_id: str
    gateway_id: str
    device_id: str
    name: str
    arguments: Mapping[str, Any]
    state: str
    code: str
    detail: str
    read_back: Mapping[str, Any]
    requested_by: str
    approved_by: str | None
    dangerous: bool
    created_at: datetime
    expires_at: datetime
    sent_at: datetime | None
    received_at: datetime | None
    ended_at: datetime | None


_COLUMNS = (
    "command_id, gateway_id, device_id, name, arguments, state, code, detail, read_back, requested_by, approved_by,"
    " dangerous, created_at, expires_at, sent_at, received_at, ended_at"
)


def request(
    conn: Connection[Any],
    device_id: str,
    name: str,
    arguments: Mapping[str, Any],
    who: str,
    *,
    now_ms: int,
    life_s: int = DEFAULT_LIFE_S,
    idempotency_key: str | None = None,
) -> CommandRow:
    """Ask for one. The same key of the same person gives the order that it gave before, whatever became of it.

    Raises CommandRefused. In the caller's transaction."""
    if has_nul([device_id, name, dict(arguments), idempotency_key]):
        raise CommandRefused("argument", "a NUL character is in it")
    if idempotency_key is not None:
        if not 0 < len(idempotency_key) <= 128:
            raise CommandRefused("key", "an idempotency key has 1 to 128 characters")
        conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"command {who} {idempotency_key}",))
        row = conn.execute(
            f"select {_COLUMNS} from command where requested_by = %s and idempotency_key = %s",  # noqa: S608 - our names
            (who, idempotency_key),
        ).fetchone()
        if row is not None:
            known = CommandRow(*row)
            if (known.device_id, known.name, dict(known.arguments)) != (device_id, name, dict(arguments)):
                raise CommandRefused("key", "this key was used for another order")
            return known
    if not SHORTEST_LIFE_S <= life_s <= LONGEST_LIFE_S:
        raise CommandRefused("life", f"an order lives {SHORTEST_LIFE_S} s to {LONGEST_LIFE_S // 86_400} days")
    gateway_id, dangerous = _check(conn, device_id, name, arguments)
    command_id = uuid7(now_ms)
    state = "waiting" if dangerous else "queued"
    conn.execute(
        "insert into command (command_id, gateway_id, device_id, name, arguments, state, requested_by, idempotency_key,"
        " dangerous, created_at, expires_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s,"
        " to_timestamp(%s / 1000.0), to_timestamp(%s / 1000.0))",
        (
            command_id, gateway_id, device_id, name, Jsonb(dict(arguments)), state, who, idempotency_key, dangerous,
            now_ms, now_ms + life_s * 1000,
        ),
    )  # fmt: skip
    record(conn, Entry(who, "command.request", f"device/{device_id}", {"id": command_id, "name": name, **arguments}))
    notify(conn, "device", device_id)
    return get(conn, command_id)


def _check(conn: Connection[Any], device_id: str, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
    """(gateway, whether a second person must agree). Raises CommandRefused."""
    if len(json.dumps(dict(arguments)).encode()) > _MAX_ARGUMENTS_BYTES:
        raise CommandRefused("argument", f"arguments longer than {_MAX_ARGUMENTS_BYTES} bytes")
    row = conn.execute("select gateway_id, device_type from device where device_id = %s", (device_id,)).fetchone()
    if row is None:
        found = conn.execute("select gateway_id from gateway where gateway_id = %s", (device_id,)).fetchone()
        if found is None:
            raise CommandRefused("unknown_device", f"no device and no gateway {device_id!r}")
        if name not in GATEWAY_COMMANDS:
            raise CommandRefused("unknown_command", f"a gateway takes {', '.join(GATEWAY_COMMANDS)}")
        gateway_id, dangerous = str(found[0]), False
    else:
        gateway_id = str(row[0])
        try:
            kind = load_type(row[1]).command(name)
        except ConfigError as error:
            raise CommandRefused("unknown_command", f"{device_id} is of no type that takes commands") from error
        if kind is None:
            raise CommandRefused("unknown_command", f"{row[1]} has no command {name!r}")
        if wrong := check_arguments(kind, arguments):
            raise CommandRefused("argument", wrong)
        dangerous = kind.street
    count = conn.execute(
        "select count(*) from command where gateway_id = %s and ended_at is null", (gateway_id,)
    ).fetchone()
    if count is not None and count[0] >= MOST_OPEN:
        raise CommandRefused("too_many", f"{count[0]} orders of this gateway have not ended; at most {MOST_OPEN}")
    return gateway_id, dangerous


def approve(conn: Connection[Any], command_id: str, who: str, *, now_ms: int) -> CommandRow:
    """The second person agrees. Raises CommandNotFound, CommandRefused."""
    known = _locked(conn, command_id)
    if known.state != "waiting":
        raise CommandRefused("state", f"it is {known.state}, nobody waits for consent")
    if known.requested_by == who:
        raise CommandRefused("second_person", "a dangerous order needs another person than the one who asked for it")
    if known.expires_at.timestamp() * 1000 <= now_ms:
        raise CommandRefused("state", "its time is over")
    conn.execute("update command set state = 'queued', approved_by = %s where command_id = %s", (who, command_id))
    record(conn, Entry(who, "command.approve", f"device/{known.device_id}", {"id": command_id, "name": known.name}))
    notify(conn, "device", known.device_id)
    return get(conn, command_id)


def withdraw(conn: Connection[Any], command_id: str, who: str, *, reason: str = "") -> CommandRow:
    """Refuse consent, or take back what has not left. Raises CommandNotFound, CommandRefused."""
    known = _locked(conn, command_id)
    done = conn.execute(
        "update command set state = 'refused', code = 'withdrawn', detail = %s, ended_at = now(), approved_by = null"
        " where command_id = %s and ended_at is null and tried_at is null",
        (f"{who}: {reason}"[:500], command_id),
    )
    if not done.rowcount:
        raise CommandRefused("state", f"it is {known.state} and may have been carried out")
    record(conn, Entry(who, "command.withdraw", f"device/{known.device_id}", {"id": command_id, "reason": reason}))
    notify(conn, "device", known.device_id)
    return get(conn, command_id)


def heard(conn: Connection[Any], gateway_id: str, outcome: CommandOutcome) -> None:
    """The gateway says what became of an order. Repeats and news about ended orders change nothing."""
    ended = outcome.state != "received"
    code, detail = outcome.code[:64].replace("\x00", ""), outcome.detail[:500].replace("\x00", "")
    row = conn.execute(
        "update command set state = %s, code = %s, detail = %s, read_back = %s,"
        " received_at = coalesce(received_at, now()), ended_at = case when %s then now() end"
        " where command_id = %s and gateway_id = %s and state <> %s"
        " and (ended_at is null or code in ('not_sent', 'no_word')) returning device_id, name",
        (outcome.state, code, detail, Jsonb(dict(outcome.read_back)), ended, outcome.id, gateway_id, outcome.state),
    ).fetchone()
    if row is None:
        return
    notify(conn, "device", row[0])
    if ended:
        detail_of = {"id": outcome.id, "name": row[1], "code": code}
        record(conn, Entry(f"gateway:{gateway_id}", f"command.{outcome.state}", f"device/{row[0]}", detail_of))


def expire(conn: Connection[Any], now_ms: int) -> int:
    """End what nobody will carry out any more; what may have been carried out is never called expired."""
    ended = conn.execute(
        "update command set state = 'expired', code = 'not_sent', ended_at = now()"
        " where ended_at is null and tried_at is null and expires_at <= to_timestamp(%s / 1000.0)"
        " returning command_id, device_id, name, state",
        (now_ms,),
    ).fetchall()
    ended += conn.execute(
        "update command set state = 'unknown', code = 'no_word', ended_at = now()"
        " where ended_at is null and tried_at is not null"
        " and expires_at + make_interval(secs => %s) <= to_timestamp(%s / 1000.0)"
        " returning command_id, device_id, name, state",
        (_NO_WORD_AFTER_S, now_ms),
    ).fetchall()
    for command_id, device_id, name, state in ended:
        record(conn, Entry("system", f"command.{state}", f"device/{device_id}", {"id": command_id, "name": name}))
        notify(conn, "device", device_id)
    return len(ended)


def get(conn: Connection[Any], command_id: str) -> CommandRow:
    """Raises CommandNotFound."""
    row = conn.execute(
        f"select {_COLUMNS} from command where command_id = %s",  # noqa: S608 - our names
        (command_id,),
    ).fetchone()
    if row is None:
        raise CommandNotFound(f"no order {command_id[:128]!r}")
    return CommandRow(*row)


def _locked(conn: Connection[Any], command_id: str) -> CommandRow:
    conn.execute("select 1 from command where command_id = %s for update", (command_id,))
    return get(conn, command_id)


def recent(
    conn: Connection[Any],
    *,
    device_id: str = "",
    gateway_id: str = "",
    open_only: bool = False,
    limit: int = 100,
    sight: Sight = EVERYTHING,
) -> list[CommandRow]:
    """Newest first."""
    if has_nul([device_id, gateway_id]):
        return []
    query = (
        f"select {_COLUMNS} from command where (%(device)s = '' or device_id = %(device)s)"  # noqa: S608 - our names
        " and (%(gateway)s = '' or gateway_id = %(gateway)s) and (not %(open)s or ended_at is null)"
        f" and {sight.where('device', 'command')} order by created_at desc limit %(limit)s"
    )
    values = {"device": device_id, "gateway": gateway_id, "open": open_only, "limit": limit}
    return [CommandRow(*row) for row in conn.execute(query.encode(), values | sight.params)]
