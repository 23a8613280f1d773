"""Frames a second of every codec, decoding and encoding, on the published vectors.

Decoding is the production path: the endpoint of a connector fed with 4 KiB reads of back-to-back frames; encoding is
the other end's ``send`` of the same messages. The floor, in the same run: one pass over each frame by C code (CRC-32),
a slice of it and one frozen object, which no codec in this language can undercut. Where a library speaks the protocol
too, its own time for the same frames stands beside ours.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.core.endpoint import Endpoint, Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, from_vector
from protocols.registry import FAMILIES, PROTOCOLS, family

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "tests" / "vectors", ROOT.parent / "shared" / "protocols" / "vectors")
READ_BYTES = 4096
#: Long enough that a scheduler's slice does not matter.
LEAST_S = 0.4
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Floor:
    address: bytes
    body: bytes
    check: int


def floor(frames: list[bytes]) -> None:
    for frame in frames:
        _Floor(frame[:6], frame[6:], zlib.crc32(frame))


def rate(work: Callable[[], int]) -> float:
    """Most frames a second of some rounds; ``work`` returns how many it did."""
    best = 0.0
    for _ in range(ROUNDS):
        done, began_s = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - began_s) < LEAST_S:
            done += work()
        best = max(best, done / spent_s)
    return best


def frames_of(name: str) -> list[bytes]:
    """Frames of the vectors that are read, one message each."""
    rows: dict[str, dict[str, Any]] = {}
    for folder in FOLDERS:
        if (file := folder / f"{name}.json").is_file():
            rows |= {row["id"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
    explain = family(name).explainer()
    out = []
    for row in rows.values():
        capture = from_vector(row)
        if not capture.data or capture.kind in ("value", "data_unit", "checksum"):
            continue
        told = explain(Capture(capture.data, topic=capture.topic, request=capture.request))
        if told.ok and len(told.frames) == 1:
            out.append(capture.data)
    return out


def messages_in(endpoint: Endpoint[Any], frames: list[bytes]) -> Iterator[Any]:
    for now_ms, frame in enumerate(frames):
        for one in endpoint.feed(frame, now_ms):
            if not isinstance(one, RemoteProtocolError):
                yield one


def measure(name: str, entry_name: str) -> dict[str, Any] | None:
    entry = PROTOCOLS[entry_name]
    if entry_name == "nmea_beidou":
        frames_with_ends = [frame if frame.endswith(b"\n") else frame + b"\r\n" for frame in frames_of(name)]
    else:
        frames_with_ends = frames_of(name)
    # A frame that the other framing of the family uses is none here; those that are read alone are the sample.
    frames = [frame for frame in frames_with_ends if sum(1 for _ in messages_in(entry.listener(), [frame])) == 1]
    if not frames:
        return None
    size = sum(map(len, frames))
    stream = b"".join(frames) * max(1, 65_536 // size)
    reads = [stream[at : at + READ_BYTES] for at in range(0, len(stream), READ_BYTES)]

    def decode() -> int:
        endpoint = entry.listener()
        return sum(
            not isinstance(one, RemoteProtocolError)
            for number, data in enumerate(reads)
            for one in endpoint.feed(data, number)
        )

    out: dict[str, Any] = {"frames": len(frames), "mean_bytes": round(size / len(frames), 1)}
    whole = len(stream) // size * len(frames)
    if (found := decode()) != whole:
        out["read_of_stream"] = f"{found} of {whole}"
    bare = rate(lambda: (floor(frames), len(frames))[1])
    decoded = rate(decode)
    out |= {
        "decode_frames_per_s": round(decoded),
        "decode_mb_per_s": round(decoded * size / len(frames) / 1e6, 2),
        "decode_of_floor": round(decoded / bare, 4),
    }
    if (encoded := _encode_rate(entry_name, list(messages_in(entry.listener(), frames)))) is not None:
        out |= {"encode_frames_per_s": round(encoded), "encode_of_floor": round(encoded / bare, 4)}
    return out


def _encode_rate(entry_name: str, messages: list[Any]) -> float | None:
    """Whoever may say a message says it."""
    sendable: list[tuple[Role, Any]] = []
    for message in messages:
        for role in (Role.SLAVE, Role.MASTER):
            try:
                PROTOCOLS[entry_name].endpoint(role).send(message, 0)
            except LocalProtocolError:
                continue
            sendable.append((role, message))
            break
    if not sendable:
        return None

    def encode() -> int:
        ends = {role: PROTOCOLS[entry_name].endpoint(role) for role in Role}
        for number, (role, message) in enumerate(sendable):
            ends[role].send(message, number * 100_000)
        return len(sendable)

    return rate(encode)


# -- the libraries behind some of them, bare ---------------------------------------------------------------------------


def _bare(frames: list[bytes], read: Callable[[bytes], object]) -> float | None:
    """Frames a second of a library over the frames that it reads at all."""
    good = []
    for frame in frames:
        try:
            read(frame)
        except Exception:  # noqa: S112 - what it raises is its own affair; it only has to read the others
            continue
        good.append(frame)
    if not good:
        return None

    def work() -> int:
        for frame in good:
            read(frame)
        return len(good)

    return rate(work)


def _pymodbus() -> Callable[[bytes], object]:
    from pymodbus.framer import FramerRTU
    from pymodbus.pdu import DecodePDU

    framer, decoder = FramerRTU(DecodePDU(False)), DecodePDU(False)

    def read(frame: bytes) -> object:
        found = decoder.decode(frame[1:-2])
        if found is None or not framer.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big")):
            raise ValueError("not read")
        return found

    return read


def _meterbus() -> Callable[[bytes], object]:
    import meterbus

    return lambda frame: meterbus.load(frame).records


def _nmea() -> Callable[[bytes], object]:
    from pynmeagps import NMEAReader

    return lambda frame: NMEAReader.parse(frame)


PEERS: dict[str, tuple[str, Callable[[], Callable[[bytes], object]]]] = {
    "modbus-rtu": ("pymodbus decoder and CRC alone, without framing", _pymodbus),
    "mbus": ("pyMeterBus, records included (ours here: frame and header)", _meterbus),
    "nmea_beidou": ("pynmeagps alone", _nmea),
}


def main() -> None:
    results: dict[str, Any] = {}
    for one in FAMILIES.values():
        for entry_name in one.endpoints:
            print(f"  {entry_name}", file=sys.stderr, flush=True)
            found = measure(one.name, entry_name)
            if found is None:
                results[entry_name] = {"note": "no vectors here that stand alone"}
                continue
            if entry_name in PEERS:
                words, make = PEERS[entry_name]
                peer = _bare(frames_of(one.name), make())
                if peer is not None:
                    found["peer"] = {"what": words, "frames_per_s": round(peer)}
                    found["decode_of_peer"] = round(found["decode_frames_per_s"] / peer, 2)
            results[entry_name] = found
    shared = FOLDERS[1].is_dir()
    print(
        json.dumps(
            {"vectors": "tests/vectors and ../shared" if shared else "tests/vectors", "codecs": results}, indent=2
        )
    )


if __name__ == "__main__":
    main()
