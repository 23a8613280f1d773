"""Both ends of a Modbus line.

A master has one request open and believes only its answer: another unit, another function, a wrong echo or a wrong
byte count is not ours, is reported, and the waiting goes on until the caller's time-out. An adapter that echoes is
noticed at the first read; from then on the echo of a write is not taken for its confirmation.
"""

from __future__ import annotations

from dataclasses import replace

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.modbus.frame import Adu, Found, Framing, RtuScanner, Side, TcpScanner, build, scanner
from protocols.modbus.messages import (
    MASK_WRITE,
    READ_COILS,
    READ_INPUTS,
    WRITE_COIL,
    WRITE_REGISTER,
    Answer,
    ExceptionReply,
    Identification,
    MaskWrite,
    Message,
    ReadRequest,
    ReadWrite,
    Reply,
    Request,
    WriteRequest,
    decode_reply,
    decode_request,
    encode_pdu,
)

#: Silence after which a half frame is over. RTU: 3.5 characters are 4 ms at 9600 baud, adapters and kernel add some
#: tens. ASCII: one second between characters (serial line guide 1.02, 2.5.2.2).
SILENCE_MS: dict[Framing, int] = {"rtu": 50, "ascii": 1000, "tcp": 1000}
#: Relay boxes and sensors answer to these as "whoever is there", with their own number.
ANY_UNIT = (0xFE, 0xFF)


class ModbusEndpoint:
    """``listen``: take frames of both directions as they come (captures; RTU and ASCII replies are told from requests
    by their length). ``lenient``: RTU CRC bytes may be swapped."""

    def __init__(self, role: Role, *, framing: Framing = "rtu", listen: bool = False, lenient: bool = False) -> None:
        self.role = role
        self._framing: Framing = framing
        self._listen = listen
        side: Side = "any" if listen else ("reply" if role is Role.MASTER else "request")
        self._scanner = scanner(framing, side, lenient=lenient)
        self._asked: Request | None = None
        self._asked_pdu = b""
        self._transaction = 0
        self._silence_at_ms: int | None = None

    @property
    def echoes(self) -> int:
        """Own requests that an adapter sent back."""
        return self._scanner.echoes if isinstance(self._scanner, RtuScanner) else 0

    def feed(self, data: bytes, now_ms: int) -> list[Message | RemoteProtocolError]:
        out = self._taken(self._scanner.feed(data))
        self._silence_at_ms = now_ms + SILENCE_MS[self._framing] if self._scanner.held else None
        return out

    def send(self, message: Message, now_ms: int) -> bytes:
        """The bytes of one message. A master's serial line is flushed first."""
        if isinstance(message, (Reply, ExceptionReply, Identification)) is (self.role is Role.MASTER):
            raise LocalProtocolError(f"Modbus {self.role.value} cannot send {type(message).__name__}", reason="role")
        if not isinstance(message, (Reply, ExceptionReply, Identification)):
            return self._ask(message)
        return build(Adu(message.unit, encode_pdu(message), message.transaction), self._framing)

    def _ask(self, message: Request) -> bytes:
        if self._framing == "tcp" and not message.transaction:
            self._transaction = self._transaction % 0xFFFF + 1
            message = replace(message, transaction=self._transaction)
        pdu = encode_pdu(message)
        data = build(Adu(message.unit, pdu, message.transaction), self._framing)
        if self._framing != "tcp":
            self._scanner.reset()
            self._silence_at_ms = None
        if isinstance(self._scanner, RtuScanner):
            if pdu[0] not in (WRITE_COIL, WRITE_REGISTER, MASK_WRITE) or self.echoes:
                self._scanner.echo = data
            self._scanner.expected = _expected(message, pdu)
        elif isinstance(self._scanner, TcpScanner):
            self._scanner.expected_bytes = _read_bytes(message)
        broadcast = message.unit == 0 and isinstance(message, (WriteRequest, MaskWrite)) and self._framing != "tcp"
        self._asked, self._asked_pdu = (None, b"") if broadcast else (message, pdu)
        return data

    def deadline(self) -> int | None:
        return self._silence_at_ms

    def tick(self, now_ms: int) -> list[Message | RemoteProtocolError]:
        if self._silence_at_ms is None or now_ms < self._silence_at_ms:
            return []
        self._silence_at_ms = None
        return self._taken(self._scanner.idle())

    def _taken(self, found: list[Found]) -> list[Message | RemoteProtocolError]:
        return [one if isinstance(one, RemoteProtocolError) else self._take(one) for one in found]

    def _take(self, adu: Adu) -> Message | RemoteProtocolError:
        try:
            if self._listen:
                return self._overhear(adu)
            if self.role is Role.SLAVE:
                return decode_request(adu.unit, adu.pdu, adu.transaction)
            return self._answer(adu)
        except RemoteProtocolError as error:
            return error

    def _overhear(self, adu: Adu) -> Message:
        try:
            return decode_reply(adu.unit, adu.pdu, adu.transaction)
        except RemoteProtocolError:
            return decode_request(adu.unit, adu.pdu, adu.transaction)

    def _answer(self, adu: Adu) -> Answer:
        asked = self._asked
        if asked is None:
            raise RemoteProtocolError("Modbus answer to nothing", reason="unexpected")
        if self._framing == "tcp":
            if adu.transaction != asked.transaction:
                text = f"Modbus answer to transaction {adu.transaction}, open is {asked.transaction}"
                raise RemoteProtocolError(text, reason="unexpected")
            same_unit = adu.unit in (asked.unit, 0)  # some boxes answer as unit 0
        else:
            same_unit = adu.unit == asked.unit
        if not same_unit and asked.unit not in ANY_UNIT:
            raise RemoteProtocolError(f"Modbus answer of unit {adu.unit}, asked {asked.unit}", reason="wrong_unit")
        function = self._asked_pdu[0]
        if adu.pdu[0] & 0x7F != function:
            text = f"Modbus answer with function {adu.pdu[0] & 0x7F}, asked {function}"
            raise RemoteProtocolError(text, reason="wrong_function")
        reply = decode_reply(adu.unit, adu.pdu, adu.transaction)
        if isinstance(reply, Reply):
            reply = self._matched(asked, reply, adu.pdu)
        self._asked = None
        return reply

    def _matched(self, asked: Request, reply: Reply, pdu: bytes) -> Reply:
        if isinstance(asked, (ReadRequest, ReadWrite)):
            if pdu[1] != _read_bytes(asked):
                text = f"Modbus answer with {pdu[1]} bytes to a read of {asked.count}"
                raise RemoteProtocolError(text, reason="byte_count")
            # Built anew rather than replaced: this is the path every reading takes.
            bits = reply.bits[: asked.count]
            return Reply(
                reply.unit, reply.function, asked.address, asked.count, reply.registers, bits, reply.transaction
            )
        size = 7 if isinstance(asked, MaskWrite) else 5
        if isinstance(asked, (WriteRequest, MaskWrite)) and pdu[:size] != self._asked_pdu[:size]:
            single = reply.function in (WRITE_COIL, WRITE_REGISTER, MASK_WRITE)
            reason = "echo_mismatch" if single else "wrong_echo"
            raise RemoteProtocolError("Modbus write answered with another address or value", reason=reason)
        return reply


def _expected(message: Request, pdu: bytes) -> tuple[bytes, int] | None:
    """How the right RTU answer begins, and its length."""
    if message.unit in ANY_UNIT:
        return None
    if isinstance(message, WriteRequest):
        return bytes((message.unit,)) + pdu[:5], 8
    if isinstance(message, MaskWrite):
        return bytes((message.unit,)) + pdu, 10
    if (count := _read_bytes(message)) is None:
        return None
    return bytes((message.unit, pdu[0], count)), 5 + count


def _read_bytes(message: Request) -> int | None:
    """The byte count of the right answer, None where it has none."""
    if isinstance(message, ReadWrite):
        return 2 * message.count
    if not isinstance(message, ReadRequest):
        return None
    return (message.count + 7) // 8 if message.function in (READ_COILS, READ_INPUTS) else 2 * message.count
