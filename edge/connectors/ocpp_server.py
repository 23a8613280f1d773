"""OCPP: the agent is the central system, charging stations dial in over WebSocket and report.

A report is answered once it is on disk; heartbeats, log-ins and cards at once. Real stations break the standard in
many small ways (see ``protocols/ocpp``): what can be understood is stored and the violation counted, because a
refused report is a lost state, and a refused StopTransaction is repeated for ever.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.connectors import ocpp_files
from edge.connectors.base import Command, Link, LinkFactory, Outcome, Sink
from edge.connectors.config import split_address
from edge.connectors.durable import after_all
from edge.connectors.ocpp_answers import answer, cards
from edge.connectors.ocpp_link import OcppLink, OcppListener
from edge.connectors.ocpp_orders import Orders
from edge.connectors.ocpp_station import ChargingStation, Moments, Told
from edge.connectors.ocpp_values import columns, is_known, places_of, sampled
from edge.connectors.road_config import OcppServerConfig
from edge.connectors.station_clock import TOLERANCE_MS, Upload, Verdict
from edge.connectors.station_server import Connection, StationServer
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown
from protocols.core.model import Sweep
from protocols.devices.values import Raw, by_key
from protocols.ocpp import orders, times
from protocols.ocpp.endpoint import Heard, OcppEndpoint, Unanswered
from protocols.ocpp.frame import Call, CallError, CallResult
from protocols.ocpp.orders import Order
from protocols.ocpp.reports import Authorize, Meter, Report, Status, Transaction, understand
from protocols.ocpp.schema import formation
from protocols.ocpp.times import Instant

log = logging.getLogger(__name__)

_FAULT = "ev.charger.fault"

#: What a clock's lag is when local time is sent as UTC: whole or half hours.
_ZONE_MS = 1_800_000


class OcppServer(StationServer[Heard, ChargingStation]):
    """The connector of kind ``ocpp-server``. ``next_link`` gives OcppLinks instead of the listening socket."""

    def __init__(
        self, config: OcppServerConfig, clock: Clock, next_link: LinkFactory | None = None, *, base: Path = Path()
    ) -> None:
        self._config = config
        self._sink: Sink | None = None
        self._listener: OcppListener | None = None
        if next_link is None:
            where = split_address(config.listen, f"connector {config.id!r}: listen")
            self._listener = OcppListener(config, where, base, self._refused)
        super().__init__(
            config.id,
            clock,
            {device.identity: ChargingStation(device) for device in config.device},
            listen=config.listen,
            silent_s=config.silent_s,
            next_link=next_link or self._accept,
            max_connections=config.max_connections,
        )
        self._by_device = {station.device: station for station in self.stations.values()}
        self._cards = cards(config, base)
        self._orders = Orders(self._ask, config.settle_s, lambda: times.write(self.clock.now_ms()))

    @property
    def port(self) -> int:
        """Where it listens, once it runs."""
        return 0 if self._listener is None else self._listener.port

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        if self._listener is None:
            await super().run(sink)
            return
        await self._listener.open()
        try:
            await super().run(sink)
        finally:
            await self._listener.close()

    async def _accept(self) -> Link:
        assert self._listener is not None  # noqa: S101 - used as next_link only where there is one
        return await self._listener.accept()

    def _refused(self, code: str, detail: str) -> None:
        if self._sink is not None:
            self._sink.count("connections_refused", connector=self.id)
            self._sink.report("data.rejected", self.id, code, detail)

    # -- whose

    def new_endpoint(self) -> OcppEndpoint:
        return OcppEndpoint(Role.MASTER)

    def endpoint_for(self, link: Link) -> OcppEndpoint:
        version = link.version if isinstance(link, OcppLink) else "1.6"
        return OcppEndpoint(Role.MASTER, version=version, timeout_ms=round(self._config.answer_s * 1000))

    def station_key(self, message: Heard, connection: Connection) -> str:
        return connection.link.identity if isinstance(connection.link, OcppLink) else ""

    def stranger(self, connection: Connection, key: str, message: Heard, sink: Sink) -> ChargingStation | None:
        super().stranger(connection, key, message, sink)
        if isinstance(message, Call):
            # A station must be told that it is not wanted, or it dials again at once.
            now_ms = self.clock.now_ms()
            self.send(connection, answer(message, _endpoint(connection).version, now_ms, interval_s=600), sink)
        return None

    # -- one message

    def received(self, connection: Connection, station: ChargingStation, message: Heard, sink: Sink) -> None:
        if isinstance(message, Call):
            self._called(connection, station, message, sink)
        else:
            station.answered.set()
        if isinstance(message, Unanswered):
            sink.count("calls_unanswered", connector=self.id, action=message.call.action)
        self._count_violations(station, _endpoint(connection).violations, sink)

    def _called(self, connection: Connection, station: ChargingStation, call: Call, sink: Sink) -> None:
        version = _endpoint(connection).version
        understood = understand(call, version)
        for one in understood.violations:
            sink.count("violations", connector=self.id, rule=one.rule)
        if understood.report is None:
            first = understood.violations[0] if understood.violations else None
            code = first.code if first is not None else formation(version)
            text = f"{call.action}: {first.path} {first.text}" if first is not None else f"{call.action}: no use"
            sink.report("data.rejected", station.device, code, text[:200])
            self.send(connection, CallError(call.id, code, text[:200]), sink)
            return
        if understood.violations:
            first = understood.violations[0]
            if station.news.fresh("data.rejected", first.code, f"{call.action}.{first.path}", self.clock.now_ms()):
                log.info("%s: %s: %s: %s", self.id, station.device, call.action, first.text)
        self._report(connection, station, call, understood.report, sink)
        if (told := ocpp_files.progress(call)) is not None:
            station.files[told[0]] = told[1]
            station.changed.set()
            if told[1] in ocpp_files.DONE | ocpp_files.FAILED:
                sink.report("dev.maintenance", station.device, f"{told[0]}_{told[1]}"[:64], "told by the station")
        if call.action == "BootNotification":
            station.booted = True
            sink.count("boots", connector=self.id)
        elif not station.booted:
            station.booted = True  # asked once; many never do it
            self._trigger_boot(connection, station, sink)

    def _trigger_boot(self, connection: Connection, station: ChargingStation, sink: Sink) -> None:
        sink.count("boots_missing", connector=self.id)
        endpoint = _endpoint(connection)
        if not endpoint.busy:
            order = Order("trigger", message="BootNotification")
            self.send(connection, orders.call(order, endpoint.version, self._new_id(station)), sink)

    def _report(self, connection: Connection, station: ChargingStation, call: Call, report: Report, sink: Sink) -> None:
        now_ms, version = self.clock.now_ms(), _endpoint(connection).version
        moments: Moments = []
        transaction = ""
        accepted = True
        self._check_place(station, report, sink, now_ms)
        match report:
            case Status():
                self._state(station, report, sink, now_ms)
                values: dict[str, Raw] = {f"{report.place}/status": report.status}
                if report.error:
                    values[f"{report.place}/error"] = report.error
                moments.append((report.time, values))
            case Meter():
                moments += [(one.time, sampled(report.place, one)) for one in report.metered]
            case Transaction():
                accepted = report.phase != "Started" or self._card_fits(report.tag)
                told = station.transaction_told(report, accepted=accepted, now_ms=now_ms)
                transaction, moments = told.name, told.moments
                self._tell_transaction(station, told, sink, now_ms)
            case Authorize():
                accepted = self._card_fits(report.tag)
            case _:
                pass
        reply = answer(
            call,
            version,
            now_ms,
            interval_s=self._config.heartbeat_s,
            known=True,
            accepted=accepted,
            transaction=transaction,
        )

        def send() -> None:
            self.send(connection, reply, sink)

        sweeps = self._sweeps(station, call, report, moments, sink, now_ms)
        if not sweeps:
            send()
            return
        on_durable = after_all(len(sweeps), send)
        for sweep in sweeps:
            sink.sweep(sweep, on_durable)

    def _card_fits(self, card: str) -> bool:
        return self._cards is None or card in self._cards()

    # -- what it means

    def _check_place(self, station: ChargingStation, report: Report, sink: Sink, now_ms: int) -> None:
        """A connector that the type does not have: another model than was configured, or nonsense."""
        place = getattr(report, "place", None)
        if not place or place in places_of(station.type):
            return
        sink.count("places_unknown", connector=self.id)
        if station.news.fresh("data.rejected", "unknown_connector", str(place), now_ms):
            text = f"{station.type.id} has no connector {place}; its values are not kept"
            sink.report("data.rejected", station.device, "unknown_connector", text)

    def _state(self, station: ChargingStation, report: Status, sink: Sink, now_ms: int) -> None:
        place = station.place(report.place)
        place.status, place.told_ms = report.status, now_ms
        station.changed.set()
        point = _state_point(station, report.place)
        if report.status != "Faulted":
            station.news.over(_FAULT, point)
        else:
            code = (report.error or "Faulted")[:40]
            station.news.over(_FAULT, point, code)
            if station.news.fresh(_FAULT, code, point, now_ms):
                sink.report(_FAULT, station.device, code, report.info[:200], point=point)
        if not is_known(station.type, f"{report.place}/status", report.status):
            sink.count("words_unknown", connector=self.id, word="status")

    def _tell_transaction(self, station: ChargingStation, told: Told, sink: Sink, now_ms: int) -> None:
        if told.place is None:
            sink.count("transactions_without_place", connector=self.id)
        if told.missing:
            sink.count("transaction_events_missing", by=told.missing, connector=self.id)
        point = _state_point(station, told.place or 0)
        if told.fell and station.news.fresh("dev.fault", "meter_reset", point, now_ms):
            sink.report("dev.fault", station.device, "meter_reset", told.fell, point=point)

    # -- sweeps

    def _sweeps(
        self,
        station: ChargingStation,
        call: Call,
        report: Report,
        moments: Moments,
        sink: Sink,
        now_ms: int,
    ) -> list[Sweep]:
        digest = zlib.crc32(repr(call.payload).encode())
        out: list[Sweep] = []
        for number, (time, values) in enumerate(moments):
            points, numbers, quality = columns(station.type, values)
            if len(points) < len(values):
                sink.count("values_unmapped", by=len(values) - len(points), connector=self.id)
            if not points:
                continue
            verdict = self._judge(station, call.action, number, time, digest, now_ms, sink)
            source_ms = now_ms if verdict.source_ms is None else verdict.source_ms
            out.append(Sweep(station.device, source_ms, now_ms, points, numbers, quality, verdict.exchange))
        return out

    def _judge(
        self,
        station: ChargingStation,
        action: str,
        number: int,
        time: Instant | None,
        digest: int,
        now_ms: int,
        sink: Sink,
    ) -> Verdict:
        """The time to store. A report without one has no name either: two alike may both be true."""
        if time is None:
            return Verdict(None, 0, "", False)
        name = f"{station.key}/{action}/{number}/{time.ms}/{digest:08x}"
        if time.unset:
            self._tell_clock(station, "unset", "the station's clock was never set", sink, now_ms)
            # Its power-ups all begin in 1970: such a name says nothing.
            return Verdict(None, now_ms - time.ms, "", True)
        verdict = station.clock.judge(Upload(name, digest, time.ms, time.ms), now_ms)
        if verdict.skewed:
            hours = round(verdict.lag_ms / _ZONE_MS)
            zone = hours != 0 and abs(verdict.lag_ms - hours * _ZONE_MS) <= TOLERANCE_MS
            what = f"{abs(verdict.lag_ms) / 1000:.0f} s {'behind' if verdict.lag_ms > 0 else 'ahead'}"
            hint = ", local time sent as UTC?" if zone else ""
            text = f"station clock is {what}{hint}; the gateway's time is used"
            self._tell_clock(station, "zone" if zone else "offset", text, sink, now_ms)
        else:
            station.news.over("dev.clock_skew", "")
        return verdict

    def _tell_clock(self, station: ChargingStation, code: str, text: str, sink: Sink, now_ms: int) -> None:
        if station.news.fresh("dev.clock_skew", code, "", now_ms):
            sink.report("dev.clock_skew", station.device, code, text)

    def _count_violations(self, station: ChargingStation, found: Mapping[str, int], sink: Sink) -> None:
        """What the endpoint of this connection forgave since the last time."""
        for name, often in found.items():
            more = often - station.violations[name]
            if more > 0:
                sink.count("violations", by=more, connector=self.id, rule=name)
            station.violations[name] = often

    # -- orders

    def _new_id(self, station: ChargingStation) -> str:
        return f"{self.clock.now_ms():x}-{next(station.calls)}"

    async def _ask(self, station: ChargingStation, order: Order) -> CallResult | CallError | None:
        """One call and its answer, None if none came. Raises LinkDown if nothing was sent, LocalProtocolError."""
        connection = station.connection
        if connection is None or self._sink is None:
            raise LinkDown(f"{station.device} is not connected")
        endpoint = _endpoint(connection)
        async with asyncio.timeout(self._config.answer_s):
            while endpoint.busy:  # a call of ours that nobody waits for: its answer, or its time-out, ends it
                station.answered.clear()
                await station.answered.wait()
        message = orders.call(order, endpoint.version, self._new_id(station))
        found = await self.ask(station, message, _answers(message), self._config.answer_s, self._sink)
        return found if isinstance(found, CallResult | CallError) else None

    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`."""
        station = self._by_device.get(command.device)
        what = None if station is None else station.type.command(command.name)
        if station is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        outcome = await self._orders.carry_out(station, what, command.arguments)
        limit = outcome.read_back.get("limit")
        if isinstance(limit, float) and self._sink is not None:
            place = int(outcome.read_back.get("connector", 0))
            points, numbers, quality = columns(station.type, {f"{place}/limit": limit})
            if points:
                now_ms = self.clock.now_ms()
                self._sink.sweep(Sweep(station.device, now_ms, now_ms, points, numbers, quality))
        return outcome


def _state_point(station: ChargingStation, place: int) -> str:
    """The point that carries the connector's state, "" if the type has none."""
    return next((point.name for point in by_key(station.type).get(f"{place}/status", ())), "")


def _endpoint(connection: Connection) -> OcppEndpoint:
    endpoint: Any = connection.endpoint
    assert isinstance(endpoint, OcppEndpoint)  # noqa: S101 - made by endpoint_for
    return endpoint


def _answers(call: Call) -> Callable[[Heard], bool]:
    def match(message: Heard) -> bool:
        if isinstance(message, Unanswered):
            return message.call.id == call.id
        return isinstance(message, CallResult | CallError) and message.id == call.id

    return match
