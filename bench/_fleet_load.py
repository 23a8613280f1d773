"""Light simulated vehicles and dust stations for bench/fleet.py: real frames and endpoints, no more than that.

Each keeps what is not answered and sends it again; each writes down what was acknowledged, by device and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from protocols.core.endpoint import Role
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import Packet, upload
from protocols.jt808 import platform, terminal
from protocols.jt808.endpoint import Jt808Endpoint
from protocols.jt808.messages import Message
from protocols.jt808.position import make

#: A tenth of a second: the granularity in which devices take their turn.
SLOTS_PER_S = 10
RESEND_MS = 30_000


@dataclass
class Tally:
    """What the simulated side saw."""

    sent: int = 0
    acked: list[tuple[str, int]] = field(default_factory=list)  # device, time of the data (ms)
    resent: int = 0
    lost_links: int = 0
    answer_ms: list[float] = field(default_factory=list)


class Device(asyncio.Protocol):
    """One device on one connection."""

    def __init__(self, name: str, tally: Tally, ready: Callable[[], None]) -> None:
        self.name = name
        self.tally = tally
        self.ready = ready
        self.transport: asyncio.Transport | None = None
        self.waiting: dict[str, tuple[int, float]] = {}  # key of the answer -> time of the data, when it was sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.hello()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.tally.lost_links += 1

    def hello(self) -> None:
        self.ready()

    def write(self, data: bytes) -> None:
        if self.transport is not None and data:
            self.transport.write(data)

    def confirmed(self, key: str) -> None:
        found = self.waiting.pop(key, None)
        if found is not None:
            self.tally.acked.append((self.name, found[0]))
            self.tally.answer_ms.append((asyncio.get_running_loop().time() - found[1]) * 1000)

    def push(self, now_ms: int) -> None:
        raise NotImplementedError

    def resend(self, loop_ms: int) -> None:
        raise NotImplementedError


class Vehicle(Device):
    """Registers, authenticates, then a position each time it is asked to."""

    def __init__(self, name: str, phone: str, lat: float, tally: Tally, ready: Callable[[], None]) -> None:
        super().__init__(name, tally, ready)
        self.phone = phone
        self.lat = lat
        self.endpoint = Jt808Endpoint(Role.SLAVE, keep=64, answer_timeout_ms=RESEND_MS)
        self.authenticated = False

    def hello(self) -> None:
        self.say(terminal.Register(34, 100, "SIM", "CB-1", self.phone[-7:], 2, "皖A" + self.phone[-5:]))

    def say(self, body: object) -> int:
        loop_ms = round(asyncio.get_running_loop().time() * 1000)
        self.write(self.endpoint.send(Message(self.phone, body), loop_ms))  # type: ignore[arg-type]
        return (self.endpoint.next_serial - 1) & 0xFFFF

    def data_received(self, data: bytes) -> None:
        for one in self.endpoint.feed(data, 0):
            body = one.body if isinstance(one, Message) else None
            if isinstance(body, platform.RegisterAnswer) and body.result == 0:
                self.say(terminal.Authenticate(body.auth_code))
            elif isinstance(body, platform.PlatformAnswer) and body.result == 0:
                if body.ack_id == 0x0102 and not self.authenticated:
                    self.authenticated = True
                    self.ready()
                else:
                    self.confirmed(str(body.ack_sn))

    def push(self, now_ms: int) -> None:
        if not self.authenticated or self.transport is None:
            return
        self.lat += 0.0009  # 36 km/h
        data_ms = now_ms // 1000 * 1000
        mileage = int(self.lat * 1e6).to_bytes(4, "big")
        here = make(
            lat=self.lat, lon=117.2, time_ms=data_ms, speed_kmh=36.0, direction=0, altitude_m=30,
            extras=((0x01, mileage), (0x30, b"\x18"), (0x31, b"\x0c")),
        )  # fmt: skip
        serial = self.say(terminal.PositionReport(here))
        self.waiting[str(serial)] = (data_ms, asyncio.get_running_loop().time())
        self.tally.sent += 1

    def resend(self, loop_ms: int) -> None:
        due = self.endpoint.deadline()
        if due is not None and due <= loop_ms:
            self.endpoint.tick(loop_ms)
            again = self.endpoint.take_output()
            self.tally.resent += bool(again)
            self.write(again)


class Dust(Device):
    """A dust station: one upload each time it is asked to."""

    def __init__(self, name: str, mn: str, number: int, tally: Tally, ready: Callable[[], None]) -> None:
        super().__init__(name, tally, ready)
        self.mn = mn
        self.number = number
        self.endpoint = Hj212Endpoint(Role.SLAVE, checksum="hj212", keep=64, answer_timeout_ms=RESEND_MS)

    def data_received(self, data: bytes) -> None:
        for one in self.endpoint.feed(data, 0):
            if isinstance(one, Packet) and one.cn == "9014":
                self.confirmed(one.qn)

    def push(self, now_ms: int) -> None:
        if self.transport is None:
            return
        self.number += 1
        data_ms = now_ms // 1000 * 1000
        pm10 = 40 + self.number * 7 % 60
        factors = {
            "a34002": {"Rtd": f"{pm10}.0", "Flag": "N"},
            "a34004": {"Rtd": f"{pm10 // 2}.0", "Flag": "N"},
            "a01001": {"Rtd": "21.5", "Flag": "N"},
            "a01002": {"Rtd": "55.0", "Flag": "N"},
            "a01007": {"Rtd": f"{self.number % 5}.2", "Flag": "N"},
        }
        packet = upload("2011", self.mn, factors, data_time_ms=data_ms, qn_ms=now_ms)
        loop_s = asyncio.get_running_loop().time()
        self.waiting[packet.qn] = (data_ms, loop_s)
        self.write(self.endpoint.send(packet, round(loop_s * 1000)))
        self.tally.sent += 1

    def resend(self, loop_ms: int) -> None:
        due = self.endpoint.deadline()
        if due is not None and due <= loop_ms:
            self.endpoint.tick(loop_ms)
            again = self.endpoint.take_output()
            self.tally.resent += bool(again)
            self.write(again)
