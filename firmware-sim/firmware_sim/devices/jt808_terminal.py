"""A vehicle terminal of JT/T 808: registers once, authenticates on every connection, pushes positions, obeys orders.

``address`` is its number: 12 digits write the header of 2013, 20 digits that of 2019. What no platform has answered is
kept and sent later as blind-zone positions (0704 type 1), in sub-packages where many have gathered. A type whose option
``datum`` says gcj02 shifts what it sends.

Faults of its own: ``no_auth`` (pushes without ever authenticating), ``resend_serial`` (every frame twice, same serial),
``late_ack`` (orders are answered after ``delay_s`` given in the options as ``late_ack_s``, 40 s by default),
``missing_part`` (the second sub-package of a message never leaves, until it is asked for again).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

from firmware_sim.devices.dialing import KEEP_RECORDS, DialingStation
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, RemoteProtocolError
from protocols.jt808 import parameters, platform, position, terminal
from protocols.jt808.body import Body
from protocols.jt808.endpoint import Jt808Endpoint
from protocols.jt808.fields import time_text
from protocols.jt808.frame import Version
from protocols.jt808.gcj02 import to_gcj02
from protocols.jt808.messages import Message, terminal_answer
from protocols.jt808.position import Position

#: Positions in one refill: some 3.5 kB, so it goes in sub-packages.
REFILL = 80
HEARTBEAT_S = 30.0
LATE_ACK_S = 40.0
#: Answers to what was sent live; after the last resend the link is taken for dead.
ANSWER_TIMEOUT_MS = 10_000
_REGISTER_AGAIN = 1


class Jt808Terminal(DialingStation):
    """A restart keeps the code, the parameters and what is not yet answered (flash)."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        super().__init__(device, faults, world)
        self.phone = str(device.address)
        if not self.phone.isdecimal() or len(self.phone) not in (12, 20):
            raise ConfigError(f"device {device.id}: address: a terminal number has 12 digits (2013) or 20 (2019)")
        self.version: Version = "2019" if len(self.phone) == 20 else "2013"
        self._shifted = self.senses.type.options.get("datum") == "gcj02"
        self._endpoint = self._fresh()
        self._code: str | None = None
        self._authenticated = False
        self._kept: deque[Position] = deque()  # measured, not on its way
        self._under_way: dict[int, list[Position]] = {}  # by the serial whose answer confirms them
        self._parameters: dict[int, bytes] = {0x0001: (30).to_bytes(4, "big"), 0x0029: (10).to_bytes(4, "big")}
        self._locked = True
        self._spoke_s = -math.inf
        self._late: list[asyncio.Task[None]] = []

    def _fresh(self) -> Jt808Endpoint:
        return Jt808Endpoint(Role.SLAVE, keep=KEEP_RECORDS, answer_timeout_ms=ANSWER_TIMEOUT_MS)

    # -- a connection -------------------------------------------------------------------------------------------
    def dialled(self, now_ms: int) -> None:
        self._endpoint = self._fresh()  # serials begin anew, half frames are void
        self._authenticated = False
        self._requeue()
        if self._faulty("no_auth"):
            return
        self._log_in()

    def _requeue(self) -> None:
        """What was on its way and got no answer is still to be sent, oldest first."""
        back = [one for positions in self._under_way.values() for one in positions]
        self._under_way.clear()
        self._kept.extendleft(reversed(back))

    def _log_in(self) -> None:
        if self._code is None:
            self._say(terminal.Register(34, 100, "SIM", "CB-1", self.phone[-7:], 2, "皖A" + self.phone[-5:]))
        elif self.version == "2019":
            self._say(terminal.Authenticate(self._code, "86" + self.phone[-13:], "citybrain-sim"))
        else:
            self._say(terminal.Authenticate(self._code))

    def tick(self, now_ms: int) -> None:
        self._endpoint.tick(now_ms)
        self._put_all(self._endpoint.take_output())
        if self._endpoint.given_up:
            # Nobody answered through all resends: the link is dead, whatever TCP says.
            self._endpoint.given_up.clear()
            task = asyncio.get_running_loop().create_task(self.hang_up())
            self._late.append(task)
        elif self._authenticated and self.now()[1] - self._spoke_s >= HEARTBEAT_S:
            self._say(terminal.Heartbeat())
        self._late = [task for task in self._late if not task.done()]

    # -- out ----------------------------------------------------------------------------------------------------
    def record(self, t_s: float, now_ms: int) -> None:
        found = self._position(t_s, self.clock_ms(now_ms))
        self.world.ledger.write("up", self.id, now_ms, cn="0200", dt=_named(found), v=self._values(t_s))
        self._kept.append(found)
        while len(self._kept) > KEEP_RECORDS:
            lost = self._kept.popleft()
            self.world.ledger.write("gave_up", self.id, now_ms, cn="0200", dt=_named(lost))
        if self.connected and (self._authenticated or self._faulty("no_auth")):
            self._send_kept()

    def _values(self, t_s: float) -> dict[str, float]:
        points = [point.name for point in self.senses.type.points if self.senses.has(point.name)]
        return {name: self.senses(name, t_s) for name in points}

    def _position(self, t_s: float, own_ms: int) -> Position:
        def sense(name: str, otherwise: float) -> float:
            value = self.senses(name, t_s)
            return otherwise if math.isnan(value) else value

        lon, lat = self.senses("lon", t_s), self.senses("lat", t_s)
        fixed = not (math.isnan(lon) or math.isnan(lat))
        if not fixed:
            lon, lat = sense("lon", 0.0), sense("lat", 0.0)
        elif self._shifted:
            lon, lat = to_gcj02(lon, lat)
        status = (sense("ignition", 1.0) >= 0.5) << position.ACC | fixed << position.POSITIONED | self._locked << 12
        alarm = 0
        for name in ("sos", "overspeed", "fatigue", "collision", "rollover"):
            alarm |= (sense(name, 0.0) >= 0.5) << position.ALARM_BITS[name]
        extras = [(0x01, round(sense("mileage", 0.0) * 10).to_bytes(4, "big"))]
        if self.senses.has("fuel"):
            extras.append((0x02, round(sense("fuel", 0.0) * 10).to_bytes(2, "big")))
        extras += [
            (0x30, bytes((round(sense("signal_strength", 24)),))),
            (0x31, bytes((round(sense("satellites", 12)),))),
        ]
        return position.make(
            lat=lat, lon=lon, time_ms=own_ms, speed_kmh=max(0.0, sense("speed", 0.0)),
            direction=round(sense("direction", 0.0)) % 360, altitude_m=round(sense("altitude", 30.0)),
            status=status, alarm=alarm, extras=tuple(extras),
        )  # fmt: skip

    def _send_kept(self) -> None:
        """The newest goes live; what gathered while nobody answered goes as a refill of the blind zone."""
        while self._kept:
            if len(self._kept) == 1:
                one = self._kept.popleft()
                self._track(self._say(terminal.PositionReport(one)), [one])
                return
            several = [self._kept.popleft() for _ in range(min(REFILL, len(self._kept) - 1))]
            batch = position.Batch(tuple(several), kind=1)
            self._track(self._say(terminal.BatchReport(batch)), several)

    def _track(self, serial: int, positions: list[Position]) -> None:
        self._under_way[serial] = positions
        while len(self._under_way) > KEEP_RECORDS:
            del self._under_way[next(iter(self._under_way))]

    def _say(self, body: Body, serial: int | None = None) -> int:
        """Queue one message; the serial whose answer will confirm it."""
        message = Message(self.phone, body, serial, self.version)
        data = self._endpoint.send(message, self.now()[0])
        self._spoke_s = self.now()[1]
        self._put_all(data)
        return (self._endpoint.next_serial - 1) & 0xFFFF

    def _put_all(self, data: bytes) -> None:
        frames = [b"\x7e" + piece + b"\x7e" for piece in data.split(b"\x7e") if piece]
        for number, frame in enumerate(frames):
            if number == 1 and len(frames) > 2 and self._faulty("missing_part"):
                continue
            self.put(frame)
            if self._faulty("resend_serial"):
                self.put(frame)

    def _faulty(self, kind: str) -> bool:
        now_ms, t_s = self.now()
        return self.faults.on(kind, t_s, now_ms)

    # -- in -----------------------------------------------------------------------------------------------------
    def heard(self, data: bytes, now_ms: int) -> None:
        for message in self._endpoint.feed(data, now_ms):
            if not isinstance(message, RemoteProtocolError):  # a terminal has nobody to tell
                self._take(message, now_ms)
        self._put_all(self._endpoint.take_output())

    def _take(self, message: Message, now_ms: int) -> None:
        match message.body:
            case platform.RegisterAnswer(result=result, auth_code=code):
                if result == 0 and code:
                    self._code = code
                    self._log_in()
            case platform.PlatformAnswer(ack_sn=serial, ack_id=0x0102, result=result):
                if result == 0:
                    self._authenticated = True
                    self._send_kept()
                elif result == _REGISTER_AGAIN:
                    self._code = None
                    self._log_in()
            case platform.PlatformAnswer(ack_sn=serial, result=0):
                for one in self._under_way.pop(serial, ()):
                    self.world.ledger.write("ack", self.id, now_ms, cn="0200", dt=_named(one))
            case platform.PlatformAnswer() | platform.ResendRequest() | platform.ServerTime():
                pass
            case _:
                self._order(message)

    def _order(self, message: Message) -> None:
        if not self._faulty("late_ack"):
            self._obey(message)
            return
        late_s = float(self.device.options.get("late_ack_s", LATE_ACK_S))

        async def later() -> None:
            await asyncio.sleep(late_s)
            self._obey(message)

        self._late.append(asyncio.get_running_loop().create_task(later()))

    def _obey(self, message: Message) -> None:
        now_ms, t_s = self.now()
        body, serial = message.body, message.ack_serial
        self.world.ledger.write("order", self.id, now_ms, cn=f"{message.msg_id:04X}", dt=str(serial))
        here = self._position(t_s, self.clock_ms(now_ms))
        match body:
            case platform.QueryPosition():
                self._say(terminal.PositionAnswer(serial, here))
            case platform.VehicleControl(flag=flag, items=items):
                self._locked = bool(items[0][1][0] & 1) if items else bool(flag & 1)
                here = self._position(t_s, self.clock_ms(now_ms))
                self._say(terminal.ControlAnswer(serial, here))
            case platform.SetParameters(params=params):
                self._parameters |= {one.id: one.value for one in params}
                self._answer(message, 0)
            case platform.QueryParameters(ids=ids):
                known = [parameters.Parameter(n, self._parameters[n]) for n in ids if n in self._parameters]
                self._say(terminal.ParameterAnswer(serial, tuple(known)))
            case platform.QueryAllParameters():
                every = tuple(parameters.Parameter(n, value) for n, value in self._parameters.items())
                self._say(terminal.ParameterAnswer(serial, every))
            case platform.TerminalControl(command=4):
                self._answer(message, 0)
                self._late.append(asyncio.get_running_loop().create_task(self._restart()))
            case platform.Text() | platform.Follow() | platform.ConfirmAlarm() | platform.LinkCheck():
                self._answer(message, 0)
            case _:
                self._answer(message, terminal.UNSUPPORTED)

    def _answer(self, message: Message, result: int) -> None:
        self._say(terminal_answer(message, result).body)

    async def _restart(self) -> None:
        await asyncio.sleep(1.0)  # the answer leaves first
        await self.hang_up()

    def sent(self, frame: bytes, now_ms: int, *, intact: bool) -> None:
        found = Jt808Endpoint(Role.MASTER).feed(frame, 0)
        for one in found:
            body = one.body if isinstance(one, Message) else None
            if isinstance(body, terminal.PositionReport):
                self.world.ledger.write("sent", self.id, now_ms, cn="0200", dt=_named(body.position), intact=intact)


def _named(found: Position) -> str:
    return time_text(found.time) or found.time.hex()
