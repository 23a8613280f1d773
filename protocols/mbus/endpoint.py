"""Both ends of an M-Bus line: the master that asks and the meter that answers.

A master believes only what answers its open request. E5 names nobody, so it counts only where it can be the answer.
"""

from __future__ import annotations

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.scanning import ScanningEndpoint
from protocols.mbus.frame import Found, Scanner, build
from protocols.mbus.messages import (
    ANYBODY,
    BROADCAST,
    SELECTED,
    Ack,
    ApplicationError,
    Message,
    ReadData,
    Request,
    Reset,
    Response,
    Select,
    SendData,
    from_frame,
    from_master,
    to_frame,
)

#: Bytes of a frame follow each other without a gap; converters on TCP make some. One byte at 300 baud takes 37 ms.
SILENCE_MS = 300


class MbusEndpoint(ScanningEndpoint[Message]):
    """One end of one line. ``listen``: take every frame of both directions as it comes."""

    silence_ms = SILENCE_MS

    def __init__(self, role: Role, *, listen: bool = False) -> None:
        super().__init__(Scanner())
        self.role = role
        self._listen = listen
        self._asked: Request | None = None
        self.echoes = 0  # own requests that came back from the converter

    def send(self, message: Message, now_ms: int) -> bytes:
        """The bytes of one message. A master's line is flushed first: what came late belongs to an older request."""
        asks = isinstance(message, (Reset, ReadData, SendData, Select))
        if asks is (self.role is Role.SLAVE):
            raise LocalProtocolError(f"M-Bus {self.role.value} cannot send {type(message).__name__}", reason="role")
        data = build(to_frame(message))
        if isinstance(message, (Reset, ReadData, SendData, Select)):
            self._flush()
            silent = not isinstance(message, Select) and message.addr == BROADCAST
            self._asked = None if silent else message
        return data

    def _take(self, found: Found | RemoteProtocolError) -> list[Message | RemoteProtocolError]:
        if isinstance(found, RemoteProtocolError):
            return [found]
        if not self._listen and from_master(found.frame) is (self.role is Role.MASTER):
            self.echoes += 1  # a converter gives back what it sends; a meter hears its neighbours
            return []
        try:
            message = from_frame(found.frame)
        except RemoteProtocolError as error:
            return [error]
        if self._listen or self.role is Role.SLAVE:
            return [message]
        if (wrong := self._wrong(message)) is not None:
            return [wrong]
        self._asked = None
        return [message]

    def _wrong(self, message: Message) -> RemoteProtocolError | None:
        asked = self._asked
        match asked, message:
            case (None, _):
                return RemoteProtocolError("M-Bus answer to nothing", reason="unexpected")
            case (Reset() | SendData() | Select(), Ack()):
                return None
            case (SendData(addr=addr) | ReadData(addr=addr), ApplicationError(addr=got)) if _meant(addr, got):
                return None
            case (ReadData(addr=addr), Response(addr=got)) if _meant(addr, got):
                return None
            case (ReadData(addr=addr), Response(addr=got) | ApplicationError(addr=got)):
                return RemoteProtocolError(f"M-Bus answer of {got}, asked {addr}", reason="wrong_address")
        return RemoteProtocolError(f"M-Bus {type(message).__name__} does not answer the request", reason="unexpected")


def _meant(asked: int, answered: int) -> bool:
    return asked == answered or asked in (SELECTED, ANYBODY)
