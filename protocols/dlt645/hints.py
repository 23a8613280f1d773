"""What is probably wrong with a DL/T 645 frame, in words for whoever stands in front of the meter."""

from __future__ import annotations

from protocols.dlt645.frame import Frame
from protocols.dlt645.identifiers import entry
from protocols.dlt645.messages import ERROR_BITS, ErrorReply

_START, _END = 0x68, 0x16
#: First byte of identifiers of records: event records, frozen values, load records.
_RECORDS = (0x03, 0x05, 0x06, 0x10)


def checksum_hints(raw: bytes, before: bytes) -> tuple[str, ...]:
    """``raw``: from the first 68 to 16; ``before``: up to four bytes in front of it. Which mistake gives this sum?"""
    stored, head, data = raw[-2], raw[:10], raw[10:-2]
    wake_ups = len(before) - len(before.rstrip(b"\xfe"))
    attempts = {
        "the data are summed before +33H; the rule sums the bytes as sent": sum(head) + sum(b - 0x33 for b in data),
        "+33H is not applied to the data, but the sum is as if it were": sum(head) + sum(b + 0x33 for b in data),
        "the sum leaves out the first 68H": sum(raw[1:-2]),
        "the sum leaves out both 68H": sum(raw[1:7]) + sum(raw[8:-2]),
        "the wake-up bytes FE are summed too": sum(raw[:-2]) + 0xFE * wake_ups if wake_ups else -1,
        "the sum is the two's complement": -sum(raw[:-2]),
        "the length byte is one too large or too small": sum(raw[:-2]) + 1,
        "the length byte is one too large": sum(raw[:-2]) - 1,
    }
    out = [f"checksum fits if: {why}" for why, total in attempts.items() if total != -1 and total & 0xFF == stored]
    single = (stored - sum(raw[:-2])) & 0xFF
    if not out and (single & (single - 1) == 0 or (256 - single) & (255 - single) == 0):
        out.append("the sum is off by one bit: noise on the line, or a wrong digit in a transcript")
    return tuple(out)


def shape_hints(raw: bytes) -> tuple[str, ...]:
    """What the outer form suggests."""
    out = []
    if raw[:1] == b"\x68" and len(raw) > 10 and raw[-1] != _END and _END in raw[10:]:
        at = raw.rindex(_END)
        if at > 10:
            out.append(f"a 16H stands where a length byte of {at - 11:02X}H would put the end; it says {raw[9]:02X}H")
    if raw[:1] != b"\x68" and len(raw) >= 8 and raw.count(_START) == 0:
        if bytes(b & 0x7F for b in raw).count(_START) >= 2:
            out.append("with the top bit cleared a 68H appears: parity set wrongly (8 data bits, EVEN parity wanted)")
        if raw[:1] in (b":", b"#"):
            out.append("this looks like text (Modbus ASCII, HJ 212), not like a meter's frame")
    if len(raw) >= 4 and raw[:1] == b"\x68" and raw[3:4] == b"\x68" and raw[1:2] == raw[2:3]:
        out.append("68 L L 68 is how M-Bus begins: try mbus")
    if raw[:1] == b"\x68" and len(raw) > 8 and raw[7] != _START and 0x10 <= raw[1] <= 0x3F:
        out.append("68 with a type byte 10H..3FH behind it is how CJ/T 188 begins: try cjt188")
    return tuple(out)


def error_hints(reply: ErrorReply) -> tuple[str, ...]:
    """Some meters send the error byte as it is, without the +33H of all other data."""
    shifted_makes_sense = 0 < reply.word < 0x80
    plain_makes_sense = 0 < reply.unshifted < 0x80 and reply.unshifted & (reply.unshifted - 1) == 0
    if plain_makes_sense and not (shifted_makes_sense and reply.word & (reply.word - 1) == 0):
        name = ERROR_BITS[reply.unshifted.bit_length() - 1]
        return (f"the byte makes sense without +33H: {reply.unshifted:02X}H = {name}; this meter does not shift it",)
    return ()


def shift_hints(frame: Frame) -> tuple[str, ...]:
    """A good sum, but the identifier means nothing: perhaps the data were never shifted by 33H."""
    function = frame.ctrl & 0x1F
    if function not in (0x11, 0x12, 0x01, 0x02) or frame.ctrl & 0x40:
        return ()
    width = 4 if function > 0x10 else 2
    if len(frame.data) < width:
        return ("the data are too short for an identifier",)
    if entry(frame.data[width - 1 :: -1].hex().upper()) is not None:
        return ()
    if frame.data[width - 1] in _RECORDS and width == 4:
        return ("a record of events, frozen values or load: its bytes are shown",)
    wire = bytes((byte + 0x33) & 0xFF for byte in frame.data)
    plain, backwards = wire[width - 1 :: -1].hex().upper(), frame.data[:width].hex().upper()
    if entry(plain) is not None:
        return (f"the data make sense if +33H was never applied: identifier {plain}",)
    if entry(backwards) is not None:
        return (f"the identifier makes sense the other way round: {backwards}; its lowest byte travels first",)
    return ("identifier not in the table: a maker's own, or a layout nobody has described; its bytes are shown",)
