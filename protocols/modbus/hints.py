"""What is probably wrong with a Modbus frame, in words for whoever stands in front of the cabinet."""

from __future__ import annotations

from protocols.modbus.frame import Framing, crc, lrc


def checksum(raw: bytes) -> tuple[str, ...]:
    """Which mistake gives this CRC?"""
    if len(raw) < 4:
        return ()
    stored, body = raw[-2:], raw[:-2]
    if crc(body) == stored[::-1]:
        return ("CRC fits with its two bytes swapped: high byte first; read it leniently",)
    for drop in (1, 2, 3):
        if len(raw) - drop >= 4 and crc(raw[drop:-2]) == stored:
            return (f"CRC fits without the first {drop} byte(s): stray bytes in front of the frame",)
        if len(raw) - drop >= 4 and crc(raw[: -2 - drop]) == raw[-2 - drop : -drop]:
            return (f"CRC fits without the last {drop} byte(s): stray bytes behind the frame",)
    if lrc(body) == stored[-1]:
        return ("the last byte is the LRC of Modbus ASCII, not a CRC",)
    if sum(body) & 0xFF == stored[-1] or sum(raw[:-1]) & 0xFF == raw[-1]:
        return ("the last byte is a plain sum: perhaps DL/T 645 or a maker's own protocol",)
    for bit in range(16):
        flipped = (int.from_bytes(crc(body), "big") ^ 1 << bit).to_bytes(2, "big")
        if flipped == stored:
            return ("one bit of the CRC is wrong: noise on the line, or a wrong digit in a transcript",)
    return ("no usual mistake gives this CRC: bytes are missing, or speed or parity of the line are wrong",)


def shape(raw: bytes, framing: Framing) -> tuple[str, ...]:
    """What the outer form suggests."""
    out = []
    length = int.from_bytes(raw[4:6], "big")
    if framing == "rtu":
        if len(raw) >= 8 and raw[2:4] == b"\0\0" and length == len(raw) - 6:
            out.append("this fits a Modbus TCP header: framing tcp")
        if raw[:1] == b":":
            out.append("a colon begins Modbus ASCII: framing ascii")
        if raw[:1] == b"\x68" or b"\xfe\xfe\x68" in raw:
            out.append("68H begins a meter's frame: try dlt645 or cjt188")
    if framing == "tcp":
        if len(raw) >= 4 and crc(raw[:-2]) == raw[-2:]:
            out.append("the CRC of an RTU frame fits: RTU over TCP, framing rtu")
        elif len(raw) >= 6 and length > len(raw) - 6:
            out.append(f"the header announces {length} bytes, {max(0, len(raw) - 6)} are there: cut off")
    if framing == "ascii" and len(raw) > 1 and not raw.rstrip(b"\r").endswith(b"\n"):
        out.append("CR LF is missing at the end")
    return tuple(out)
