"""Writes tiny ONNX files by hand (protobuf wire format), so that model families can be tested without their weights.

The graph takes a picture and gives fixed numbers: Identity of an initializer, one for each output.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_FLOAT = 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _value_info(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_bytes(1, _int(1, size)) for size in shape)
    tensor = _int(1, _FLOAT) + _bytes(2, dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def constant_model(picture: tuple[int, ...], outputs: Mapping[str, NDArray[np.float32]]) -> bytes:
    """An ONNX model: input ``images`` of shape ``picture`` -> the given arrays, whatever the picture."""
    graph = b""
    for name in outputs:
        graph += _bytes(1, _bytes(1, f"{name}_data") + _bytes(2, name) + _bytes(4, "Identity"))
    graph += _bytes(2, "constant")
    for name, array in outputs.items():
        tensor = b"".join(_int(1, size) for size in array.shape) + _int(2, _FLOAT)
        tensor += _bytes(8, f"{name}_data") + _bytes(9, np.ascontiguousarray(array, "<f4").tobytes())
        graph += _bytes(5, tensor)
    graph += _bytes(11, _value_info("images", picture))
    for name, array in outputs.items():
        graph += _bytes(12, _value_info(name, array.shape))
    opset = _bytes(1, "") + _int(2, 13)
    return _int(1, 8) + _bytes(7, graph) + _bytes(8, opset)
