"""An electric vehicle's terminal (GB/T 32960): logs in, reports every ``interval_s``, keeps what was not answered.

``address`` is the VIN. Options: ``edition = "2025"``, ``cells`` (so many cell voltages and probes in each report),
``iccid``. Faults of its own: ``ack_lost`` (answers do not arrive), ``no_time`` (clock unset), ``no_fix`` (position
"valid" at 0,0), ``truncated_list`` (fewer cells than counted), ``vendor_item`` (an item without length at the end),
``encrypted`` (AES, without the key), ``sticky`` (three frames in one segment).
"""

from __future__ import annotations

import math
from typing import Any

from firmware_sim.devices.dialing import KEEP_RECORDS, DialingStation
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.cutter import Cut
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from protocols.devices.values import raw_of
from protocols.gb32960 import bodies
from protocols.gb32960 import messages as m
from protocols.gb32960.endpoint import Gb32960Endpoint
from protocols.gb32960.frame import Scanner
from protocols.gb32960.items import Edition, Item, item

#: Type bytes by name and issue.
_TYPES: dict[str, dict[str, int]] = {
    "2016": {"vehicle": 1, "motor": 2, "position": 5, "extremes": 6, "alarm": 7, "cells": 8, "probes": 9},
    "2025": {"vehicle": 1, "motor": 2, "position": 5, "alarm": 6, "cells": 7, "probes": 8},
}
_NO_TIME = b"\xff" * 6
_STICKY_FRAMES = 3
_DAY_MS = 86_400_000
_ZONE_MS = 8 * 3_600_000
#: Ten records of a maker's own without the length that should come first.
_VENDOR = b"\x81" + b"\x01\x00\x05" * 10


class Gb32960Vehicle(DialingStation):
    """One vehicle. Reports nobody answered survive a restart and come again as command 03."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        super().__init__(device, faults, world)
        try:
            self._raw_vin = m.vin_bytes(str(device.address))
        except LocalProtocolError as error:
            raise ConfigError(f"device {device.id}: address: {error}") from error
        self._edition: Edition = "2025" if str(device.options.get("edition", "2016")) == "2025" else "2016"
        self._cells = int(device.options.get("cells", 0))
        self._endpoint = Gb32960Endpoint(Role.SLAVE, keep=KEEP_RECORDS)
        self._records: dict[bytes, tuple[str, str]] = {}  # data of a report -> how the ledger names it
        self._parameters = {1: 1000, 2: round(device.interval_s), 3: 1000, 9: 30, 10: 10, 11: 10, 12: 1, 16: 0}
        self._logins = 0
        self._login_day = -1
        self._held: list[bytes] = []

    # -- life ---------------------------------------------------------------------------------------------------
    def power_lost(self) -> None:
        self._held.clear()

    def dialled(self, now_ms: int) -> None:
        self._endpoint.connected(now_ms)
        day = (self.clock_ms(now_ms) + _ZONE_MS) // _DAY_MS
        self._logins = self._logins % 65_531 + 1 if day == self._login_day else 1
        self._login_day = day
        iccid = str(self.device.options.get("iccid", "89860000000000000001"))
        make = bodies.login_data if self._edition == "2016" else bodies.login_data_2025
        self._send(m.LOGIN, make(self._stamp(now_ms), self._logins, iccid), now_ms)

    def tick(self, now_ms: int) -> None:
        self._endpoint.tick(now_ms)
        self._put_all(self._endpoint.take_output())

    # -- out ----------------------------------------------------------------------------------------------------
    def record(self, t_s: float, now_ms: int) -> None:
        values: dict[str, str] = {}
        said: dict[str, dict[str, Any]] = {name: {} for name in ("vehicle", "motor", "position", "extremes", "alarm")}
        for point in self.senses.type.points:
            if point.value is None or not self.senses.has(point.name):
                continue
            number = self.senses(point.name, t_s)
            group, _, name = point.value.key.partition(".")
            if group in said and not math.isnan(number):
                raw = raw_of(point, round(number, point.decimals))
                said[group][name] = round(float(raw)) if name in ("level", "flags_raw") and raw is not None else raw
                values[point.name] = f"{number:.{point.decimals}f}"
        data = bodies.report_data(self._stamp(now_ms), self._items(said, t_s, now_ms))
        if self.faults.on("vendor_item", t_s, now_ms):
            data += _VENDOR
        moment = f"{now_ms}"
        self.world.ledger.write("up", self.id, now_ms, cn="02", dt=moment, v=values)
        self._records[data] = ("02", moment)
        dropped = self._endpoint.dropped
        self._send(m.REALTIME, data, now_ms)
        for _ in range(self._endpoint.dropped - dropped):
            cn, dt = self._records.pop(next(iter(self._records)))
            self.world.ledger.write("gave_up", self.id, now_ms, cn=cn, dt=dt)

    def _items(self, said: dict[str, dict[str, Any]], t_s: float, now_ms: int) -> list[Item]:
        types = _TYPES[self._edition]
        position = {"status": 0, "datum": "wgs84", **said["position"]}
        if "lon" not in position:
            position["status"] = 1
        if self.faults.on("no_fix", t_s, now_ms):
            position |= {"status": 0, "lon": 0.0, "lat": 0.0}
        groups = {**said, "position": position, "alarm": {"level": 0, **said["alarm"]}}
        if motor := {name.removeprefix("max."): value for name, value in said["motor"].items()}:
            groups["motor"] = {"motors": [{"no": 1, **motor}]}
        out = [item(types[name], groups[name], self._edition) for name in groups if name in types and groups[name]]
        if self._cells:
            high, low = said["extremes"].get("max_v", 3.7), said["extremes"].get("min_v", 3.7)
            cells = [high, low, *[round((high + low) / 2, 3)] * self._cells][: self._cells]
            one = item(types["cells"], {"subsystems": [{"no": 1, "cells_v": cells}]}, self._edition)
            if self.faults.on("truncated_list", t_s, now_ms):
                one = Item(one.type, one.name, one.body[:-2], one.values)
            out.append(one)
        return out

    def _stamp(self, now_ms: int) -> bytes:
        if self.faults.on("no_time", self.world.t_s(now_ms), now_ms):
            return _NO_TIME
        try:
            return m.stamp_at(self.clock_ms(now_ms))
        except LocalProtocolError:
            return _NO_TIME  # 1970: the byte counts from 2000

    def _send(self, command: int, data: bytes, now_ms: int) -> None:
        encryption = m.PLAIN
        if command == m.REALTIME and self.faults.on("encrypted", self.world.t_s(now_ms), now_ms):
            encryption = 3
        message = m.Message(command, self._raw_vin, data, m.IS_COMMAND, self._edition, encryption)
        self._put_all(self._endpoint.send(message, now_ms))

    def _put_all(self, data: bytes) -> None:
        now_ms, t_s = self.now()
        frames = [one.data for one in Scanner().feed(data) if isinstance(one, Cut)]
        if not self.faults.on("sticky", t_s, now_ms):
            frames, self._held = [*self._held, *frames], []
        else:
            self._held += frames
            if len(self._held) < _STICKY_FRAMES:
                return
            frames, self._held = [b"".join(self._held)], []
        for frame in frames:
            self.put(frame)

    def sent(self, frame: bytes, now_ms: int, *, intact: bool) -> None:
        found = self._records.get(m.parse(frame).data)
        if found is not None:
            self.world.ledger.write("sent", self.id, now_ms, cn=found[0], dt=found[1], intact=intact)

    # -- in -----------------------------------------------------------------------------------------------------
    def heard(self, data: bytes, now_ms: int) -> None:
        if self.faults.on("ack_lost", self.world.t_s(now_ms), now_ms):
            return
        before = {one.data for one in self._endpoint.unanswered}
        for message in self._endpoint.feed(data, now_ms):
            if isinstance(message, RemoteProtocolError):
                continue
            if message.is_command:
                self._obey(message, now_ms)
                continue
            after = {one.data for one in self._endpoint.unanswered}
            for answered in before - after:
                if (record := self._records.pop(answered, None)) is not None:
                    kind = "ack" if message.answer == m.OK else "gave_up"  # refused: sending it again helps nobody
                    self.world.ledger.write(kind, self.id, now_ms, cn=record[0], dt=record[1])
            before = after

    def _obey(self, message: m.Message, now_ms: int) -> None:
        try:
            body = bodies.read(message)
        except RemoteProtocolError:
            body = bodies.Opaque()
        answer = m.reply(message, m.OK, now_ms=now_ms)
        match body:
            case bodies.Query(ids=ids) if all(number in self._parameters for number in ids):
                data = body.stamp + bytes((len(ids),))
                for number in ids:
                    data += bodies.set_data(b"", number, self._parameters[number], self._edition)[1:]
                answer = m.Message(m.QUERY, self._raw_vin, data, m.OK, self._edition)
            case bodies.Parameters(values=values) if all(isinstance(value, int) for _, value in values):
                self._parameters |= {number: value for number, value in values if isinstance(value, int)}
            case bodies.Control(order=order) if order in bodies.CONTROL_NAMES:
                pass
            case _:
                answer = m.reply(message, m.ERROR, now_ms=now_ms)
        self._put_all(m.encode(answer))
