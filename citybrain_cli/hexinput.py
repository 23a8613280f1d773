"""What an installer pastes, as bytes: hex in any dress (plain, 0x.., dumps with offsets), text, or the raw file.

Nobody should have to say which it is. A text protocol's frame is never pure hex digits, so pure hex digits are bytes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, Literal

from protocols.core.errors import ConfigError

Form = Literal["auto", "hex", "text", "raw"]

#: More than any capture somebody looks at by eye.
MAX_BYTES = 64 * 1024 * 1024

_HEX = re.compile(r"[0-9A-Fa-f]+\Z")
_PAIRS = re.compile(r"[0-9A-Fa-f]{2}(?:[:\-][0-9A-Fa-f]{2})+\Z")
_PREFIX = re.compile(r"(?:0[xX]|\\x)(?=[0-9A-Fa-f]{2})")
#: One line of xxd, hexdump -C, tcpdump -X, Wireshark: offset, bytes, then perhaps the characters.
_DUMP = re.compile(
    r"\s*(?:0x)?[0-9A-Fa-f]{4,8}:?\s{1,3}((?:[0-9A-Fa-f]{4}|[0-9A-Fa-f]{2})\b"
    r"(?:\s{1,2}(?:[0-9A-Fa-f]{4}|[0-9A-Fa-f]{2})\b)*)"
)
_DUMPED_BYTES = 16


def from_argument(argument: str | None, stdin: BinaryIO, form: Form = "auto") -> bytes:
    """``argument``: a file's name, "-" or None for standard input, or the frame itself. Raises ConfigError."""
    if argument is None or argument == "-":
        return to_bytes(_bounded(stdin.read(MAX_BYTES + 1), "standard input"), form)
    if (file := _file(argument)) is None:
        return to_bytes(argument.encode("utf-8", "surrogateescape"), form)
    try:
        with file.open("rb") as opened:
            return to_bytes(_bounded(opened.read(MAX_BYTES + 1), argument), form)
    except OSError as error:
        raise ConfigError(f"{argument}: cannot be read ({error})") from error


def _file(argument: str) -> Path | None:
    """The file of that name; None if it is none, as a frame with 400 letters is."""
    try:
        return file if (file := Path(argument)).is_file() else None
    except (OSError, ValueError):
        return None


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name}: more than {MAX_BYTES >> 20} MiB; cut it first")
    return data


def to_bytes(data: bytes, form: Form = "auto") -> bytes:
    """The bytes that ``data`` stands for. Raises ConfigError if ``form`` is "hex" and it is none."""
    if form == "raw":
        return data
    text = _text(data)
    if form == "text":
        return data if text is None else _unescaped(text, data)
    found = None if text is None else parse_hex(text)
    if found is not None:
        return found
    if form == "hex":
        raise ConfigError("this is not hex: pairs of 0-9 A-F, a dump with offsets, or 0x.. bytes")
    return data if text is None else _unescaped(text, data)


def _text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _unescaped(text: str, data: bytes) -> bytes:
    r"""A frame copied from a log or a source file has its line ends as \r\n, in letters."""
    if "\\r\\n" in text and "\r\n" not in text and text.lstrip()[:1] not in ("[", "{"):  # JSON has its own escapes
        return text.replace("\\r\\n", "\r\n").encode()
    return data


def parse_hex(text: str) -> bytes | None:
    """Bytes of a hex text in any usual dress; None if it is not one."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if len(lines) > 1 or _looks_dumped(lines[0]):
        dumped = _dump(lines)
        if dumped is not None:
            return dumped
    out = bytearray()
    for line in lines:
        found = _line(line)
        if found is None:
            return None
        out += found
    return bytes(out)


def _line(line: str) -> bytes | None:
    parts = [part for part in re.split(r"[\s,;]+", _PREFIX.sub(" ", line.strip().strip("[]{}()\"'"))) if part]
    digits = []
    for part in parts:
        if _PAIRS.match(part):
            part = part.replace(":", "").replace("-", "")
        if not _HEX.match(part):
            return None
        # "1 2 3" as lone digits are bytes; "68 1" inside pairs too.
        digits.append(part if len(part) % 2 == 0 else f"0{part}" if len(part) == 1 else part)
    joined = "".join(digits)
    return bytes.fromhex(joined) if joined and len(joined) % 2 == 0 else None


def _looks_dumped(line: str) -> bool:
    return re.match(r"\s*(?:0x)?[0-9A-Fa-f]{4,8}:\s", line) is not None or "|" in line


def _dump(lines: list[str]) -> bytes | None:
    """A dump with offsets: every line has one, and they count up by what the lines hold."""
    out = bytearray()
    first: int | None = None
    for line in lines:
        match = _DUMP.match(line)
        if match is None:
            # hexdump ends with the bare length.
            if first is not None and re.fullmatch(r"\s*(?:0x)?[0-9A-Fa-f]{4,8}\s*", line):
                continue
            return None
        offset = int(line.split()[0].rstrip(":").removeprefix("0x"), 16)
        if first is None:
            first = offset
        if offset - first != len(out):
            return None
        pairs = "".join(match[1].split())[: 2 * _DUMPED_BYTES]
        if len(pairs) % 2:
            return None
        out += bytes.fromhex(pairs)
    return bytes(out) or None
