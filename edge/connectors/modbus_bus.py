"""Modbus devices on one serial line, behind a transparent serial server, or behind one TCP address.

Each device has its own period and its own plan of blocks; the line serves whoever is due. A device that misses three
polls is reported lost and asked once per ``slow_poll_s`` until it answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.config import TCP_PREFIX, ModbusDevice, ModbusRtuConfig, ModbusTcpConfig
from edge.connectors.line import Line
from edge.connectors.polled_bus import NoAnswer, PolledBus, PolledUnit
from protocols.core.endpoint import Role
from protocols.core.model import Float64s
from protocols.devices import CommandType, Point
from protocols.modbus import points
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.frame import Framing
from protocols.modbus.messages import (
    ACKNOWLEDGE,
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
    MaskWrite,
    ReadRequest,
    Reply,
    WriteRequest,
)
from protocols.modbus.orders import otherwise, request, target
from protocols.modbus.plan import Block, Plan, block_of
from protocols.modbus.reader import Reader

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
    byte_s: float

    def wait_s(self, block: Block) -> float:
        bits = block.function in (READ_COILS, READ_INPUTS)
        reply = _REPLY_OVERHEAD + (math.ceil(block.count / 8) if bits else 2 * block.count)
        return self.timeout_s + (_REQUEST_BYTES + reply) * self.byte_s


class ModbusUnit(PolledUnit):
    def __init__(self, config: ModbusDevice) -> None:
        super().__init__(config)
        self.number = config.unit
        self.plan = Plan(self.type.points)
        self.targets = {command.name: target(command, self.type) for command in self.type.commands}
        self.told: set[str] = set()  # refused points that were reported
        self._readers: dict[tuple[int, int, int], Reader] = {}

    def reader(self, block: Block) -> Reader:
        """Made once for each block: its index arrays cost more than reading with them."""
        key = (block.function, block.address, block.count)
        if (found := self._readers.get(key)) is None:
            found = self._readers[key] = Reader(block)
        return found


class ModbusBus(PolledBus[ModbusUnit]):
    """The connector of kinds ``modbus-rtu`` and ``modbus-tcp``."""

    def __init__(self, config: ModbusRtuConfig | ModbusTcpConfig, clock: Clock, open_link: LinkFactory) -> None:
        self._framing: Framing
        if isinstance(config, ModbusRtuConfig):
            gap_s: float | None
            self._framing, gap_s, dialled = "rtu", config.gap_s, config.port.startswith(TCP_PREFIX)
            self._timing = Timing(config.timeout_s, config.retries, 11 / config.baud)
        else:
            self._framing, gap_s, dialled = "tcp", 0.0, True
            self._timing = Timing(config.timeout_s, config.retries, 0.0)
        super().__init__(
            config.id,
            clock,
            open_link,
            [ModbusUnit(device) for device in config.device],
            slow_poll_s=config.slow_poll_s,
            gap_s=gap_s,
            byte_s=self._timing.byte_s,
            reopen_when_silent=dialled,
        )

    def endpoint(self) -> ModbusEndpoint:
        return ModbusEndpoint(Role.MASTER, framing=self._framing)

    async def poll(self, unit: ModbusUnit, line: Line, sink: Sink) -> None:
        names: tuple[str, ...] = ()
        columns: list[Float64s] = []
        pending = list(unit.plan.blocks)
        while pending:
            block = pending.pop(0)
            reply = await self._read(unit, block, line, sink)
            self.answered(unit, sink)
            if isinstance(reply, ExceptionReply):
                if reply.code == ILLEGAL_ADDRESS:
                    before = set(unit.plan.blocks)
                    unit.plan.refuse(block)
                    pending = [new for new in unit.plan.blocks if new not in before] + pending
                    self._tell_refused(unit, sink)
                else:
                    self._tell_exception(unit, reply, block, sink)
                continue
            reader = unit.reader(block)
            names += reader.names
            columns.append(reader.values(_words(reply)))
        if columns:
            self.emit_columns(unit, names, columns[0] if len(columns) == 1 else np.concatenate(columns), sink)

    async def read_point(self, unit: ModbusUnit, point: Point, line: Line, sink: Sink) -> float | None:
        block = block_of((point,))
        reply = await self._read(unit, block, line, sink)
        return None if isinstance(reply, ExceptionReply) else points.decode_one(_words(reply), point)

    async def perform(self, unit: ModbusUnit, what: CommandType, command: Command, line: Line, sink: Sink) -> Outcome:
        asked: WriteRequest | MaskWrite | None = request(unit.number, unit.targets[what.name], command.arguments)
        refusal: ExceptionReply | None = None
        while asked is not None:
            reply = await line.ask(asked, self._timing.timeout_s + 64 * self._timing.byte_s, unit.rejecter(sink))
            if isinstance(reply, Reply):
                self.answered(unit, sink)
                return Outcome("done")
            if not isinstance(reply, ExceptionReply):
                raise NoAnswer("no answer to the write")
            self.answered(unit, sink)
            if reply.code in (GATEWAY_NO_PATH, GATEWAY_NO_ANSWER):
                return Outcome("unknown", "no_answer", f"the gateway says: no answer (exception {reply.code})")
            if reply.code == ACKNOWLEDGE:
                return Outcome("done", "takes_long", "accepted; the device needs time for it (exception 5)")
            # "Illegal function" is a no: nothing happened, so the other function may be tried.
            asked = otherwise(asked) if reply.code == ILLEGAL_FUNCTION and refusal is None else None
            refusal = refusal or reply
        code = _EXCEPTION_CODES.get(refusal.code, f"exception_{refusal.code}") if refusal else "refused"
        return Outcome("refused", code, f"unit {unit.number} says exception {refusal.code if refusal else 0}")

    async def _read(self, unit: ModbusUnit, block: Block, line: Line, sink: Sink) -> Reply | ExceptionReply:
        question = ReadRequest(unit.number, block.function, block.address, block.count)
        # A device that did not answer last time gets one try: its silence must not cost the others three.
        tries = 1 if unit.health.misses else 1 + self._timing.retries
        why = "no answer"
        for attempt in range(1, tries + 1):
            reply = await line.ask(question, self._timing.wait_s(block), unit.rejecter(sink))
            if isinstance(reply, ExceptionReply):
                if reply.code in (GATEWAY_NO_PATH, GATEWAY_NO_ANSWER):
                    why = f"the gateway says: device does not answer (exception {reply.code})"
                    continue
                if reply.code == BUSY:
                    why = "busy (exception 6)"
                    continue
            if isinstance(reply, (Reply, ExceptionReply)):
                line.gap.answered(attempt)
                return reply
        raise NoAnswer(why)

    def _tell_refused(self, unit: ModbusUnit, sink: Sink) -> None:
        for name in unit.plan.refused:
            if name not in unit.told:
                unit.told.add(name)
                text = f"unit {unit.number} has no register for {name} (exception 2)"
                sink.report("data.rejected", unit.id, "illegal_range", text, point=name)

    def _tell_exception(self, unit: ModbusUnit, reply: ExceptionReply, block: Block, sink: Sink) -> None:
        text = f"unit {unit.number}: exception {reply.code} to function {block.function} at {block.address}"
        if reply.code == DEVICE_FAILED:
            sink.report("dev.fault", unit.id, "device_failed", text)
        else:
            code = _EXCEPTION_CODES.get(reply.code, f"exception_{reply.code}")
            sink.report("data.rejected", unit.id, code, text)


def _words(reply: Reply) -> Sequence[int]:
    return reply.bits if reply.function in (READ_COILS, READ_INPUTS) else reply.registers
