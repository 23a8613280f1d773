"""An HJ 212 station: measures on its own clock, dials the agent, pushes, and keeps what 9014 has not answered.

Faults of its own: ``resend`` (each upload twice), ``split`` (uploads in packets of 200 bytes), ``split_cut`` (one of
the packets never goes out), ``forgets`` (minute data are measured and kept, but not uploaded: a history request finds
them), ``no_result`` (9012 never comes), ``refuses`` (9011 says no).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from firmware_sim.devices.dialing import KEEP_RECORDS, DialingStation
from firmware_sim.devices.hj212_answers import Answers
from firmware_sim.devices.minute import MinuteTable
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import Packet, encode, format_qn, format_time, split, upload

_WHOLE = re.compile(rb"##.*?\r\n", re.DOTALL)
_CN = re.compile(rb";CN=([^;]*);")
_TIME = re.compile(rb"DataTime=(\d+)")
#: Bytes of data in a packet while it splits.
_SPLIT_BYTES = 200


class Hj212Station(DialingStation):
    """One station; a restart loses the half-built minute and every timer."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        super().__init__(device, faults, world)
        self._endpoint = Hj212Endpoint(Role.SLAVE, checksum="hj212", keep=KEEP_RECORDS)
        self._records: dict[str, tuple[str, str]] = {}  # QN -> (CN, DataTime), oldest first, until answered
        self._minute = MinuteTable()
        self._answers = Answers(self)

    def power_lost(self) -> None:
        self._minute = MinuteTable()

    def dialled(self, now_ms: int) -> None:
        self._endpoint.connected(now_ms)
        self._put_all(self._endpoint.take_output())

    def tick(self, now_ms: int) -> None:
        self._endpoint.tick(now_ms)
        self._put_all(self._endpoint.take_output())

    # -- out ----------------------------------------------------------------------------------------------------
    def record(self, t_s: float, now_ms: int) -> None:
        own_ms = self.clock_ms(now_ms)
        values: dict[str, str] = {}
        factors: dict[str, Mapping[str, str]] = {}
        numbers: dict[str, float] = {}
        for point in self.senses.type.points:
            binding = point.hj212
            if binding is None or not self.senses.has(point.name):
                continue
            number = self.senses(point.name, t_s) / binding.scale
            decimals = max(0, point.decimals + round(math.log10(abs(binding.scale))))
            flag = self._flag(point.name, t_s)
            text = "" if math.isnan(number) else f"{number:.{decimals}f}"
            values[point.name] = text
            factors[binding.factor] = {binding.suffix: text, "Flag": flag}
            if flag == "N" and text:
                numbers[binding.factor] = float(text)
        self._upload("2011", own_ms, own_ms, values, factors)
        if self.device.minute and (minute := self._minute.add(own_ms, numbers)) is not None:
            self._answers.keep(minute.begin_ms, minute.factors)
            if not self.faults.on("forgets", t_s, now_ms):
                averages = {code: parts["Avg"] for code, parts in minute.factors.items()}
                self._upload("2051", minute.begin_ms, own_ms, averages, minute.factors)

    def _flag(self, point: str, t_s: float) -> str:
        for mark in self.device.mark:
            since_s = t_s - mark.at_s
            if mark.point == point and since_s >= 0 and (mark.for_s is None or since_s < mark.for_s):
                return mark.flag
        return "N"

    def _upload(
        self,
        cn: str,
        data_time_ms: int,
        qn_ms: int,
        values: Mapping[str, str],
        factors: Mapping[str, Mapping[str, str]],
    ) -> None:
        device, now_ms = self.device, self.now()[0]
        while format_qn(qn_ms) in self._records:  # a clock that was put back must not reuse the name of an exchange
            qn_ms += 1
        packet = upload(
            cn, device.mn or "", factors, data_time_ms=data_time_ms, qn_ms=qn_ms, st=device.st, pw=device.password
        )
        record = (cn, format_time(data_time_ms))
        self.world.ledger.write("up", self.id, now_ms, cn=cn, dt=record[1], v=values)
        self._records[packet.qn] = record
        dropped = self._endpoint.dropped
        data = self._sent_as(packet, now_ms)
        for _ in range(self._endpoint.dropped - dropped):
            lost = self._records.pop(next(iter(self._records)))
            self.world.ledger.write("gave_up", self.id, now_ms, cn=lost[0], dt=lost[1])
        self._put_all(data)

    def _sent_as(self, packet: Packet, now_ms: int) -> bytes:
        """What goes out for an upload; all of it is kept until 9014 comes."""
        t_s = self.world.t_s(now_ms)
        cut = self.faults.on("split_cut", t_s, now_ms)
        parts = [packet]
        if cut or self.faults.on("split", t_s, now_ms):
            parts = split(packet, _SPLIT_BYTES)
        sent = [self._endpoint.send(part, now_ms) for part in parts]
        if cut and len(sent) > 1:
            del sent[1]
        return b"".join(sent) * (2 if self.faults.on("resend", t_s, now_ms) else 1)

    def _put_all(self, data: bytes) -> None:
        for frame in _WHOLE.findall(data):
            self.put(frame)

    def sent(self, frame: bytes, now_ms: int, *, intact: bool) -> None:
        cn, moment = _CN.search(frame), _TIME.search(frame)
        if cn is not None and moment is not None:
            self.world.ledger.write("sent", self.id, now_ms, cn=cn[1].decode(), dt=moment[1].decode(), intact=intact)

    # -- in -----------------------------------------------------------------------------------------------------
    def heard(self, data: bytes, now_ms: int) -> None:
        for message in self._endpoint.feed(data, now_ms):
            if isinstance(message, RemoteProtocolError):
                continue  # a station has nobody to tell; the platform repeats
            self._heard(message, now_ms)

    def _heard(self, packet: Packet, now_ms: int) -> None:
        if packet.cn == "9014":
            record = self._records.pop(packet.qn, None)
            if record is not None:
                self.world.ledger.write("ack", self.id, now_ms, cn=record[0], dt=record[1])
            return
        if not packet.cn.startswith("9"):
            for answer in self._answers.to(packet, now_ms):
                self._put_all(encode(answer))
