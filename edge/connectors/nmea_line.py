"""A line of NMEA 0183: a GNSS receiver or a weather station talks, we listen.

A receiver says one moment in several sentences; they are gathered and handed on together. A place is handed on only
with a fix, as a pair from one sentence. The receiver's time is believed where it has a fix and the gateway's clock
agrees within the catalogue's limit; how far they are apart is a reading of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Link, LinkFactory, Sink
from edge.connectors.device_time import TOLERANCE_MS
from edge.connectors.fleet_config import NmeaConfig
from edge.connectors.health import Health, reject
from edge.connectors.station_server import News
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, RemoteProtocolError, TransportError
from protocols.core.model import Quality, Sweep
from protocols.devices import load
from protocols.devices.values import reading
from protocols.nmea_beidou import beidou, gnss
from protocols.nmea_beidou.endpoint import NmeaEndpoint
from protocols.nmea_beidou.sentence import Sentence

#: A moment whose last sentence came is handed on after this much silence.
QUIET_S = 0.25


def said_by(sentence: Sentence) -> dict[str, float]:
    """What one sentence says, by the keys of device types; NaN is "no value"."""
    said = gnss.attributes(sentence)
    number = gnss.number
    match sentence.type[:3]:
        case "RMC":
            course = {"course": number(said.get("cog"))}
            return _place(sentence, said) | {"speed": number(said.get("spd")) * gnss.KNOT_KMH} | course
        case "GGA":
            return _place(sentence, said) | {
                "quality": number(said.get("quality")),
                "satellites": number(said.get("numSV")),
                "hdop": number(said.get("HDOP")),
                "altitude": number(said.get("alt")) if gnss.has_fix(sentence, said) else math.nan,
            }
        case "GLL":
            return _place(sentence, said)
        case "VTG":
            return {"speed": number(said.get("sogk")), "course": number(said.get("cogt"))}
        case "MWV":
            valid = said.get("status") == "A"
            factor = gnss.WIND_UNITS.get(str(said.get("speedu")), math.nan)
            return {
                "wind.angle": number(said.get("angle")) if valid else math.nan,
                "wind.speed": number(said.get("speed")) * factor if valid else math.nan,
            }
        case "XDR":
            out: dict[str, float] = {}
            for one in gnss.transducers(sentence):
                value = _float(one.value)
                out.setdefault(f"xdr.{one.kind}", value)  # the first of its kind, and each by its name
                out[f"xdr.{one.kind}.{one.name}"] = value
            return out
    return {}


def _place(sentence: Sentence, said: Mapping[str, Any]) -> dict[str, float]:
    fixed = bool(gnss.has_fix(sentence, said))
    place = gnss.place(sentence, said) if fixed else None
    lat, lon = (place.lat, place.lon) if place is not None else (math.nan, math.nan)
    return {"lat": lat, "lon": lon, "fix": float(fixed)}


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


class NmeaLine:
    """The connector of kind ``nmea``."""

    def __init__(self, config: NmeaConfig, clock: Clock, open_link: LinkFactory) -> None:
        self.id = config.id
        (device,) = config.device
        self._device = device.id
        self._config = config
        self._clock = clock
        self._open_link = open_link
        self._points = [point for point in load(device.type).points if point.value is not None]
        self._health = Health(device.id, lost_after=1)
        self._news = News()
        self._gathered: dict[str, float] = {}
        self._began_ms = 0  # when the first sentence of the moment came
        self._moment = ""  # time field of the sentences that are gathered
        self._utc_ms: int | None = None
        self._handed_s = -math.inf

    async def run(self, sink: Sink) -> None:
        try:
            link = await self._open_link()
        except TransportError as error:
            self._health.gone(sink, str(error))
            raise
        self._gathered, self._utc_ms = {}, None
        try:
            await self._listen(link, sink)
        finally:
            await link.close()

    async def _listen(self, link: Link, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        endpoint = NmeaEndpoint(Role.MASTER, bare=self._config.bare)
        heard_s = loop.time()
        while True:
            silent_at_s = heard_s + self._config.silent_s
            if loop.time() >= silent_at_s:
                self._health.gone(sink, f"no sentence for {self._config.silent_s:g} s")
                silent_at_s = math.inf
            deadline_ms = endpoint.deadline()
            wake_s = min(
                silent_at_s,
                heard_s + QUIET_S if self._gathered else math.inf,
                math.inf if deadline_ms is None else deadline_ms / 1000,
            )
            try:
                async with asyncio.timeout_at(max(wake_s, loop.time()) if wake_s < math.inf else None):
                    data = await link.read()
            except TimeoutError:
                found = endpoint.tick(round(loop.time() * 1000))
                if self._gathered and loop.time() >= heard_s + QUIET_S:
                    self._hand_on(sink)
            else:
                if not data:
                    raise LinkDown(f"{self.id}: the line was closed")
                found = endpoint.feed(data, round(loop.time() * 1000))
            for one in found:
                if isinstance(one, RemoteProtocolError):
                    reject(sink, self._device, one)
                else:
                    heard_s = loop.time()
                    self._health.answered(sink)
                    self._take(one, sink)

    def _take(self, sentence: Sentence, sink: Sink) -> None:
        if isinstance(beidou.read(sentence), beidou.ShortMessage):
            sink.count("beidou_messages", connector=self.id)
            return
        clock = gnss.clock(sentence)
        if clock is not None and clock.of_day_ms is not None:
            if self._gathered and str(clock.of_day_ms) != self._moment:
                self._hand_on(sink)
            self._moment = str(clock.of_day_ms)
            if clock.utc_ms is not None:
                self._utc_ms = self._near(clock.utc_ms, sink)
        found = said_by(sentence)
        if not found:
            return
        if not self._gathered:
            self._began_ms = self._clock.now_ms()
        if math.isnan(found.get("lat", 0.0)) and not math.isnan(self._gathered.get("lat", math.nan)):
            # Another sentence of this moment has the place already (GLL and GGA of one receiver may differ in what
            # they call a fix).
            found = {key: value for key, value in found.items() if key not in ("lat", "lon", "fix")}
        self._gathered |= {key: value for key, value in found.items() if not math.isnan(value)} | {
            key: value for key, value in found.items() if math.isnan(value) and key not in self._gathered
        }

    def _near(self, utc_ms: int, sink: Sink) -> int:
        now_ms = self._clock.now_ms()
        near_ms, turns = gnss.unroll(utc_ms, now_ms)
        if turns and self._news.fresh("dev.clock_skew", "week_rollover", "", now_ms):
            text = f"the receiver's date is {abs(turns)} x 1024 weeks {'behind' if turns > 0 else 'ahead'}; put right"
            sink.report("dev.clock_skew", self._device, "week_rollover", text)
        return near_ms

    def _hand_on(self, sink: Sink) -> None:
        gathered, self._gathered = self._gathered, {}
        utc_ms, self._utc_ms = self._utc_ms, None
        loop_s = asyncio.get_running_loop().time()
        if loop_s - self._handed_s < self._config.every_s - QUIET_S - 0.05:
            sink.count("moments_skipped", connector=self.id)
            return
        self._handed_s = loop_s
        now_ms = self._clock.now_ms()
        told_ms = utc_ms if gathered.get("fix") else None  # without a fix it is the receiver's own quartz
        source_ms = now_ms
        if told_ms is not None:
            apart_ms = told_ms - self._began_ms
            gathered["clock_offset"] = apart_ms / 1000
            if abs(apart_ms) <= TOLERANCE_MS:
                source_ms = told_ms
                self._news.over("dev.clock_skew", "", "week_rollover")
            elif self._news.fresh("dev.clock_skew", "offset", "", now_ms):
                text = f"receiver and gateway are {abs(apart_ms) / 1000:.0f} s apart; the gateway's time is used"
                sink.report("dev.clock_skew", self._device, "offset", text)
        points = [point for point in self._points if point.value is not None and point.value.key in gathered]
        if not points:
            sink.count("sentences_unmapped", connector=self.id)
            return
        values = np.empty(len(points))
        for at, point in enumerate(points):
            raw = gathered[point.value.key] if point.value is not None else math.nan
            value, _ = reading(point, None if math.isnan(raw) else raw)
            values[at] = value if math.isnan(value) else round(value, point.decimals)
        quality = np.where(np.isnan(values), np.uint8(Quality.MISSING), np.uint8(Quality.GOOD))
        sink.sweep(Sweep(self._device, source_ms, now_ms, tuple(p.name for p in points), values, quality))
