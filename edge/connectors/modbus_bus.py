"""Modbus devices on one serial line or behind one TCP address.

Each device has its own period and its own plan of blocks; the line serves whoever is due. A device that misses three
polls is reported lost and asked once per ``slow_poll_s`` until it answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge.clock import Clock
from edge.connectors.base import LinkFactory, Sink
from edge.connectors.config import ModbusDevice, ModbusRtuConfig, ModbusTcpConfig
from edge.connectors.health import LOST_AFTER, Health, reject
from edge.connectors.line import Line, Timetable
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, RemoteProtocolError, TransportError
from protocols.core.model import Quality, Sweep
from protocols.devices import DeviceType, load
from protocols.modbus import points
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.frame import Framing
from protocols.modbus.messages import (
    BUSY,
    DEVICE_FAILED,
    GATEWAY_NO_ANSWER,
    GATEWAY_NO_PATH,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    READ_COILS,
    READ_INPUTS,
    ExceptionReply,
    ReadRequest,
    Reply,
)
from protocols.modbus.plan import Block, Plan

_EXCEPTION_CODES = {
    ILLEGAL_FUNCTION: "illegal_function",
    ILLEGAL_ADDRESS: "illegal_range",
    ILLEGAL_VALUE: "illegal_value",
    BUSY: "busy",
}
_REQUEST_BYTES = 8
_REPLY_OVERHEAD = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """``byte_s``: time of one byte on the line (11 bits), 0 on TCP."""

    timeout_s: float
    retries: int
    slow_poll_s: float
    gap_s: float
    byte_s: float

    def wait_s(self, block: Block) -> float:
        bits = block.function in (READ_COILS, READ_INPUTS)
        reply = _REPLY_OVERHEAD + (math.ceil(block.count / 8) if bits else 2 * block.count)
        return self.timeout_s + (_REQUEST_BYTES + reply) * self.byte_s


class _Unit:
    def __init__(self, config: ModbusDevice) -> None:
        self.config = config
        self.type: DeviceType = load(config.type)
        self.plan = Plan(self.type.points)
        self.health = Health(config.id)
        self.told: set[str] = set()  # refused points that were reported


class _NoAnswer(Exception):
    """The device did not answer a block, or a gateway said that it does not."""


class ModbusBus:
    """The connector of kinds ``modbus-rtu`` and ``modbus-tcp``."""

    def __init__(self, config: ModbusRtuConfig | ModbusTcpConfig, clock: Clock, open_link: LinkFactory) -> None:
        self.id = config.id
        self._clock = clock
        self._open_link = open_link
        self._units = [_Unit(device) for device in config.device]
        self._link_failures = 0
        self._framing: Framing
        if isinstance(config, ModbusRtuConfig):
            self._framing = "rtu"
            timing = Timing(config.timeout_s, config.retries, config.slow_poll_s, config.gap_s, 11 / config.baud)
        else:
            self._framing = "tcp"
            timing = Timing(config.timeout_s, config.retries, config.slow_poll_s, 0.0, 0.0)
        self._timing = timing

    async def run(self, sink: Sink) -> None:
        try:
            link = await self._open_link()
        except TransportError as exc:
            self._link_failed(sink, exc)
            raise
        try:
            line = Line(link, ModbusEndpoint(Role.MASTER, framing=self._framing), gap_s=self._timing.gap_s)
            timetable: Timetable[_Unit] = Timetable()
            for unit in self._units:
                timetable.add(unit)

            async def serve(unit: _Unit) -> float:
                await self._poll(unit, line, sink)
                if unit.health.lost:
                    return max(unit.config.poll_s, self._timing.slow_poll_s)
                return unit.config.poll_s

            await timetable.run(serve)
        except TransportError as exc:
            self._link_failed(sink, exc)
            raise
        finally:
            await link.close()

    def _link_failed(self, sink: Sink, exc: TransportError) -> None:
        # A short interruption is the supervisor's business; a link that stays away takes its devices along.
        self._link_failures += 1
        if self._link_failures >= LOST_AFTER:
            for unit in self._units:
                unit.health.gone(sink, str(exc))

    async def _poll(self, unit: _Unit, line: Line, sink: Sink) -> None:
        names: list[str] = []
        values: list[float] = []
        qualities: list[int] = []
        pending = list(unit.plan.blocks)
        while pending:
            block = pending.pop(0)
            try:
                reply = await self._read(unit, block, line, sink)
            except _NoAnswer as exc:
                sink.count("polls_missed", connector=self.id)
                unit.health.missed(sink, str(exc))
                self._all_silent(sink)
                return
            unit.health.answered(sink)
            self._link_failures = 0
            if isinstance(reply, ExceptionReply):
                if reply.code == ILLEGAL_ADDRESS:
                    before = set(unit.plan.blocks)
                    unit.plan.refuse(block)
                    pending = [new for new in unit.plan.blocks if new not in before] + pending
                    self._tell_refused(unit, sink)
                else:
                    self._tell_exception(unit, reply, block, sink)
                continue
            words = reply.bits if block.function in (READ_COILS, READ_INPUTS) else reply.registers
            for point in block.points:
                value = points.decode_one(words[block.words_of(point)], point)
                names.append(point.name)
                values.append(value)
                qualities.append(Quality.MISSING if math.isnan(value) else Quality.GOOD)
        now_ms = self._clock.now_ms()
        if names:
            sink.sweep(
                Sweep(
                    unit.config.id,
                    now_ms,
                    now_ms,
                    tuple(names),
                    np.array(values, dtype=np.float64),
                    np.array(qualities, dtype=np.uint8),
                )
            )

    async def _read(self, unit: _Unit, block: Block, line: Line, sink: Sink) -> Reply | ExceptionReply:
        request = ReadRequest(unit.config.unit, block.function, block.address, block.count)

        def refused(error: RemoteProtocolError) -> None:
            reject(sink, unit.config.id, error)

        # A device that did not answer last time gets one try: its silence must not cost the others three.
        tries = 1 if unit.health.misses else 1 + self._timing.retries
        why = "no answer"
        for _ in range(tries):
            reply = await line.ask(request, self._timing.wait_s(block), refused)
            if isinstance(reply, ExceptionReply):
                if reply.code in (GATEWAY_NO_PATH, GATEWAY_NO_ANSWER):
                    why = f"the gateway says: device does not answer (exception {reply.code})"
                    continue
                if reply.code == BUSY:
                    why = "busy (exception 6)"
                    continue
                return reply
            if isinstance(reply, Reply):
                return reply
        raise _NoAnswer(why)

    def _all_silent(self, sink: Sink) -> None:
        # Half-open TCP connections look like this; on a serial line reopening helps nobody.
        if self._framing == "tcp" and all(unit.health.lost for unit in self._units):
            raise LinkDown(f"{self.id}: nobody behind this address answers any more")

    def _tell_refused(self, unit: _Unit, sink: Sink) -> None:
        for name in unit.plan.refused:
            if name not in unit.told:
                unit.told.add(name)
                text = f"unit {unit.config.unit} has no register for {name} (exception 2)"
                sink.report("data.rejected", unit.config.id, "illegal_range", text, point=name)

    def _tell_exception(self, unit: _Unit, reply: ExceptionReply, block: Block, sink: Sink) -> None:
        text = f"unit {unit.config.unit}: exception {reply.code} to function {block.function} at {block.address}"
        if reply.code == DEVICE_FAILED:
            sink.report("dev.fault", unit.config.id, "device_failed", text)
        else:
            code = _EXCEPTION_CODES.get(reply.code, f"exception_{reply.code}")
            sink.report("data.rejected", unit.config.id, code, text)
