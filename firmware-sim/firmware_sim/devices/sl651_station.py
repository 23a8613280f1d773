"""An SL 651 station: a timed report (32) each interval, an hourly one (34) with the slots of the hour, answers to the
centre's questions.

``address``: ten digits; ``password``: the first four count. Options: ``mode`` ("M1" sends once, "M2" keeps until
confirmed), ``keep_alive_s``, ``answer_s`` (wait before it repeats), ``center``. Faults of its own: ``resend`` (each
report twice, same serial number), ``no_value`` (elements filled with FF or AA), ``lost_packet`` (reports in packets of
40 bytes, the second one missing until it is asked for), ``mute`` (questions are not answered).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal

from firmware_sim.devices.dialing import KEEP_RECORDS, DialingStation
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, RemoteProtocolError
from protocols.devices import Point
from protocols.sl651 import messages as sl651
from protocols.sl651.elements import ELEMENTS, SERIES_STEP_MS, Element, element, rain_series, series_width
from protocols.sl651.endpoint import PACKET, Sl651Endpoint
from protocols.sl651.frame import End, Telegram, header_at
from protocols.sl651.messages import Group, Message, Plain, Question, Report, Setting, Settings, stamp, to_ms
from protocols.sl651.reading import read

_HOUR_MS = 3_600_000
#: Reports of one answer to READ_PERIOD at most.
MOST_GROUPS = 200
#: Body bytes in a packet while it sends in small ones.
_SMALL = 40
_VERSION = b"CITYBRAIN-SIM-1.0"
#: Operating parameters as they leave the factory: identifier, definition, data.
_FACTORY = {
    "20": (0x08, b"\x01"), "21": (0x08, b"\x05"), "22": (0x08, b"\x08"), "23": (0x10, b"\x03\x00"),
    "24": (0x08, b"\x05"), "27": (0x08, b"\x02"), "38": (0x12, b"\x05\x00"),
}  # fmt: skip


class Sl651Station(DialingStation):
    """One station."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        super().__init__(device, faults, world)
        self.station = str(device.address)
        if len(self.station) != 10 or any(digit not in "0123456789ABCDEF" for digit in self.station):
            raise ConfigError(f"device {device.id}: address: a station has ten digits in quotes")
        self._password = device.password[:4].upper()
        if len(self._password) != 4 or any(digit not in "0123456789ABCDEF" for digit in self._password):
            raise ConfigError(f"device {device.id}: password: four hex digits")
        options = device.options
        self._center = int(options.get("center", 1))
        self._keep_alive_s = float(options.get("keep_alive_s", 40))
        small = any(fault.kind == "lost_packet" for fault in device.fault)
        self._endpoint = Sl651Endpoint(
            Role.SLAVE,
            confirmed=options.get("mode", "M2") != "M1",
            answer_timeout_ms=round(float(options.get("answer_s", 10)) * 1000),
            keep=KEEP_RECORDS,
            packet=_SMALL if small else PACKET,
        )
        self._serial = 0
        self._labels: dict[tuple[int, int], tuple[str, str]] = {}  # what the ledger calls a report
        self._hour: int | None = None
        self._alive_ms = 0
        self._settings = dict(_FACTORY)

    def _now_stamp(self, now_ms: int) -> str:
        return stamp(self.clock_ms(now_ms))

    def _next(self) -> int:
        self._serial = self._serial % 0xFFFF + 1
        return self._serial

    # -- out ----------------------------------------------------------------------------------------------------
    def record(self, t_s: float, now_ms: int) -> None:
        own_ms = self.clock_ms(now_ms)
        self._send(sl651.TIMED, (Group(stamp(own_ms, 10), self._elements(t_s, now_ms)),), now_ms)
        hour = own_ms // _HOUR_MS
        if self._hour is not None and hour != self._hour:
            groups = tuple(self._series(t_s, own_ms))
            if groups:
                self._send(sl651.HOURLY, groups, now_ms)
        self._hour = hour

    def _elements(self, t_s: float, now_ms: int) -> tuple[Element, ...]:
        out: list[Element] = []
        status: int | None = None
        for number, point in enumerate(self.senses.type.points):
            key, dot, bit = _key(point).partition(".")
            if series_width(key) or not self.senses.has(point.name):
                continue
            raw = self._raw(point, t_s)
            if key == "45":
                on = int(raw) if raw is not None else 0
                status = (status or 0) | (on << int(bit) if dot else on)
                continue
            one = element(key, raw, None if key in ELEMENTS else 0x20 | point.decimals)
            if self.faults.on("no_value", t_s, now_ms):
                fill = b"\xaa" if number % 2 else b"\xff"
                one = Element(one.id, one.definition, fill * len(one.raw))
            out.append(one)
        if status is not None:
            out.append(Element("45", 0x20, status.to_bytes(4, "big")))
        return tuple(out)

    def _raw(self, point: Point, t_s: float) -> Decimal | None:
        binding, value = point.value, self.senses(point.name, t_s)
        if binding is None or math.isnan(value):
            return None
        return Decimal(str(round((value - binding.offset) / binding.factor, 6)))

    def _series(self, t_s: float, own_ms: int) -> Iterator[Group]:
        """The twelve slots of the hour that has passed; the observation time is the first one's."""
        first_ms = own_ms // _HOUR_MS * _HOUR_MS - _HOUR_MS + SERIES_STEP_MS
        for point in self.senses.type.points:
            key = _key(point)
            if not series_width(key) or not self.senses.has(point.name):
                continue
            at_s = [t_s - (own_ms - first_ms - n * SERIES_STEP_MS) / 1000 for n in range(12)]
            slots = [self._raw(point, at) if at >= 0 else None for at in at_s]
            if key == "F4":
                yield Group(stamp(first_ms, 10), (rain_series(tuple(slots)),))
            else:
                raw = b"".join(b"\xff\xff" if one is None else round(one * 100).to_bytes(2, "big") for one in slots)
                yield Group(stamp(first_ms, 10), (Element(key, 0xC0, raw),))

    def _send(self, func: int, groups: tuple[Group, ...], now_ms: int) -> None:
        serial, sent = self._next(), self._now_stamp(now_ms)
        body = sl651.write(Report(serial, sent, self.station, "48", groups))
        telegram = Telegram(func, body, self.station, self._center, self._password)
        label = self._labels[func, serial] = (f"{func:02X}", sent)
        shown = {one.id: str(one.value) for group in groups for one in group.elements}
        self.world.ledger.write("up", self.id, now_ms, cn=label[0], dt=label[1], v=shown)
        dropped = self._endpoint.dropped
        data = self._endpoint.send(telegram, now_ms)
        for _ in range(self._endpoint.dropped - dropped):
            lost = self._labels.pop(next(iter(self._labels)))
            self.world.ledger.write("gave_up", self.id, now_ms, cn=lost[0], dt=lost[1])
        t_s = self.world.t_s(now_ms)
        frames = list(_frames(data))
        if len(frames) > 1 and self.faults.on("lost_packet", t_s, now_ms):
            del frames[1]
        for frame in frames * (2 if self.faults.on("resend", t_s, now_ms) else 1):
            self.put(frame)

    def sent(self, frame: bytes, now_ms: int, *, intact: bool) -> None:
        header = header_at(frame, 0)
        if header is None or header.telegram.total > 1:
            return
        serial = int.from_bytes(frame[header.body_at : header.body_at + 2], "big")
        label = self._labels.get((header.telegram.func, serial))
        if label is not None:
            self.world.ledger.write("sent", self.id, now_ms, cn=label[0], dt=label[1], intact=intact)

    def dialled(self, now_ms: int) -> None:
        self._endpoint.connected(now_ms)
        self._alive_ms = now_ms
        self._put_output()

    def tick(self, now_ms: int) -> None:
        self._endpoint.tick(now_ms)
        self._put_output()
        if now_ms - self._alive_ms >= self._keep_alive_s * 1000:
            self._alive_ms = now_ms
            body = sl651.write(Plain(self._next(), self._now_stamp(now_ms)))
            self._put(Telegram(sl651.KEEP_ALIVE, body, self.station, self._center, self._password), now_ms)

    def _put_output(self) -> None:
        for frame in _frames(self._endpoint.take_output()):
            self.put(frame)

    def _put(self, telegram: Telegram, now_ms: int) -> None:
        for frame in _frames(self._endpoint.send(telegram, now_ms)):
            self.put(frame)

    # -- in -----------------------------------------------------------------------------------------------------
    def heard(self, data: bytes, now_ms: int) -> None:
        for telegram in self._endpoint.feed(data, now_ms):
            if isinstance(telegram, RemoteProtocolError) or not telegram.down or telegram.station != self.station:
                continue  # a station says nothing to what is bad or another's
            if telegram.end is End.ENQ:
                if not self.faults.on("mute", self.world.t_s(now_ms), now_ms):
                    self._answer(telegram, now_ms)
            elif telegram.end is not End.NAK:
                label = self._labels.pop((telegram.func, int.from_bytes(telegram.body[:2], "big")), None)
                if label is not None:
                    self.world.ledger.write("ack", self.id, now_ms, cn=label[0], dt=label[1])
        self._put_output()

    def _answer(self, asked: Telegram, now_ms: int) -> None:
        try:
            message = read(asked)
        except RemoteProtocolError:
            return
        answer = self._reply(asked.func, message, now_ms)
        if answer is not None:
            self._put(sl651.reply(asked, answer), now_ms)

    def _reply(self, func: int, asked: Message, now_ms: int) -> Message | None:
        """None: it does not know such a question, and says nothing."""
        if isinstance(asked, sl651.Continued):
            return None
        serial, t_s = asked.serial, self.world.t_s(now_ms)
        sent = self._now_stamp(now_ms)
        match func:
            case sl651.READ_NOW:
                return self._report(serial, sent, (Group(sent[:10], self._elements(t_s, now_ms)),))
            case sl651.READ_ELEMENTS if isinstance(asked, Question):
                wanted = {identifier for identifier, _ in asked.wanted}
                chosen = tuple(one for one in self._elements(t_s, now_ms) if one.id in wanted)
                return self._report(serial, sent, (Group(sent[:10], chosen),))
            case sl651.READ_PERIOD if isinstance(asked, Question):
                return self._report(serial, sent, tuple(self._period(asked, now_ms)))
            case sl651.SET_CLOCK:
                if (moment_ms := to_ms(asked.sent)) is not None:
                    self.set_ms += moment_ms - self.clock_ms(now_ms)
                return Plain(serial, self._now_stamp(now_ms), self.station)
            case sl651.READ_CLOCK:
                return Plain(serial, sent, self.station)
            case sl651.VERSION:
                return sl651.Version(serial, sent, self.station, _VERSION)
            case sl651.READ_RUN if isinstance(asked, Question):
                names = [identifier for identifier, _ in asked.wanted if identifier in self._settings]
                items = tuple(Setting(name, *self._settings[name]) for name in names)
                return Settings(serial, sent, items, self.station)
            case sl651.SET_RUN if isinstance(asked, Settings):
                self._settings |= {one.id: (one.definition, one.raw) for one in asked.items if one.id in self._settings}
                return Settings(serial, sent, asked.items, self.station)
        return None

    def _report(self, serial: int, sent: str, groups: tuple[Group, ...]) -> Report:
        return Report(serial, sent, self.station, "48", groups)

    def _period(self, asked: Question, now_ms: int) -> Iterator[Group]:
        begin_ms, end_ms = to_ms(f"{asked.begin}00"), to_ms(f"{asked.end}00")
        days, hours, minutes = (int(asked.step[at : at + 2] or 0) for at in (0, 2, 4))
        step_ms = ((days * 24 + hours) * 60 + minutes) * 60_000
        if begin_ms is None or end_ms is None or step_ms <= 0:
            return
        wanted = {identifier for identifier, _ in asked.wanted}
        offset_ms = self.clock_ms(now_ms) - now_ms
        for at_ms in list(range(begin_ms, end_ms + 1, step_ms))[:MOST_GROUPS]:
            t_s = self.world.t_s(at_ms - offset_ms)
            chosen = tuple(one for one in self._elements(t_s, now_ms) if one.id in wanted) if t_s >= 0 else ()
            if chosen and at_ms - offset_ms <= now_ms:
                yield Group(stamp(at_ms, 10), chosen)


def _key(point: Point) -> str:
    return "" if point.value is None else point.value.key


def _frames(data: bytes) -> Iterator[bytes]:
    """The telegrams one after another."""
    at = 0
    while (header := header_at(data, at)) is not None:
        yield data[at : at + header.size]
        at += header.size
