"""BeiDou short messages: what a module says and is told, for places without other coverage.

BDS-2 modules speak the 4.0 text set (TXA out, TXR in), BDS-3 modules the 2.0 set (TCQ out, TCI in). Layouts from
module sheets and one public parser, no clause of a standard was seen; tails of fields differ by maker.
Civil cards may send one message each 60 s, of about 78 bytes (BDS-2) or up to 1000 by level (BDS-3).
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.core.errors import LocalProtocolError
from protocols.nmea_beidou.gnss import time_of_day_ms
from protocols.nmea_beidou.sentence import Sentence

TEXT, CODE, MIXED = 1, 2, 3
#: What civil cards take in one message.
MAX_BYTES_BDS2, MAX_BYTES_BDS3 = 78, 1000
MIN_INTERVAL_S = 60
#: Reasons of a refusal, from one module's sheet.
REASONS = {0: "fine", 1: "too soon", 2: "inhibited", 3: "radio silence", 4: "power not unlocked"}


@dataclass(frozen=True, slots=True)
class ShortMessage:
    """One message received. ``of_day_ms``: time of day where the set says it; ``content`` as it stood."""

    sender: int | None
    receiver: int | None
    coding: int | None
    content: str
    of_day_ms: int | None = None
    flag: int | None = None
    frequency: int | None = None

    @property
    def data(self) -> bytes:
        """Content as bytes: hex where it is hex, otherwise its characters."""
        return _bytes_of(self.content, self.coding)

    @property
    def text(self) -> str:
        """Content as Chinese text; "" where the coding says that it is none."""
        return "" if self.coding == CODE else self.data.decode("gb18030", "replace")


def _bytes_of(content: str, coding: int | None) -> bytes:
    if coding == MIXED and content[:2].upper() == "A4":
        content = content[2:]  # marks text and code mixed
    # Text comes as hex from some modules and as GBK characters from others.
    if content and len(content) % 2 == 0:
        try:
            return bytes.fromhex(content)
        except ValueError:
            pass
    return content.encode("latin-1", "replace")


@dataclass(frozen=True, slots=True)
class Feedback:
    """FKI: what became of a command."""

    command: str
    ok: bool
    reason: int | None
    wait_s: int | None

    @property
    def meaning(self) -> str:
        return REASONS.get(self.reason if self.reason is not None else -1, "")


@dataclass(frozen=True, slots=True)
class Card:
    """ICI and ICP: whose card it is, what it may."""

    number: int | None
    level: int | None
    interval_s: int | None


def _int(field: str) -> int | None:
    return int(field) if field.isascii() and field.isdecimal() else None


def read(sentence: Sentence) -> ShortMessage | Feedback | Card | None:
    """What a BeiDou module said; None for all other sentences."""
    if sentence.talker not in ("BD", "CC", "GB"):
        return None

    def f(number: int) -> str:
        return sentence.field(number).strip()

    match sentence.type:
        case "TXR":  # kind, from, coding, hhmm, content
            return ShortMessage(_int(f(2)), None, _int(f(3)), f(5), time_of_day_ms(f(4) + "00"))
        case "TCI":  # from, to, frequency, hhmmss, coding, flag, content
            return ShortMessage(_int(f(1)), _int(f(2)), _int(f(5)), f(7), time_of_day_ms(f(4)), _int(f(6)), _int(f(3)))
        case "TXA":  # to, kind, coding, (nothing,) content
            return ShortMessage(None, _int(f(1)), _int(f(3)), f(4) or f(5))
        case "TCQ":  # to, frequency, receipt, coding, (nothing,) content
            return ShortMessage(None, _int(f(1)), _int(f(4)), f(5) or f(6), frequency=_int(f(2)))
        case "FKI":
            return _feedback([one.strip() for one in sentence.fields])
        case "ICP" if sentence.talker != "CC":
            # number, (broadcast number), level, interval; with all its fields, interval and level are 14 and 15
            level, interval = (15, 14) if len(sentence.fields) >= 15 else (3, 4)
            return Card(_int(f(1)), _int(f(level)), _int(f(interval)))
        case "ICI" if sentence.talker != "CC":  # number ..., interval and level towards the end
            return Card(_int(f(1)), _int(f(6)), _int(f(5)))
    return None


def _feedback(fields: list[str]) -> Feedback:
    """Command, Y or N, reason, wait. BDS-3 modules say the time before it; BDS-2 modules a second Y or N (may it be
    sent) behind the first."""
    if fields and len(fields[0]) == 6 and fields[0].isdecimal():
        fields = fields[1:]
    if len(fields) > 2 and fields[2] in ("Y", "N"):
        fields = [*fields[:2], *fields[3:]]
    command, sent, reason, wait, *_ = [*fields, "", "", "", ""]
    return Feedback(command, sent == "Y", _int(reason), _int(wait))


def send(to: int, data: bytes, *, coding: int = CODE, generation: int = 2) -> Sentence:
    """A message to a card. Data go as hex under every coding: modules of both sets take that. Raises
    LocalProtocolError where a civil card would not take it."""
    most = MAX_BYTES_BDS2 if generation == 2 else MAX_BYTES_BDS3
    if not data or len(data) > most:
        text = f"BeiDou message of {len(data)} bytes, a BDS-{generation} card takes 1 to {most}"
        raise LocalProtocolError(text, reason="length")
    if coding not in (TEXT, CODE, MIXED) or generation not in (2, 3) or not 0 < to < 1 << 24:
        raise LocalProtocolError("BeiDou message: card number, coding or generation", reason="range")
    number = f"{to:07d}"
    if generation == 2:
        return Sentence("CC", "TXA", (number, "1", str(coding), data.hex().upper()))
    return Sentence("CC", "TCQ", (number, "2", "0", str(coding), data.hex().upper(), "0"))


def ask_card() -> Sentence:
    """Which card is in the module."""
    return Sentence("CC", "ICA", ("0", "00"))
