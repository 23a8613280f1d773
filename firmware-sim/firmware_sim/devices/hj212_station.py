"""An HJ 212 station: measures on its own clock, dials the agent, pushes, and keeps what 9014 has not answered.

What it keeps survives a restart and a lost link, as in the flash of a real data logger; a restart loses the half-built
minute and every timer. Measuring does not care whether anybody listens: a silent or cut-off station makes records
all the same and sends them later, a station without power makes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Mapping

from firmware_sim.devices.minute import MinuteTable
from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.base import Dial, Link
from firmware_sim.links.tcp import Backoff
from firmware_sim.scene import Device
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError, TransportError
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import (
    Packet,
    encode,
    execution_answer,
    format_qn,
    format_time,
    parse_time,
    request_answer,
    upload,
)

#: Records the station has room for: half a day at one a second. The oldest goes first, and the ledger says so.
KEEP_RECORDS = 50_000
#: Looks at the answer timer of the protocol this often (s).
TICK_S = 1.0

_WHOLE = re.compile(rb"##.*?\r\n", re.DOTALL)
_CN = re.compile(rb";CN=([^;]*);")
_TIME = re.compile(rb"DataTime=(\d+)")

#: QnRtn of 9011.
_READY, _WRONG_PW, _WRONG_CN = 1, 3, 8


class Hj212Station:
    """One station. :meth:`run` lives as long as the scene."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self._device = device
        self._faults = faults
        self._world = world
        self._senses = Senses(device, world)
        self._endpoint = Hj212Endpoint(Role.SLAVE, checksum="hj212", keep=KEEP_RECORDS)
        self._records: dict[str, tuple[str, str]] = {}  # QN -> (CN, DataTime), oldest first, until answered
        self._minute = MinuteTable()
        self._set_ms = 0  # correction by the platform's 1012
        self._link: Link | None = None
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(KEEP_RECORDS)
        self._powered = asyncio.Event()

    # -- time ---------------------------------------------------------------------------------------------------
    def _clock_ms(self, now_ms: int) -> int:
        """What the station's own clock says."""
        world = self._world
        return now_ms + self._faults.clock_offset_ms(world.t_s(now_ms), now_ms, world.start_ms) + self._set_ms

    def _now(self) -> tuple[int, float]:
        now_ms = self._world.clock.now_ms()
        return now_ms, self._world.t_s(now_ms)

    async def _until_s(self, t_s: float) -> None:
        await asyncio.sleep(max(0.0, t_s - self._now()[1]))

    # -- life ---------------------------------------------------------------------------------------------------
    async def run(self, dial: Dial) -> None:
        self._powered.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._power(), name=f"{self.id} power")
            tasks.create_task(self._measure(), name=f"{self.id} measure")
            tasks.create_task(self._repeat(), name=f"{self.id} repeat")
            tasks.create_task(self._connect(dial), name=f"{self.id} link")

    async def _power(self) -> None:
        while True:
            now_ms, t_s = self._now()
            if self._faults.off(t_s, now_ms):
                self._powered.clear()
                self._minute = MinuteTable()
                await self._drop_link()
            else:
                self._powered.set()
            change_s = self._faults.next_change_s(t_s)
            if change_s is None:
                return
            await self._until_s(change_s)

    async def _measure(self) -> None:
        """A record each interval of the scene's time: the values depend on the second, not on when we woke up."""
        interval_s = self._device.interval_s
        number = max(1, math.ceil(self._now()[1] / interval_s))
        while True:
            due_s = number * interval_s
            await self._until_s(due_s)
            due_ms = self._world.start_ms + round(due_s * 1000)
            if self._powered.is_set():
                self._record(due_s, due_ms)
            # A machine that stood still has records missing, as a station without power has; it does not catch up.
            number = max(number + 1, math.floor(self._now()[1] / interval_s))

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_ms, t_s = self._now()
            if self._link is not None and not self._faults.silent(t_s, now_ms):
                self._endpoint.tick(now_ms)
                self._put(self._endpoint.take_output())

    async def _connect(self, dial: Dial) -> None:
        backoff = Backoff(self._world.seed)
        while True:
            await self._powered.wait()
            try:
                link = await dial()
                if not self._powered.is_set():  # the power went while the call was on its way
                    await link.close()
                    continue
                self._link = link
                backoff.reset()
                self._endpoint.connected(self._now()[0])
                self._put(self._endpoint.take_output())
                await self._talk(link)
            except TransportError:
                pass  # no agent there, or it went away: that is what the back-off is for
            await self._drop_link()
            if self._powered.is_set():
                await asyncio.sleep(backoff.next_s())

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        while not self._outbox.empty():
            self._outbox.get_nowait()
        if link is not None:
            await link.close()

    # -- out ----------------------------------------------------------------------------------------------------
    def _record(self, t_s: float, now_ms: int) -> None:
        own_ms = self._clock_ms(now_ms)
        values: dict[str, str] = {}
        factors: dict[str, Mapping[str, str]] = {}
        numbers: dict[str, float] = {}
        for point in self._senses.type.points:
            binding = point.hj212
            if binding is None or not self._senses.has(point.name):
                continue
            number = self._senses(point.name, t_s) / binding.scale
            decimals = max(0, point.decimals + round(math.log10(abs(binding.scale))))
            flag = self._flag(point.name, t_s)
            text = "" if math.isnan(number) else f"{number:.{decimals}f}"
            values[point.name] = text
            factors[binding.factor] = {binding.suffix: text, "Flag": flag}
            if flag == "N" and text:
                numbers[binding.factor] = float(text)
        self._upload("2011", own_ms, own_ms, values, factors)
        if self._device.minute and (minute := self._minute.add(own_ms, numbers)) is not None:
            averages = {code: parts["Avg"] for code, parts in minute.factors.items()}
            self._upload("2051", minute.begin_ms, own_ms, averages, minute.factors)

    def _flag(self, point: str, t_s: float) -> str:
        for mark in self._device.mark:
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
        device, now_ms = self._device, self._now()[0]
        while format_qn(qn_ms) in self._records:  # a clock that was put back must not reuse the name of an exchange
            qn_ms += 1
        packet = upload(
            cn, device.mn or "", factors, data_time_ms=data_time_ms, qn_ms=qn_ms, st=device.st, pw=device.password
        )
        record = (cn, format_time(data_time_ms))
        self._world.ledger.write("up", self.id, now_ms, cn=cn, dt=record[1], v=values)
        self._records[packet.qn] = record
        dropped = self._endpoint.dropped
        data = self._endpoint.send(packet, now_ms)
        for _ in range(self._endpoint.dropped - dropped):
            lost = self._records.pop(next(iter(self._records)))
            self._world.ledger.write("gave_up", self.id, now_ms, cn=lost[0], dt=lost[1])
        self._put(data)

    def _put(self, data: bytes) -> None:
        """Queue whole frames for the link. Without a link, or with a stalled one, they are let go: the endpoint still
        keeps what matters. So measuring never waits for whoever does not read."""
        if self._link is not None:
            with contextlib.suppress(asyncio.QueueFull):
                for frame in _WHOLE.findall(data):
                    self._outbox.put_nowait(frame)

    async def _write(self, link: Link) -> None:
        while True:
            frame = await self._outbox.get()
            now_ms, t_s = self._now()
            if self._faults.silent(t_s, now_ms):
                continue
            outgoing = self._faults.outgoing(frame, t_s, now_ms)
            if outgoing.delay_s:
                await asyncio.sleep(outgoing.delay_s)
            cn, moment = _CN.search(frame), _TIME.search(frame)
            if cn is not None and moment is not None:
                self._world.ledger.write(
                    "sent", self.id, now_ms, cn=cn[1].decode(), dt=moment[1].decode(), intact=outgoing.intact
                )
            if outgoing.data:
                await link.write(outgoing.data)

    # -- in -----------------------------------------------------------------------------------------------------
    async def _talk(self, link: Link) -> None:
        """Both directions of one connection, until either ends; then raises what ended it, if anything did."""
        both = [
            asyncio.create_task(self._write(link), name=f"{self.id} write"),
            asyncio.create_task(self._listen(link), name=f"{self.id} read"),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
        # asyncio.wait, because awaiting a task we cancelled would be indistinguishable from being cancelled ourselves.
        await asyncio.wait(both)
        for task in both:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _listen(self, link: Link) -> None:
        while data := await link.read():
            now_ms, t_s = self._now()
            if self._faults.silent(t_s, now_ms):
                continue
            for message in self._endpoint.feed(data, now_ms):
                if isinstance(message, RemoteProtocolError):
                    continue  # a station has nobody to tell; the platform repeats
                self._heard(message, now_ms)

    def _heard(self, packet: Packet, now_ms: int) -> None:
        if packet.cn == "9014":
            record = self._records.pop(packet.qn, None)
            if record is not None:
                self._world.ledger.write("ack", self.id, now_ms, cn=record[0], dt=record[1])
            return
        if packet.cn.startswith("9"):
            return
        if packet.pw and packet.pw != self._device.password:
            self._put(encode(request_answer(packet, _WRONG_PW)))
        elif packet.cn == "1011":
            self._put(encode(request_answer(packet, _READY)))
            told = {"SystemTime": format_time(self._clock_ms(now_ms))}
            device = self._device
            self._put(encode(Packet(cn="1011", mn=device.mn or "", st=device.st, qn=packet.qn, flag=4, fields=told)))
            self._put(encode(execution_answer(packet)))
        elif packet.cn == "1012" and (moment_ms := parse_time(packet.fields.get("SystemTime", ""))) is not None:
            self._put(encode(request_answer(packet, _READY)))
            self._set_ms += moment_ms - self._clock_ms(now_ms)
            self._put(encode(execution_answer(packet)))
        else:
            self._put(encode(request_answer(packet, _WRONG_CN)))
