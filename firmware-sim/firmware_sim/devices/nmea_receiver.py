"""A GNSS receiver or weather station that talks NMEA 0183: a burst of sentences each second, on a TCP port.

What it says follows its type's keys: a receiver RMC, GGA, GSA, GSV and ZDA, a weather station MWV and XDR. ``options``:
``talker`` (GN), ``baud`` of the line behind the serial server is nobody's business here.

Faults of its own: ``no_fix`` (status V, empty fields), ``week_rollover`` (dates 1024 weeks back), ``no_checksum``,
``cut_line`` (a sentence ends in the middle and the next one begins).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import UTC, datetime

from firmware_sim.devices.build import faults_of
from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.links.base import Link
from firmware_sim.links.tcp import TcpListener
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.errors import ConfigError, TransportError
from protocols.nmea_beidou.gnss import KNOT_KMH, ROLL_OVER
from protocols.nmea_beidou.sentence import Sentence, build


def angle(degrees: float, width: int, letters: str) -> tuple[str, str]:
    """ddmm.mmmmm and the hemisphere."""
    hemisphere = letters[0] if degrees >= 0 else letters[1]
    minutes = round(abs(degrees) * 60, 5)
    return f"{int(minutes // 60):0{width}d}{minutes % 60:08.5f}", hemisphere


class NmeaReceiver:
    """One instrument."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.faults = faults
        self._device = device
        self._world = world
        self._senses = Senses(device, world)
        self._talker = str(device.options.get("talker", "GN"))
        self._weather = any(p.value is not None and p.value.key.startswith("wind.") for p in self._senses.type.points)

    async def speak(self, link: Link) -> None:
        """Talk on that link, a burst each interval, until it ends."""
        interval_s = self._device.interval_s
        with contextlib.suppress(TransportError):
            while True:
                t_s = self._world.t_s(self._world.clock.now_ms())
                due_s = math.floor(t_s / interval_s + 1) * interval_s
                await asyncio.sleep(max(0.0, due_s - t_s))
                for line in self.burst(due_s, self._world.start_ms + round(due_s * 1000)):
                    await link.write(line)

    def burst(self, t_s: float, now_ms: int) -> list[bytes]:
        """The lines of one moment, as they leave; faults done."""
        if self.faults.off(t_s, now_ms) or self.faults.silent(t_s, now_ms):
            return []
        sentences = self._weather_said(t_s) if self._weather else self._fix_said(t_s, now_ms)
        out: list[bytes] = []
        for number, sentence in enumerate(sentences):
            line = build(sentence)
            if self.faults.on("no_checksum", t_s, now_ms):
                line = line[: line.rfind(b"*")] + b"\r\n"
            if number == 1 and self.faults.on("cut_line", t_s, now_ms):
                line = line[: len(line) // 2]
            going = self.faults.outgoing(line, t_s, now_ms)
            if going.data:
                out.append(going.data)
        values = {p.name: self._senses(p.name, t_s) for p in self._senses.type.points if self._senses.has(p.name)}
        self._world.ledger.write("told", self.id, now_ms, cn="nmea", dt=str(now_ms), v=values)
        return out

    def _sense(self, name: str, otherwise: float) -> float:
        value = self._senses(name, self._t_s)
        return otherwise if math.isnan(value) else value

    def _fix_said(self, t_s: float, now_ms: int) -> list[Sentence]:
        self._t_s = t_s
        offset_ms = self.faults.clock_offset_ms(t_s, now_ms, self._world.start_ms)
        moment = datetime.fromtimestamp((now_ms + offset_ms) / 1000, UTC)
        if self.faults.on("week_rollover", t_s, now_ms):
            moment -= ROLL_OVER
        time, day = f"{moment:%H%M%S}.{moment.microsecond // 10_000:02d}", f"{moment:%d%m%y}"
        lat, lon = self._senses("lat", t_s), self._senses("lon", t_s)
        fixed = not (math.isnan(lat) or math.isnan(lon)) and not self.faults.on("no_fix", t_s, now_ms)
        talker = self._talker
        if not fixed:
            return [
                Sentence(talker, "RMC", (time, "V", *[""] * 6, day, "", "", "N", "V")),
                Sentence(talker, "GGA", (time, "", "", "", "", "0", "00", "99.99", *[""] * 6)),
                Sentence(talker, "GSA", ("A", "1", *[""] * 12, "99.99", "99.99", "99.99", "4")),
            ]
        place = (*angle(lat, 2, "NS"), *angle(lon, 3, "EW"))
        knots = f"{self._sense('speed', 0.0) / KNOT_KMH:.2f}"
        course = f"{self._sense('course', 0.0) % 360:.1f}"
        used, hdop = round(self._sense("satellites", 12)), self._sense("hdop", 0.8)
        altitude = f"{self._sense('altitude', 30.0):.1f}"
        quality = f"{round(self._sense('fix_quality', 1.0))}"
        return [
            Sentence(talker, "RMC", (time, "A", *place, knots, course, day, "", "", "A", "V")),
            Sentence(
                talker, "GGA", (time, *place, quality, f"{used:02d}", f"{hdop:.2f}", altitude, "M", "-3.1", "M", "", "")
            ),
            Sentence(talker, "GSA", ("A", "3", "19", "22", "35", "38", *[""] * 8, "1.5", f"{hdop:.2f}", "1.3", "4")),
            Sentence("GB", "GSV", ("1", "1", "02", "19", "45", "120", "42", "22", "", "", "", "1")),
            Sentence(talker, "ZDA", (time, f"{moment:%d}", f"{moment:%m}", f"{moment:%Y}", "00", "00")),
        ]

    def _weather_said(self, t_s: float) -> list[Sentence]:
        self._t_s = t_s
        wind = (f"{self._sense('wind_dir', 0.0) % 360:.1f}", "T", f"{self._sense('wind_speed', 0.0):.2f}", "M", "A")
        groups: list[str] = []
        for name, kind, unit, factor in (
            ("temperature", "C", "C", 1.0), ("humidity", "H", "P", 1.0), ("pressure", "P", "B", 0.001),
        ):  # fmt: skip
            value = self._senses(name, t_s)
            if not math.isnan(value):
                groups += [kind, f"{value * factor:.4f}", unit, name.upper()]
        return [Sentence("WI", "MWV", wind), *([Sentence("WI", "XDR", tuple(groups))] if groups else [])]


class NmeaBus:
    """The service of kind ``nmea``: everybody who connects to the port hears the receiver."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        devices = scene.devices_on(bus.id)
        if len(devices) != 1:
            raise ConfigError(f"bus {bus.id}: one receiver talks on a line, not {len(devices)}")
        self._receiver = NmeaReceiver(devices[0], faults_of(devices[0], bus.kind, world), world)
        self._bus = bus
        self._listener = TcpListener(bus.listen or "", self._receiver.speak)

    async def open(self) -> None:
        await self._listener.resume()

    def describe(self) -> list[str]:
        return [f"{self._bus.id}: NMEA 0183 of {self._receiver.id} on tcp {self._listener.address}"]

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()  # the listener serves until closed

    async def close(self) -> None:
        await self._listener.pause()
