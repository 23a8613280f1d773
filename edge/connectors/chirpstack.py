"""LoRaWAN sensors behind a ChirpStack server: its events become sweeps, orders go into its queue.

The session with the broker is persistent and an event is acknowledged when its readings are on disk, so what comes
while the gateway restarts comes again. Sensors sleep: offline means not heard of for ``silent_s``, and an order is
only "sent" or "received" when the server says so, which may be after the sensor's next uplink.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, Outcome, Sink
from edge.connectors.device_time import judge
from edge.connectors.health import Health, reject
from edge.connectors.industry_config import ChirpstackConfig, ChirpstackDevice
from edge.connectors.mqtt_link import Dial, Message, MqttLink, Session
from edge.connectors.orders import agrees, shown
from protocols.core.errors import LinkDown, LocalProtocolError, RemoteProtocolError
from protocols.core.ids import derived_id
from protocols.core.model import Quality, Sweep
from protocols.devices import CommandType, DeviceType, load
from protocols.devices.values import by_key, reading
from protocols.lorawan_chirpstack import downlink, events, payloads, times
from protocols.lorawan_chirpstack.downlink import Downlink

_STRANGERS = 256
#: Uplinks of a device whose identity is remembered; duplicates come within seconds.
_REMEMBERED = 64
#: A counter this far behind the last is a reset (a device that joined again), not an uplink that was late.
_RESET = 64


@dataclass(slots=True, eq=False)
class _Watch:
    """An order under way: the id we gave it and the point that will show it."""

    id: str
    point: str
    news: asyncio.Queue[events.Event | float] = field(default_factory=lambda: asyncio.Queue(64))

    def tell(self, item: events.Event | float) -> None:
        if not self.news.full():
            self.news.put_nowait(item)


class _Sensor:
    def __init__(self, config: ChirpstackDevice) -> None:
        self.config = config
        self.kind: DeviceType = load(config.type)
        self.points = by_key(self.kind)
        self.health = Health(config.id)
        self.codec = payloads.CODECS.get(self.kind.options.get("payload", ""))
        self.application = ""
        self.f_cnt: int | None = None
        self.seen: OrderedDict[str, None] = OrderedDict()
        self.silence: asyncio.TimerHandle | None = None
        self.watches: list[_Watch] = []

    def repeated(self, name: str) -> bool:
        if name in self.seen:
            return True
        self.seen[name] = None
        while len(self.seen) > _REMEMBERED:
            self.seen.popitem(last=False)
        return False


class Chirpstack:
    """The connector of kind ``chirpstack``."""

    def __init__(self, config: ChirpstackConfig, clock: Clock, dial: Dial) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._dial = dial
        self._sensors = {device.dev_eui: _Sensor(device) for device in config.device}
        self._strangers: OrderedDict[str, None] = OrderedDict()
        self._link: MqttLink | None = None

    async def run(self, sink: Sink) -> None:
        application = self._config.application or "+"
        session = Session(
            client_id=f"citybrain-{self.id}",
            # Servers before 3.11 publish without the level ``event``: device/{eui}/rx.
            subscriptions=[(f"application/{application}/device/+/{rest}", 1) for rest in ("event/+", "+")],
            clean=False,
        )
        link = self._link = await self._dial(session)
        loop = asyncio.get_running_loop()
        for sensor in self._sensors.values():
            if sensor.silence is None:
                self._heard(sensor, sink, loop, alive=False)
        try:
            while True:
                self._take(await link.receive(), link, sink)
        finally:
            self._link = None
            await link.close()

    # -- in

    def _take(self, message: Message, link: MqttLink, sink: Sink) -> None:
        """Every message is acknowledged once: refused ones at once, or they would come for ever."""
        done = _Once(lambda: link.ack(message))
        if message.topic.endswith("/tx"):  # a command of those servers, not an event
            done()
            return
        sensor: _Sensor | None = None
        try:
            address = events.parse_topic(message.topic)
            sensor = self._sensors.get(address.dev_eui)
            if sensor is None:
                self._stranger(address, sink)
                done()
                return
            event = events.parse(message.topic, message.payload)
        except RemoteProtocolError as error:
            if sensor is not None:
                reject(sink, sensor.config.id, error)
            else:
                sink.count("frames_rejected", reason=error.reason)
                sink.report("data.rejected", self.id, error.reason, str(error))
            done()
            return
        sensor.application = event.head.application
        self._event(sensor, event, sink, done)

    def _stranger(self, address: events.Address, sink: Sink) -> None:
        sink.count("strangers", connector=self.id)
        if address.dev_eui not in self._strangers:
            self._strangers[address.dev_eui] = None
            while len(self._strangers) > _STRANGERS:
                self._strangers.popitem(last=False)
            sink.report("data.rejected", self.id, "stranger", f"no device {address.dev_eui} is configured")

    def _event(self, sensor: _Sensor, event: events.Event, sink: Sink, done: Callable[[], None]) -> None:
        name = event.head.deduplication_id
        again = bool(name) and sensor.repeated(f"{event.head.kind}/{name}")
        if again:
            sink.count("repeats", connector=self.id)
        for watch in sensor.watches:
            watch.tell(event)
        loop = asyncio.get_running_loop()
        match event:
            case events.Uplink():
                self._heard(sensor, sink, loop, alive=True)
                if not again:
                    self._count_up(sensor, event, sink)
                self._uplink(sensor, event, sink, done)
            case events.Status():
                self._heard(sensor, sink, loop, alive=True)
                values: dict[str, Any] = {"battery_percent": event.battery_percent, "margin": event.margin}
                self._emit(sensor, {f"status.{key}": value for key, value in values.items()}, event.head, sink, done)
            case events.Join():
                sensor.f_cnt = None
                self._heard(sensor, sink, loop, alive=True)
                done()
            case events.Location():
                if event.misplaced:
                    text = f"latitude {event.latitude:g}, longitude {event.longitude:g}"
                    sink.report("data.rejected", sensor.config.id, "place", text)
                    done()
                    return
                place = {"latitude": event.latitude, "longitude": event.longitude, "altitude": event.altitude}
                self._emit(sensor, {f"location.{key}": value for key, value in place.items()}, event.head, sink, done)
            case events.Log() if not again:
                sink.count("lorawan_logs", code=event.code[:40] or "none")
                if event.level.upper() == "ERROR":
                    text = f"{event.code}: {event.description}"[:200]
                    sink.report("dev.fault", sensor.config.id, event.code.lower()[:40] or "log", text)
                done()
            case _:
                done()

    def _count_up(self, sensor: _Sensor, event: events.Uplink, sink: Sink) -> None:
        last, sensor.f_cnt = sensor.f_cnt, event.f_cnt
        if last is None:
            return
        if event.f_cnt < last - _RESET:
            sink.count("counter_resets", connector=self.id)
        elif event.f_cnt > last + 1:
            sink.count("uplinks_missed", by=event.f_cnt - last - 1, connector=self.id)

    def _uplink(self, sensor: _Sensor, event: events.Uplink, sink: Sink, done: Callable[[], None]) -> None:
        values: dict[str, Any] = {}
        if (best := event.best) is not None:
            values |= {"radio.rssi": best.rssi, "radio.snr": best.snr}
        values["radio.spreading_factor"] = event.spreading_factor
        _flatten(event.object, "object", values)
        if sensor.codec is not None and event.f_port and event.payload:
            try:
                made = sensor.codec(event.f_port, event.payload)
                values |= {f"payload.{key}": value for key, value in made.items()}
            except RemoteProtocolError as error:
                reject(sink, sensor.config.id, error)
        # The third generation names no event: the counter and its time do.
        self._emit(sensor, values, event.head, sink, done, name=f"{event.f_cnt}/{times.to_ms(event.head.time)}")

    def _emit(
        self,
        sensor: _Sensor,
        values: Mapping[str, Any],
        head: events.Head,
        sink: Sink,
        done: Callable[[], None],
        *,
        name: str = "",
    ) -> None:
        """A repeat goes to the sink like the first: it knows whether that one is on disk."""
        now_ms = self._clock.now_ms()
        source_ms, skewed = judge(times.to_ms(head.time), now_ms)
        if skewed:
            text = f"the server says {times.text_of(head.time)}; the gateway's time is used"
            sink.report("dev.clock_skew", sensor.config.id, "offset", text)
        found: dict[str, tuple[float, Quality]] = {}
        for key, points in sensor.points.items():
            if key not in values:
                continue
            raw = values[key]
            for point in points:
                number, quality = reading(point, raw if isinstance(raw, bool | int | float | str) else None)
                if skewed and quality is Quality.GOOD:
                    quality = Quality.SUSPECT
                found[point.name] = (number, quality)
                for watch in sensor.watches:
                    if watch.point == point.name:
                        watch.tell(number)
        if not found:
            done()
            return
        name = head.deduplication_id or (name if head.time is not None else "")
        exchange = f"{self.id}/{head.dev_eui}/{head.kind}/{name}" if name else ""
        sink.sweep(
            Sweep(
                device=sensor.config.id,
                source_ms=source_ms,
                seen_ms=now_ms,
                points=tuple(found),
                values=np.array([number for number, _ in found.values()], dtype=np.float64),
                quality=np.array([quality for _, quality in found.values()], dtype=np.uint8),
                exchange=exchange,
            ),
            done,
        )

    def _heard(self, sensor: _Sensor, sink: Sink, loop: asyncio.AbstractEventLoop, *, alive: bool) -> None:
        if sensor.silence is not None:
            sensor.silence.cancel()
        if alive:
            sensor.health.answered(sink)
        text = f"nothing heard for {sensor.config.silent_s:g} s"
        sensor.silence = loop.call_later(sensor.config.silent_s, sensor.health.gone, sink, text)

    # -- out

    async def command(self, command: Command) -> Outcome:
        """Queue a downlink and follow it: sent (txack), received (ack), shown (the next uplink)."""
        sensor = next((one for one in self._sensors.values() if one.config.id == command.device), None)
        link = self._link
        if link is None:
            raise LinkDown(f"{self.id}: not connected to the broker")
        kind = sensor.kind.command(command.name) if sensor is not None else None
        if sensor is None or kind is None:
            return Outcome("refused", "unknown_command", command.name)
        application = sensor.application or self._config.application
        if not application:
            return Outcome("refused", "no_application", "nothing heard of the device yet: its application is not known")
        try:
            order = _order(kind, command, application, sensor.config.dev_eui)
            data = downlink.encode(order)
        except LocalProtocolError as error:
            return Outcome("refused", error.reason, str(error))
        watch = _Watch(order.id, kind.read_back)
        sensor.watches.append(watch)
        try:
            link.publish(order.topic, data, qos=1)
            return await self._follow(sensor, watch, kind, command)
        finally:
            sensor.watches.remove(watch)

    async def _follow(self, sensor: _Sensor, watch: _Watch, kind: CommandType, command: Command) -> Outcome:
        argument = command.arguments.get(kind.argument[0].name) if kind.argument else None
        expected = shown(kind, argument)
        state, last = "queued", None
        try:
            async with asyncio.timeout(self._config.downlink_s):
                while True:
                    item = await watch.news.get()
                    if isinstance(item, float):
                        last = item
                        if agrees(expected, item, sensor.kind.point(watch.point).decimals):
                            return Outcome("done", read_back={watch.point: item})
                    elif isinstance(item, events.TxAck) and item.queue_item_id == watch.id:
                        state = "sent"
                    elif isinstance(item, events.Ack) and item.queue_item_id == watch.id:
                        if not item.acknowledged:
                            return Outcome("unknown", "no_ack", "it was sent and the device did not answer")
                        state = "received"
                        if not watch.point:
                            return Outcome("done")
        except TimeoutError:
            if last is not None and state == "received":
                return Outcome("failed", "read_back", f"{watch.point} is {last:g}", {watch.point: last})
            words = {
                "queued": "in the server's queue: the device hears it after its next uplink",
                "sent": "a gateway has sent it; nobody knows whether the device heard it",
                "received": "the device has it; its next uplink will show it",
            }
            return Outcome("unknown", state, words[state])


class _Once:
    """A callback that works the first time: a message has one acknowledgement."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


def _flatten(found: Mapping[str, Any], prefix: str, out: dict[str, Any], depth: int = 8) -> None:
    """``{"t": {"in": 21}}`` as ``object.t.in = 21``."""
    for key, value in found.items():
        name = f"{prefix}.{key}"
        if isinstance(value, Mapping):
            if depth:
                _flatten(value, name, out, depth - 1)
        else:
            out[name] = value


_PLACE = re.compile(r"\{(\w+):(u8|u16|i16)\}")
_SIZES = {"u8": (1, False), "u16": (2, False), "i16": (2, True)}


def _order(kind: CommandType, command: Command, application: str, dev_eui: str) -> Downlink:
    """``key = "10:01{percent:u8}"``: port, bytes in hex, arguments as big-endian integers. Raises
    LocalProtocolError."""
    port, colon, template = kind.key.partition(":")

    def number(found: re.Match[str]) -> str:
        size, signed = _SIZES[found[2]]
        value = command.arguments.get(found[1])
        if not isinstance(value, int | float) or value != int(value):
            raise LocalProtocolError(f"{found[1]}: {value!r} is no whole number", reason="argument")
        try:
            return int(value).to_bytes(size, "big", signed=signed).hex()
        except OverflowError as error:
            raise LocalProtocolError(f"{found[1]}: {value} is no {found[2]}", reason="argument") from error

    try:
        if not colon:
            raise ValueError("no port")
        payload = bytes.fromhex(_PLACE.sub(number, template))
        # The server takes a UUID; the same order gets the same one, so a repeat can be seen in its queue.
        return Downlink(application, dev_eui, int(port), payload, id=derived_id("lorawan", command.id, dev_eui))
    except ValueError as error:
        raise LocalProtocolError(f"key {kind.key!r} of {kind.name}: {error}", reason="key") from error
