"""Screenshots with 256 colours: a third of the size, and the pages have few colours anyway."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np


def shrink(path: Path) -> int:
    """Rewrite a PNG with a palette of its 256 most frequent colours (5-6-5 bits); returns the new size in bytes."""
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    flat = image.reshape(-1, 3).astype(np.int32)
    key = (flat[:, 0] >> 3 << 11) | (flat[:, 1] >> 2 << 5) | flat[:, 2] >> 3
    names, where, counts = np.unique(key, return_inverse=True, return_counts=True)
    totals = np.stack([np.bincount(where, weights=flat[:, c], minlength=len(names)) for c in range(3)], axis=1)
    means = totals / counts[:, None]
    chosen = np.argsort(counts)[::-1][:256]
    palette = np.round(means[chosen]).astype(np.uint8)
    distance = ((means[:, None, :] - means[chosen][None, :, :]) ** 2).sum(axis=2)
    indexed = distance.argmin(axis=1).astype(np.uint8)[where].reshape(height, width)
    lines = np.hstack([np.zeros((height, 1), np.uint8), indexed]).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    path.write_bytes(data)
    return len(data)
