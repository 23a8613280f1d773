"""HJ 212: the agent listens, stations dial in and push.

9014 goes out only once the sweep is on disk (or was recognised as a repeat of one that is), so a station keeps what a
power cut took from us. Orders go down the same connection; what a station says of itself (restarts, serial numbers,
logs) becomes reports; period data that never came are asked for where that is configured.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.config import Hj212Device, Hj212ServerConfig
from edge.connectors.durable import after_all
from edge.connectors.gaps import Gaps, Hole
from edge.connectors.hj212_orders import (
    ABOUT_ITSELF,
    ANSWER_S,
    READ_BACK,
    REPEATS,
    RESULT_S,
    BadArgument,
    Exchange,
    finished,
    refused,
    request_of,
    shows,
    told,
)
from edge.connectors.hj212_values import FLAGS, Columns, columns, named
from edge.connectors.station_clock import OLDEST_MS, TOLERANCE_MS, StationClock, Verdict
from edge.connectors.station_server import Connection, Station, StationServer
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, LocalProtocolError
from protocols.core.model import Sweep
from protocols.devices import DeviceType, load
from protocols.hj212 import requests
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import (
    ANSWERS,
    Packet,
    data_answer,
    encode_data,
    format_qn,
    format_time,
    notice_answer,
    parse_time,
    set_clock,
)

log = logging.getLogger(__name__)

_NOTICES = ("2012", "2022", "1013", "9015")
#: How often holes in period data are looked at.
GAP_CHECK_S = 30.0
ASKED_AT_ONCE = 16
#: Instruments of one station whose serial number is remembered.
_MAX_SERIALS = 64


class _Station(Station):
    def __init__(self, config: Hj212Device) -> None:
        super().__init__(config.mn, config.id)
        self.config = config
        self.type: DeviceType = load(config.type)
        self.clock = StationClock()
        self.clock_sent_ms: int | None = None
        self.exchanges: dict[str, Exchange] = {}
        self.gaps = Gaps()
        self.serials: dict[str, str] = {}
        self.last: Packet | None = None  # its own ST, password and checksum rule are used when it is asked

    def exchange_of(self, packet: Packet) -> Exchange | None:
        if not packet.qn and packet.cn in ANSWERS and len(self.exchanges) == 1:
            return next(iter(self.exchanges.values()))  # stations of the 2005 kind answer without QN
        return self.exchanges.get(packet.qn)


class Hj212Server(StationServer[Packet, _Station]):
    """The connector of kind ``hj212-server``; takes orders (see ``hj212_orders``)."""

    def __init__(self, config: Hj212ServerConfig, clock: Clock, next_link: LinkFactory | None = None) -> None:
        super().__init__(
            config.id,
            clock,
            {device.mn: _Station(device) for device in config.device},
            listen=config.listen,
            silent_s=config.silent_s,
            next_link=next_link,
            max_connections=config.max_connections,
        )
        self._config = config
        self._rules = {device.mn: device.checksum for device in config.device}
        self._by_device = {station.device: station for station in self.stations.values()}
        self._sink: Sink | None = None

    def new_endpoint(self) -> Hj212Endpoint:
        return Hj212Endpoint(Role.MASTER, rules=self._rules)

    def station_key(self, message: Packet, connection: Connection) -> str:
        return message.mn

    def admit(self, connection: Connection, station: _Station, message: Packet, sink: Sink) -> bool:
        if not station.config.password or message.pw == station.config.password:
            return True
        sink.report("data.rejected", station.device, "password", "the password of the station is another one")
        return False

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        if not self._config.fill_gaps:
            await super().run(sink)
            return
        both = [asyncio.create_task(super().run(sink)), asyncio.create_task(self._fill_gaps(sink))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        for task in both:
            if not task.cancelled():
                task.result()  # raises what ended it

    # -- in

    def received(self, connection: Connection, station: _Station, message: Packet, sink: Sink) -> None:
        if not message.length_ok:
            sink.count("frames_recovered", reason="length")
        self._tell_rule(station, message, sink)
        station.last = message
        now_ms = self.clock.now_ms()
        exchange = station.exchange_of(message)
        if exchange is not None:
            exchange.take(message)
            if message.cn in ANSWERS or message.cn in ABOUT_ITSELF or not message.factors:
                return
        if self._config.set_clock and station.clock_sent_ms is None:
            self._send_clock(connection, station, message, sink, now_ms)
        if message.cn in ANSWERS:
            sink.count("answers_received", connector=self.id)
        elif message.cn in _NOTICES:
            if message.wants_answer:
                self.send(connection, notice_answer(message), sink)
            if message.cn == "1013":
                self._send_clock(connection, station, message, sink, now_ms)
        else:
            self._upload(connection, station, message, sink, now_ms)

    def _tell_rule(self, station: _Station, packet: Packet, sink: Sink) -> None:
        if packet.crc_variant != "hj212":
            sink.count("frames_other_checksum", variant=packet.crc_variant)
        if station.config.checksum == "auto" and (
            station.last is None or station.last.crc_variant != packet.crc_variant
        ):
            log.info("%s: %s makes its checksums by the rule %r", self.id, station.device, packet.crc_variant)

    def _upload(self, connection: Connection, station: _Station, packet: Packet, sink: Sink, now_ms: int) -> None:
        self._tell_itself(station, packet, sink)
        found = columns(packet, station.type)
        if found.unmapped:
            sink.count("factors_unmapped", by=found.unmapped, connector=self.id)
        if not found.points:
            # Nothing in it is kept, by configuration: answered, so that the station does not send it for ever.
            sink.count("uploads_unmapped", cn=packet.cn, connector=self.id)
            if packet.wants_answer:
                self.send(connection, data_answer(packet), sink)
            return
        verdict = station.clock.judge(named(packet), now_ms)
        if verdict.skewed:
            if station.news.fresh("dev.clock_skew", "offset", "", now_ms):
                text = f"station clock is {_lag_text(verdict.lag_ms)}; the gateway's time is used"
                sink.report("dev.clock_skew", station.device, "offset", text)
                if self._config.set_clock:
                    self._send_clock(connection, station, packet, sink, now_ms)
        else:
            station.news.over("dev.clock_skew", "")
            if packet.cn in requests.HISTORY and verdict.source_ms is not None:
                station.gaps.seen(packet.cn, verdict.source_ms, now_ms)
        self._tell_flags(station, found, sink, now_ms)
        sweeps = _sweeps(station, packet, found, verdict, now_ms)
        if not packet.wants_answer:
            for sweep in sweeps:
                sink.sweep(sweep)
            return
        answer = data_answer(packet)

        def acknowledge() -> None:
            self.send(connection, answer, sink)

        on_durable = after_all(len(sweeps), acknowledge)
        for sweep in sweeps:
            sink.sweep(sweep, on_durable)

    def _tell_flags(self, station: _Station, found: Columns, sink: Sink, now_ms: int) -> None:
        for point in found.points:
            flag = found.flags.get(point, "N")
            _, event, code = FLAGS.get(flag, FLAGS["N"])
            for other in ("dev.maintenance", "dev.fault"):
                station.news.over(other, point, code if other == event else "")
            if event and station.news.fresh(event, code, point, now_ms):
                sink.report(event, station.device, code, f"item flag {flag}", point=point)

    def _tell_itself(self, station: _Station, packet: Packet, sink: Sink) -> None:
        """What a station says of itself and its instruments: 2081, 3019, 3020."""
        if packet.cn == "2081":
            since = packet.fields.get("RestartTime", "")
            sink.report("dev.maintenance", station.device, "restarted", f"the station started {since}".rstrip())
        elif packet.cn == "3019":
            for code, parts in packet.factors.items():
                serial, known = parts.get("SN", ""), station.serials.get(code)
                if known is not None and serial and known != serial:
                    text = f"instrument {code}: serial number {known} is now {serial}"
                    sink.report("dev.tamper", station.device, "serial_changed", text[:200])
                if serial and (known is not None or len(station.serials) < _MAX_SERIALS):
                    station.serials[code] = serial
        elif packet.cn == "3020":
            for code, parts in packet.factors.items():
                if (text := parts.get("Info", "")).startswith("//"):
                    sink.report("dev.maintenance", station.device, "log", f"{code}: {text.strip('/')}"[:200])

    def _send_clock(self, connection: Connection, station: _Station, packet: Packet, sink: Sink, now_ms: int) -> None:
        station.clock_sent_ms = now_ms
        order = set_clock(packet.mn, pw=packet.pw, st=packet.st, now_ms=now_ms)
        self.send(connection, replace(order, crc_variant=packet.crc_variant), sink)

    # -- orders

    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`."""
        station = self._by_device.get(command.device)
        what = None if station is None else station.type.command(command.name)
        if station is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        try:
            cn, fields = request_of(what, command.arguments, self.clock.now_ms())
        except BadArgument as error:
            return Outcome("refused", "argument", str(error))
        # What an instrument does twice is worse than what it does not do: such an order goes out once.
        repeats = 0 if what.street else REPEATS
        outcome = await self._order(station, cn, fields, repeats=repeats, expires_ms=command.expires_ms)
        if cn in READ_BACK and (outcome.state == "done" or outcome.code == "no_result"):
            return await self._read_back(station, cn, fields, outcome)
        return outcome

    async def _read_back(self, station: _Station, cn: str, fields: Mapping[str, str], outcome: Outcome) -> Outcome:
        asks, name = READ_BACK[cn]
        if name not in fields:
            return outcome
        try:
            answer = await self._order(station, asks, {}, repeats=1)
        except LinkDown as error:
            return replace(outcome, detail=f"{outcome.detail}; {name} could not be read back: {error}")
        found = answer.read_back.get(name)
        if not isinstance(found, str):
            return replace(outcome, detail=f"{outcome.detail}; {name} could not be read back: {answer.code}")
        if shows(name, fields[name], found):
            return Outcome("done", "", outcome.detail, {name: found})
        return Outcome("failed", "read_back", f"{name} is {found}, not {fields[name]}", {name: found})

    async def _order(
        self, station: _Station, cn: str, fields: Mapping[str, str], *, repeats: int, expires_ms: int = 0
    ) -> Outcome:
        """One request and what became of it. Raises LinkDown if nothing was sent."""
        sink, last, now_ms = self._sink, station.last, self.clock.now_ms()
        if sink is None or last is None or station.connection is None:
            raise LinkDown(f"{station.device} is not connected")
        while format_qn(now_ms) in station.exchanges:
            now_ms += 1
        pw = station.config.password or last.pw
        packet = requests.request(cn, station.key, pw=pw, st=last.st, qn_ms=now_ms, fields=fields)
        packet = replace(packet, crc_variant=last.crc_variant)
        try:
            encode_data(packet)
        except LocalProtocolError as error:
            return Outcome("refused", "argument", str(error))
        exchange = station.exchanges[packet.qn] = Exchange(packet.qn, cn)
        try:
            for attempt in range(1 + repeats):
                if attempt and expires_ms and self.clock.now_ms() >= expires_ms:
                    break
                connection = station.connection
                sent = connection is not None and self.send(connection, packet, sink)
                if not attempt and not sent:
                    raise LinkDown(f"{station.device} takes no messages")
                await asyncio.wait([exchange.returned], timeout=ANSWER_S)
                if exchange.returned.done():
                    break
            return await _outcome(exchange)
        finally:
            del station.exchanges[packet.qn]

    # -- what never came

    async def _fill_gaps(self, sink: Sink) -> None:
        while True:
            await asyncio.sleep(GAP_CHECK_S)
            here = [station for station in self.stations.values() if station.connection is not None]
            # After an outage of the district many have holes at once; one that does not answer holds up few others.
            for at in range(0, len(here), ASKED_AT_ONCE):
                await asyncio.gather(*(self._ask_all(station, sink) for station in here[at : at + ASKED_AT_ONCE]))

    async def _ask_all(self, station: _Station, sink: Sink) -> None:
        for hole in list(station.gaps.due(self.clock.now_ms())):
            await self._ask_for(station, hole, sink)

    async def _ask_for(self, station: _Station, hole: Hole, sink: Sink) -> None:
        span = {"BeginTime": format_time(hole.begin_ms), "EndTime": format_time(hole.end_ms)}
        sink.count("gaps_asked", connector=self.id)
        try:
            outcome = await self._order(station, hole.cn, span, repeats=1)
        except LinkDown as error:
            log.debug("%s: %s: no history: %s", self.id, station.device, error)
            return
        log.info(
            "%s: asked %s for %s of %s: %s %s", self.id, station.device, hole.cn, span, outcome.state, outcome.code
        )


async def _outcome(exchange: Exchange) -> Outcome:
    if not exchange.returned.done():
        return Outcome("unknown", "no_answer", "no 9011 came")
    if (no := refused(exchange.returned.result())) is not None:
        return no
    while not exchange.result.done():
        exchange.progress.clear()
        try:
            async with asyncio.timeout(RESULT_S):
                await exchange.progress.wait()
        except TimeoutError:
            return Outcome("unknown", "no_result", "it was accepted (9011), no 9012 came", told(exchange))
    return finished(exchange)


def _sweeps(station: _Station, packet: Packet, found: Columns, verdict: Verdict, now_ms: int) -> list[Sweep]:
    """One for the upload's own time, and one for each other time at which a sample was taken. A sample's name is its
    own, so an analyser's value that comes with every upload until the next sample is kept once."""
    source_ms = now_ms if verdict.source_ms is None else verdict.source_ms
    groups: dict[str, list[int]] = {}
    for at, point in enumerate(found.points):
        text = found.sampled.get(point, "")
        taken_ms = parse_time(text) if text and not verdict.skewed else None
        usable = taken_ms is not None and -TOLERANCE_MS <= now_ms - taken_ms <= OLDEST_MS
        groups.setdefault(text if usable else "", []).append(at)
    out: list[Sweep] = []
    for text, chosen in groups.items():
        points = tuple(found.points[at] for at in chosen)
        taken_ms = parse_time(text) if text else None
        out.append(
            Sweep(
                device=station.device,
                source_ms=source_ms if taken_ms is None else taken_ms,
                seen_ms=now_ms,
                points=points,
                values=found.values[np.array(chosen)],
                quality=found.quality[np.array(chosen)],
                exchange=f"{packet.mn}/{packet.cn}/sample/{text}/{','.join(points)}" if text else verdict.exchange,
            )
        )
    return out


def _lag_text(lag_ms: int) -> str:
    return f"{abs(lag_ms) / 1000:.0f} s {'behind' if lag_ms > 0 else 'ahead'}"
