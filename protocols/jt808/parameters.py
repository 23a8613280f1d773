"""Parameters of a terminal (8103, 8104, 8106, 0104): id u32, length u8, value."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.jt808.fields import Reader, Writer


@dataclass(frozen=True, slots=True)
class Parameter:
    """``value``: the bytes; numbers are u32 except where the table says otherwise."""

    id: int
    value: bytes


def read_parameters(reader: Reader) -> tuple[Parameter, ...]:
    count = reader.u8("count")
    out: list[Parameter] = []
    for _ in range(count):
        with reader.item("params"):
            at = reader.at
            number = int.from_bytes(reader.take(4, "id"), "big")
            reader.mark("id", at, f"0x{number:04X}")
            size = reader.take(1, "length")[0]
            value = reader.blob("hex", size)
            for name, said in parameter_meaning(number, value).items():
                reader.say(name, said)
            out.append(Parameter(number, value))
    return tuple(out)


def write_parameters(writer: Writer, params: tuple[Parameter, ...]) -> None:
    writer.u8(len(params), "count")
    for one in params:
        writer.u32(one.id, "parameter").u8(len(one.value), "length").blob(one.value)


#: Names of the parameters that a city sets or looks at.
PARAMETERS: dict[int, str] = {
    0x0001: "heartbeat_s", 0x0002: "tcp_timeout_s", 0x0003: "tcp_retries", 0x0004: "udp_timeout_s",
    0x0005: "udp_retries", 0x0010: "apn", 0x0011: "apn_user", 0x0012: "apn_password", 0x0013: "server",
    0x0017: "backup_server", 0x0018: "tcp_port", 0x0019: "udp_port", 0x0020: "report_mode", 0x0021: "report_scheme",
    0x0022: "no_driver_interval_s", 0x0027: "sleep_interval_s", 0x0028: "alarm_interval_s",
    0x0029: "default_interval_s", 0x002C: "default_distance_m", 0x002D: "no_driver_distance_m",
    0x002E: "sleep_distance_m", 0x002F: "alarm_distance_m", 0x0030: "turn_angle_deg", 0x0031: "fence_radius_m",
    0x0050: "alarm_mask", 0x0055: "max_speed_kmh", 0x0056: "overspeed_s", 0x0057: "driving_limit_s",
    0x0058: "day_limit_s", 0x0059: "rest_s", 0x005A: "parking_limit_s", 0x0080: "odometer_100m", 0x0081: "province",
    0x0082: "city", 0x0083: "plate", 0x0084: "plate_color", 0x0090: "gnss_mode",
}  # fmt: skip
_TEXTS = frozenset({0x0010, 0x0011, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016, 0x0017, 0x001A, 0x001D, 0x0023, 0x0083})


def parameter_meaning(number: int, value: bytes) -> dict[str, str | int]:
    """Name and value of a parameter, as far as known. Passwords are not told."""
    said: dict[str, str | int] = {"name": PARAMETERS[number]} if number in PARAMETERS else {}
    if number in _TEXTS:
        return said | {"value": value.rstrip(b"\0").decode("gb18030", "replace")}
    return said | {"value": int.from_bytes(value, "big")} if len(value) in (1, 2, 4) else said
