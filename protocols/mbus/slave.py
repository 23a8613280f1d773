"""How a meter answers: a small state machine (which telegram is next, am I selected), shared by the simulator and the
tests of the master.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocols.mbus.messages import (
    ANYBODY,
    BROADCAST,
    CI_LONG_HEADER,
    SELECTED,
    Ack,
    ApplicationError,
    ReadData,
    Reply,
    Request,
    Reset,
    Response,
    Select,
    SendData,
    secondary_matches,
)
from protocols.mbus.records import maker_bytes

#: C, A, CI and the long header leave this much of a telegram for records (and the DIF that announces another one).
_ROOM = 252 - 12 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers. ``id``: eight digits as printed; ``maker``: three letters."""

    id: str
    maker: str = "CBN"
    version: int = 1
    medium: int = 0x07

    @property
    def wire(self) -> bytes:
        return bytes.fromhex(self.id)[::-1] + maker_bytes(self.maker) + bytes((self.version, self.medium))

    @property
    def secondary(self) -> str:
        return f"{self.id}{maker_bytes(self.maker)[::-1].hex()}{self.version:02x}{self.medium:02x}".upper()


def telegrams(records: Sequence[bytes]) -> list[bytes]:
    """Records packed into as few telegrams as they need; all but the last end with 1F."""
    out: list[bytearray] = [bytearray()]
    for record in records:
        if len(out[-1]) + len(record) > _ROOM:
            out[-1].append(0x1F)
            out.append(bytearray())
        out[-1] += record
    return [bytes(one) for one in out]


#: The records of the moment.
Records = Callable[[], Sequence[bytes]]
#: Take data (CI, data); an application error's code, or None if it was done.
Obey = Callable[[int, bytes], int | None]


class Slave:
    """One meter. ``status``: the header's status byte."""

    def __init__(self, addr: int, identity: Identity, records: Records, obey: Obey | None = None) -> None:
        self.addr = addr
        self.identity = identity
        self.status = 0
        self._records = records
        self._obey = obey
        self._selected = False
        self._fcb: bool | None = None
        self._next = 0
        self._access = 0
        self._told: list[bytes] = []  # the telegrams of one reading belong to one moment
        self._refused: int | None = None

    def answer(self, request: Request) -> Reply | None:
        """What the meter says; None: it was not meant, or nobody answers."""
        match request:
            case Select(secondary=secondary):
                self._selected = secondary_matches(secondary, self.identity.secondary)
                self._restart()
                return Ack() if self._selected else None
            case Reset(addr=addr):
                if addr == SELECTED:
                    was, self._selected = self._selected, False
                    return Ack() if was else None
                if not self._meant(addr) and addr != BROADCAST:
                    return None
                self._restart()
                return None if addr == BROADCAST else Ack()
            case SendData(addr=addr, ci=ci, data=data):
                if not self._meant(addr) and addr != BROADCAST:
                    return None
                self._refused = self._obey(ci, data) if self._obey is not None else 1
                return None if addr == BROADCAST else Ack()
            case ReadData(addr=addr, fcb=fcb):
                return self._read(fcb) if self._meant(addr) else None

    def _meant(self, addr: int) -> bool:
        return addr in (self.addr, ANYBODY) or (addr == SELECTED and self._selected)

    def _restart(self) -> None:
        self._fcb, self._next, self._told = None, 0, []

    def _read(self, fcb: bool) -> Reply:
        if self._refused is not None:
            code, self._refused = self._refused, None
            return ApplicationError(self.addr, code)
        if self._fcb is not None and fcb != self._fcb:
            self._next += 1
        if not self._told or self._next >= len(self._told):
            self._told, self._next = telegrams(self._records()), 0
        self._fcb = fcb
        self._access = (self._access + 1) & 0xFF
        header = self.identity.wire + bytes((self._access, self.status, 0, 0))
        return Response(self.addr, CI_LONG_HEADER, header + self._told[self._next])
