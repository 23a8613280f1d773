"""Orders to an HJ 212 station: request, 9011 (will it?), data if any, 9012 (did it?), and the read-back where there is
one.

A command of a device type says in its ``key`` how it is asked for: the CN and its parameters, ``{argument}`` where an
argument of the order goes in, ``now`` for the gateway's time:

    key = "1062 RtdInterval={seconds}"        key = "2061 BeginTime={begin} EndTime={end}"

Arguments for parameters that end in ``Time`` are local times as people write them: ``2026-03-02T08:00``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from edge.connectors.base import Outcome
from protocols.devices import CommandType
from protocols.hj212.messages import CHINA, Packet, format_time, parse_time
from protocols.hj212.names import COMMANDS, EXE_RETURNS, QN_RETURNS

#: HJ 212-2017, annex B: 10 s for an answer, three repeats.
ANSWER_S = 10.0
REPEATS = 3
#: From 9011 to 9012; data that come meanwhile begin it anew.
RESULT_S = 30.0
#: An order that waits for data takes at most this many packets.
MAX_DATA = 4_096
#: What a setting is read back with: request, parameter.
READ_BACK = {"1062": ("1061", "RtdInterval"), "1064": ("1063", "MinInterval"), "1012": ("1011", "SystemTime")}
#: Serial numbers and site information: told to whoever asked, not kept as readings.
ABOUT_ITSELF = frozenset({"3019", "3020"})
#: A clock that was set may differ by so much when it is read.
CLOCK_SLACK_MS = 5_000

_SLOT = re.compile(r"\{(\w+)\}")


class BadArgument(ValueError):
    """An argument that cannot be said to the station."""


@dataclass
class Exchange:
    """One request under way, known by its QN."""

    qn: str
    cn: str
    returned: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    result: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    data: list[Packet] = field(default_factory=list)
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, packet: Packet) -> None:
        """A packet of the station that carries our QN."""
        if packet.cn == "9011":
            _settle(self.returned, packet.fields.get("QnRtn", ""))
        elif packet.cn == "9012":
            # A station that skips 9011 has answered all the same.
            _settle(self.returned, "1")
            _settle(self.result, packet.fields.get("ExeRtn", ""))
        elif packet.cn == self.cn and len(self.data) < MAX_DATA:
            self.data.append(packet)
        self.progress.set()


def _settle(future: asyncio.Future[str], value: str) -> None:
    if not future.done():
        future.set_result(value)


def request_of(
    what: CommandType, arguments: Mapping[str, float | int | str | bool], now_ms: int
) -> tuple[str, dict[str, str]]:
    """CN and parameters of an order. Raises BadArgument."""
    cn, *parts = what.key.split()
    fields: dict[str, str] = {}
    for part in parts:
        name, _, template = part.partition("=")
        if template == "now":
            fields[name] = format_time(now_ms)
            continue

        def said(match: re.Match[str], name: str = name) -> str:
            return _said(name, arguments[match[1]])

        fields[name] = _SLOT.sub(said, template)
    return cn, fields


def _said(name: str, value: float | int | str | bool) -> str:
    if name.endswith("Time") and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise BadArgument(f"{value!r} is no time; write 2026-03-02T08:00") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=CHINA)
        return format_time(round(moment.timestamp()) * 1000)
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def refused(qn_rtn: str) -> Outcome | None:
    """What 9011 says, None if the station will do it."""
    if qn_rtn == "1":
        return None
    code, zh, en = QN_RETURNS.get(qn_rtn, ("refused", "", f"QnRtn {qn_rtn!r}"))
    return Outcome("refused", code, f"{zh} / {en}" if zh else en)


def finished(exchange: Exchange) -> Outcome:
    """What 9012 says, with what the station told in between."""
    said = exchange.result.result()
    shown = told(exchange)
    if said == "1":
        return Outcome("done", "", COMMANDS[exchange.cn].en if exchange.cn in COMMANDS else "", shown)
    code, zh, en = EXE_RETURNS.get(said, ("failed", "", f"ExeRtn {said!r}"))
    return Outcome(
        "refused" if code in ("no_data", "condition", "busy") else "failed", code, f"{zh} / {en}".strip(" /"), shown
    )


def told(exchange: Exchange) -> dict[str, float | str]:
    """Parameters of the station's data, what it says of instruments; of measured data how many packets came."""
    shown: dict[str, float | str] = {}
    for packet in exchange.data:
        if packet.cn in ABOUT_ITSELF:
            shown |= {
                f"{code}-{name}": value.strip("/")[:200]
                for code, parts in packet.factors.items()
                for name, value in parts.items()
                if len(shown) < 32
            }
        elif packet.factors:
            shown["packets"] = float(shown.get("packets", 0.0)) + 1.0
        else:
            shown |= {key: value for key, value in packet.fields.items() if len(shown) < 32}
    return shown


def shows(name: str, wanted: str, found: str) -> bool:
    """Whether a setting reads as it was set."""
    if name == "SystemTime":
        a, b = parse_time(wanted), parse_time(found)
        return a is not None and b is not None and abs(a - b) <= CLOCK_SLACK_MS
    return wanted == found
