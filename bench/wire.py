"""Bytes per reading on the wire, whole payloads, against JSON, MessagePack and Sparkplug B on recorded streams.

Ours: the complete protobuf batch (epoch, sequence, blocks; zstd where it helps), values exact at the sensor's printed
resolution. The series' declarations are sent once a life of the outbox and are not counted. Peers: one object a row
with names (JSON, MessagePack with float32 values and indexes as names), and a Sparkplug B payload with aliases, times
and float values, as in the Sparkplug 3.0 schema (field numbers 1, 2, 3 of Payload; 2, 3, 4, 12 of Metric).
"""

from __future__ import annotations

import json
import struct
import time
from typing import Any

import msgpack
import numpy as np
from _streams import Stream, load_all

from protocols.core.model import Quality
from protocols.uplink.batch import Batch, Declaration, decode, encode, open_envelope, quantise
from protocols.uplink.columns import Readings

EPOCH = 1_770_000_000
START_MS = EPOCH * 1000 + 86_400_000 * 30  # a month into the outbox's life
ROWS = (1, 10, 100, 1000)
AIM = {1: 3.0, 100: 1.2}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sparkplug(times: list[int], values: Any) -> bytes:
    payload = bytearray(b"\x08" + _varint(times[-1]))
    for row, ts in enumerate(times):
        for alias in range(values.shape[1]):
            metric = (
                b"\x10"
                + _varint(alias)
                + b"\x18"
                + _varint(ts)
                + b"\x20\x09"
                + b"\x65"
                + struct.pack("<f", values[row, alias])
            )
            payload += b"\x12" + _varint(len(metric)) + metric
    return bytes(payload + b"\x18\x01")


def _ours(stream: Stream, declarations: list[Declaration], at: int, rows: int, seq: int) -> bytes:
    block = stream.values[at : at + rows]
    series = block.shape[1]
    integers, qualities = [], []
    for i in range(series):
        whole, quality = quantise(block[:, i].copy(), np.zeros(rows, np.uint8), stream.decimals[i])
        integers.append(whole)
        qualities.append(quality)
    times = START_MS + stream.step_ms * np.arange(at, at + rows)
    readings = Readings(
        np.repeat(np.arange(series, dtype=np.int32), rows),
        np.tile(times, series),
        np.zeros(rows * series, np.int32),
        np.concatenate(integers),
        np.concatenate(qualities),
    )
    codes = {d.alias: d.code for d in declarations}
    data = encode(Batch(EPOCH, seq, readings), codes)
    back = decode(open_envelope(data), codes).readings
    good = back.quality != Quality.MISSING
    assert (np.sort(back.integer[good]) == np.sort(readings.integer[readings.quality != Quality.MISSING])).all()
    return data


def _entropy_bytes(stream: Stream) -> float:
    """Zeroth-order entropy of the first differences, bytes a reading: no code that sees only differences beats it."""
    total = 0.0
    for i, places in enumerate(stream.decimals):
        whole, _ = quantise(np.nan_to_num(stream.values[:, i]), np.zeros(len(stream.values), np.uint8), places)
        _, counts = np.unique(np.diff(whole), return_counts=True)
        share = counts / counts.sum()
        total += float(-(share * np.log2(share)).sum()) / 8
    return total / len(stream.decimals)


def measure(stream: Stream) -> dict[str, Any]:
    series = stream.values.shape[1]
    first = np.nan_to_num(stream.values[0])
    declarations = [
        Declaration(i, "station-1", stream.names[i], "", stream.decimals[i], round(first[i] * 10 ** stream.decimals[i]))
        for i in range(series)
    ]
    limit = _entropy_bytes(stream)
    out: dict[str, Any] = {
        "series": series,
        "decimals": stream.decimals,
        "entropy_limit_bytes": round(limit, 3),
        "rows": {},
    }
    for rows in ROWS:
        starts = range(0, min(len(stream.values) - rows, rows * 200), max(rows, 37))
        sizes: dict[str, list[int]] = {"citybrain": [], "json": [], "msgpack": [], "sparkplug_b": []}
        spent = 0.0
        for seq, at in enumerate(starts, 100_000):
            block = np.nan_to_num(stream.values[at : at + rows])
            times = [START_MS + stream.step_ms * (at + r) for r in range(rows)]
            begun = time.perf_counter()
            sizes["citybrain"].append(len(_ours(stream, declarations, at, rows, seq)))
            spent += time.perf_counter() - begun
            objects = [
                {
                    "ts": ts,
                    "values": {n: round(v, d) for n, v, d in zip(stream.names, row, stream.decimals, strict=True)},
                }
                for ts, row in zip(times, block.tolist(), strict=True)
            ]
            sizes["json"].append(len(json.dumps(objects, separators=(",", ":"))))
            packed = [[ts, dict(enumerate(row))] for ts, row in zip(times, block.tolist(), strict=True)]
            sizes["msgpack"].append(len(msgpack.packb(packed, use_single_float=True)))
            sizes["sparkplug_b"].append(len(_sparkplug(times, block)))
        readings = rows * series
        per = {name: round(sum(values) / len(values) / readings, 3) for name, values in sizes.items()}
        out["rows"][rows] = {
            "bytes_per_reading": per,
            "ratio": round(per["citybrain"] / per["sparkplug_b"], 4),
            "ratio_to_entropy": round(per["citybrain"] / limit, 2),
            "encode_decode_us_per_reading": round(spent / len(sizes["citybrain"]) / readings * 1e6, 2),
        }
        if rows in AIM:
            out["rows"][rows]["aim_bytes"] = AIM[rows]
    return out


def main() -> None:
    streams = load_all()
    print(json.dumps({"what": "bytes per reading, whole payload", "streams": {s.name: measure(s) for s in streams}}))


if __name__ == "__main__":
    main()
