"""What sensors put into the few bytes of an uplink, where their maker's format is public.

Most sensors are decoded by the network server (its codec's result comes as ``object``); these are for servers without
one. A codec is a function from port and bytes to named values; None is "no value".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from protocols.core.errors import RemoteProtocolError

Value = float | int | bool | str | None
Codec = Callable[[int, bytes], Mapping[str, Value]]


def bosch_tps110(f_port: int, data: bytes) -> Mapping[str, Value]:
    """Parking sensor (maker's public codec): port 1 change, 2 heartbeat with temperature, 3 start-up."""
    if f_port == 1:
        _exactly(data, 1)
        return {"occupied": bool(data[0] & 1), "kind": "change"}
    if f_port == 2:
        _exactly(data, 2)
        temperature = int.from_bytes(data[1:2], "big", signed=True)
        return {"occupied": bool(data[0] & 1), "temperature_c": temperature, "kind": "heartbeat"}
    if f_port == 3:
        _exactly(data, 17)
        return {
            "debug_hex": data[:12].hex(),
            "firmware": ".".join(str(byte) for byte in data[12:15]),
            "reset_cause": data[15],
            "occupied": bool(data[16] & 1),
            "kind": "startup",
        }
    raise RemoteProtocolError(f"nothing is known of port {f_port}", reason="f_port")


def _exactly(data: bytes, length: int) -> None:
    if len(data) != length:
        raise RemoteProtocolError(f"{len(data)} bytes, {length} belong here", reason="length")


#: ``options.payload`` of a device type.
CODECS: dict[str, Codec] = {"bosch_tps110": bosch_tps110}
