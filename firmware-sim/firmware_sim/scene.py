"""Scene and story files: which devices hang where, what they measure, what goes wrong, what must come out.

A rig engineer writes these by hand, so a typing error is refused with file, line and key before anything is opened.
A scene runs from now on real transports; a story names its start and runs in virtual time. The same file serves both.
"""

from __future__ import annotations

import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from firmware_sim.camera.model import CameraModel
from firmware_sim.clock import to_ms
from firmware_sim.signals import SignalSpec
from protocols import devices
from protocols.core import tomlfile
from protocols.core.errors import ConfigError

Parity = Literal["N", "E", "O"]
Mechanics = Literal["serial", "tcp-box", "dials", "service", "camera"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of bus is. ``mechanics``: ``serial`` slaves on a line, ``tcp-box`` slaves behind a listening port,
    ``dials`` stations that call the agent, ``service`` something with sockets of its own (not in virtual time).

    ``baud`` and ``parity``: what leaves the factory. ``places``: keys that say where it is offered; stories need none.
    ``faults``: those that are particular to it, beside the common ones; ``no_faults``: common ones it cannot have.
    ``clock``: its devices tell their own time.
    """

    protocol: str
    mechanics: Mechanics
    places: tuple[str, ...]
    baud: int = 0
    parity: Parity = "N"
    faults: frozenset[str] = frozenset()
    no_faults: frozenset[str] = frozenset()
    clock: bool = False


#: To add a kind of bus, add a row here and one in ``devices/build.py``.
KINDS: Mapping[str, Kind] = {
    "modbus-rtu": Kind("modbus", "serial", ("pty",), baud=9600),
    "modbus-tcp": Kind("modbus", "tcp-box", ("listen",), no_faults=frozenset({"wrong_checksum"})),
    "dlt645": Kind("dlt645", "serial", ("pty",), baud=2400, parity="E"),
    "cjt188": Kind("cjt188", "serial", ("pty",), baud=2400, parity="E", clock=True, faults=frozenset({"valve_stuck"})),
    "mbus": Kind("mbus", "serial", ("pty",), baud=2400, parity="E", faults=frozenset({"records_cut"})),
    "hj212-client": Kind(
        "hj212",
        "dials",
        ("connect",),
        clock=True,
        faults=frozenset({"resend", "split", "split_cut", "forgets", "no_result", "refuses"}),
    ),
    "gb26875-client": Kind(
        "gb26875",
        "dials",
        ("connect",),
        clock=True,
        faults=frozenset({"resend", "ack_lost", "no_time", "private", "stray", "sticky"}),
    ),
    "gb32960-client": Kind(
        "gb32960",
        "dials",
        ("connect",),
        clock=True,
        faults=frozenset(
            {
                "ack_lost",
                "no_time",
                "no_fix",
                "truncated_list",
                "vendor_item",
                "encrypted",
                "sticky",
            }
        ),
    ),
    "sl651-client": Kind(
        "sl651",
        "dials",
        ("connect",),
        clock=True,
        faults=frozenset({"resend", "no_value", "lost_packet", "mute"}),
    ),
    "sparkplug-node": Kind(
        "sparkplug_b",
        "service",
        ("connect",),
        faults=frozenset({"stuck", "deaf", "no_null"}),
        no_faults=frozenset({"wrong_checksum", "wrong_address"}),
    ),
    "jt808-client": Kind(
        "jt808",
        "dials",
        ("connect",),
        clock=True,
        faults=frozenset({"no_auth", "resend_serial", "late_ack", "missing_part"}),
    ),
    "nmea": Kind(
        "nmea_beidou",
        "service",
        ("listen",),
        clock=True,
        faults=frozenset({"no_fix", "week_rollover", "no_checksum", "cut_line"}),
        no_faults=frozenset({"wrong_address"}),
    ),
    "chirpstack": Kind(
        "lorawan-chirpstack",
        "service",
        ("connect",),
        faults=frozenset({"twice", "counter_reset", "no_ack"}),
        no_faults=frozenset({"wrong_checksum", "wrong_address"}),
    ),
    "ocpp-station": Kind(
        "ocpp",
        "dials",
        ("connect",),
        clock=True,
        faults=frozenset({"integer_ids", "no_boot", "resend", "long_info"}),
        no_faults=frozenset({"wrong_checksum", "wrong_address"}),
    ),
    "v2x-rsu": Kind(
        "v2x",
        "service",
        ("connect",),
        clock=True,
        faults=frozenset({"duplicate", "wrong_version"}),
        no_faults=frozenset({"wrong_checksum", "wrong_address"}),
    ),
    "opcua-server": Kind(
        "opcua",
        "service",
        ("listen",),
        faults=frozenset({"bad_status", "uncertain", "stuck", "read_only", "no_time"}),
        no_faults=frozenset({"drop", "delay", "garble", "truncate", "wrong_checksum", "wrong_address"}),
        clock=True,
    ),
    "bacnet-device": Kind(
        "bacnet",
        "service",
        ("listen",),
        faults=frozenset({"no_rpm", "no_cov", "fault_flag", "overridden"}),
        no_faults=frozenset({"drop", "delay", "garble", "truncate", "wrong_checksum", "wrong_address"}),
    ),
    "camera": Kind("", "camera", ("listen", "file")),
    "gb28181-client": Kind(
        "gb28181",
        "dials",
        ("connect",),
        clock=True,
        faults=frozenset({"wrong_password", "no_keepalive", "opened"}),
        no_faults=frozenset({"wrong_checksum", "wrong_address"}),
    ),
    "gb28181-client-udp": Kind(
        "gb28181",
        "service",
        ("connect",),
        clock=True,
        faults=frozenset({"wrong_password", "no_keepalive", "opened"}),
        no_faults=frozenset({"wrong_checksum", "wrong_address"}),
    ),
    "onvif": Kind(
        "onvif",
        "service",
        ("listen",),
        clock=True,
        faults=frozenset({"refuse_login", "stuck", "broken_xml"}),
        no_faults=frozenset({"wrong_checksum", "wrong_address"}),
    ),
    "gb20999": Kind(
        "traffic-signal",
        "tcp-box",
        ("listen",),
        clock=True,
        faults=frozenset({"busy", "repeat", "refuse_set", "green_conflict"}),
    ),
}
#: What goes wrong with any device.
COMMON_FAULTS = frozenset(
    {"drop", "delay", "garble", "truncate", "wrong_checksum", "silence", "restart", "clock_step", "wrong_address"}
)
#: What also goes wrong on any serial line: an adapter that turns round too late loses the first byte of an answer.
SERIAL_FAULTS = frozenset({"first_byte"})
#: Flags a station may put on an item (HJ 212-2017, item flag).
MARKS = frozenset("NFMSDCTB")


class Bus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A link that devices share."""

    id: str
    kind: str
    pty: str | None = None
    listen: str | None = None
    connect: str | None = None
    file: str | None = None
    baud: int | None = None
    parity: Parity | None = None
    pace: bool | None = None  # None: paced when live, not in virtual time
    echo: bool = False  # serial: the adapter sends our own bytes back
    turnaround_ms: int = 20  # from the end of a request to the first byte of the answer (DL/T 645: 20..500)

    @property
    def serial(self) -> bool:
        return self.what.mechanics == "serial"

    @property
    def what(self) -> Kind:
        return KINDS[self.kind]

    @property
    def byte_bits(self) -> int:
        """Bits on the line for one byte: start, 8 data, parity if any, stop."""
        return 10 if (self.parity or self.what.parity) == "N" else 11

    @property
    def speed(self) -> int:
        return self.baud or self.what.baud


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that goes wrong from ``at_s`` on for ``for_s`` seconds (None: to the end)."""

    kind: str
    at_s: float = 0.0
    for_s: float | None = None
    every: int = 1  # each n-th frame of the span
    delay_s: float = 0.0  # kind delay
    offset_s: float = 0.0  # kind clock_step
    set_to: datetime | None = (
        None  # kind clock_step: the clock reads this at at_s and runs on (1970 after a flat battery)
    )
    repeat_s: float | None = None  # the span comes again every so often


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """HJ 212 item flag on a point for a while, e.g. C while it is being calibrated."""

    point: str
    flag: str
    at_s: float = 0.0
    for_s: float | None = None


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One simulated device: its type says how it speaks, its signals what it measures."""

    id: str
    type: str
    bus: str
    count: int = 1  # more than 1: so many of them, id-01, id-02 ..., with addresses counting up
    address: int | str | None = None  # Modbus unit, or DL/T 645 meter number as text
    clash: bool = False  # serial: has the address of another one on purpose; their answers collide
    refuse_holes: bool = False  # Modbus: registers between points answer "illegal address" instead of 0
    mn: str | None = None  # HJ 212 device id
    password: str = "123456"  # noqa: S105 - HJ 212's PW field, the factory's value; not a secret
    st: str = "39"  # HJ 212 system code; 39 = construction dust
    interval_s: float = 1.0  # HJ 212: seconds between real-time uploads (2011)
    minute: bool = False  # HJ 212: minute data (2051) too
    options: Mapping[str, str | float | bool] = {}  # what else its protocol wants to know, see its device model
    signals: Mapping[str, SignalSpec] = {}
    fault: tuple[Fault, ...] = ()
    mark: tuple[Mark, ...] = ()


class Reported(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What somebody else tells the core meanwhile (a fire alarm host, say); the player of a story sends it.

    ``north_m``: how far north of the scene's own devices it happens.
    """

    at_s: float
    type: str
    source: str
    level: Literal["info", "blue", "yellow", "orange", "red"]
    north_m: float = 0.0


class ExpectedCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    type: str
    department: str
    level: str


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must come out of a story. The simulator only carries it; whoever plays the story checks it."""

    events: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    case: ExpectedCase | None = None
    cleared: tuple[str, ...] = ()


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    zh: str = ""
    en: str = ""
    start: datetime | None = None  # virtual time of second 0 (stories)
    duration_s: float | None = None  # None: until stopped
    seed: int = 1
    placeholders: Mapping[str, str] = {}  # what ${name} stands for unless the caller says otherwise
    bus: tuple[Bus, ...]
    device: tuple[Device, ...] = ()
    camera: tuple[dict[str, Any], ...] = ()
    reported: tuple[Reported, ...] = ()
    expect: Expect | None = None

    @property
    def start_ms(self) -> int | None:
        return None if self.start is None else to_ms(self.start)

    def devices_on(self, bus_id: str) -> list[Device]:
        return [device for device in self.device if device.bus == bus_id]

    def cameras_on(self, bus_id: str) -> list[CameraModel]:
        return [CameraModel.from_table(c, seed=self.seed) for c in self.camera if c.get("bus") == bus_id]


def load_scene(path: str | Path, values: Mapping[str, str] | None = None) -> Scene:
    """Read and check a scene file; ``values`` fill its ``${placeholders}``. Raises ConfigError with file and key."""
    where = Path(path)
    try:
        text = where.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot read the scene ({error})") from error
    return parse_scene(text, str(where), values)


def parse_scene(text: str, name: str, values: Mapping[str, str] | None = None) -> Scene:
    """The same from text; ``name`` is what errors call the file."""
    scene = tomlfile.decode(_filled(text, name, values or {}), Scene, name)
    try:
        scene = msgspec.structs.replace(scene, device=tuple(one for device in scene.device for one in _copies(device)))
        _check(scene)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return scene


def _filled(text: str, name: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders filled; a file that declares none is taken as it is, dollar signs and all."""
    try:
        declared = tomllib.loads(text).get("placeholders", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}") from error
    if unknown := sorted(set(values) - set(declared)):
        raise ConfigError(f"{name}: no placeholder {', '.join(unknown)}; it has {', '.join(declared) or 'none'}")
    if not declared:
        return text
    try:
        return string.Template(text).substitute({**declared, **values})
    except KeyError as error:
        raise ConfigError(f"{name}: ${{{error.args[0]}}} is not among [placeholders]") from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _copies(device: Device) -> list[Device]:
    if device.count == 1:
        return [device]
    if not 1 < device.count <= 9999 or device.address is None:
        raise ConfigError(f"device {device.id}: count: 1 to 9999, for devices with an address")
    first = device.address
    made = []
    for n in range(device.count):
        if isinstance(first, int):
            address: int | str = first + n
        elif first.isdecimal():
            address = f"{int(first) + n:0{len(first)}d}"
        else:
            raise ConfigError(f"device {device.id}: count: address {first} cannot be counted up")
        made.append(msgspec.structs.replace(device, id=f"{device.id}-{n + 1:02d}", address=address, count=1))
    return made


def _check(scene: Scene) -> None:
    if scene.start is not None and scene.start.tzinfo is None:
        raise ConfigError("start: needs a zone, e.g. +08:00")
    if scene.duration_s is not None and scene.duration_s <= 0:
        raise ConfigError("duration_s: must be above 0")
    buses: dict[str, Bus] = {}
    for bus in scene.bus:
        if bus.id in buses:
            raise ConfigError(f"bus {bus.id}: id used twice")
        buses[bus.id] = bus
        _check_bus(bus)
    seen: set[str] = set()
    addresses: set[tuple[str, str]] = set()
    for device in scene.device:
        where = f"device {device.id}"
        if device.id in seen:
            raise ConfigError(f"{where}: id used twice")
        seen.add(device.id)
        if device.bus not in buses:
            raise ConfigError(f"{where}: bus: there is no bus {device.bus!r}; there are {', '.join(buses)}")
        address = _check_device(device, buses[device.bus], where)
        if (device.bus, address) in addresses and not device.clash:
            raise ConfigError(f"{where}: address {address} is used twice on {device.bus}")
        addresses.add((device.bus, address))
    for table in scene.camera:
        model = CameraModel.from_table(table)
        if model.id in seen:
            raise ConfigError(f"camera {model.id}: id used twice")
        seen.add(model.id)
        if model.bus not in buses or buses[model.bus].kind != "camera":
            raise ConfigError(f"camera {model.id}: bus: {model.bus!r} is no bus of kind camera")


def _check_bus(bus: Bus) -> None:
    if bus.kind not in KINDS:
        raise ConfigError(f"bus {bus.id}: kind: {bus.kind!r} is none of {', '.join(KINDS)}")
    allowed = bus.what.places
    for key in ("pty", "listen", "connect", "file"):
        if getattr(bus, key) is not None and key not in allowed:
            raise ConfigError(f"bus {bus.id}: {key}: a bus of kind {bus.kind} takes {' or '.join(allowed)}")
    if not bus.serial and (bus.baud is not None or bus.parity is not None or bus.pace or bus.echo):
        raise ConfigError(f"bus {bus.id}: baud, parity, pace and echo belong to serial buses")
    if bus.baud is not None and not 300 <= bus.baud <= 1_000_000:
        raise ConfigError(f"bus {bus.id}: baud: {bus.baud} is outside 300..1000000")
    if not 0 <= bus.turnaround_ms <= 5000:
        raise ConfigError(f"bus {bus.id}: turnaround_ms: {bus.turnaround_ms} is outside 0..5000")


def _check_device(device: Device, bus: Bus, where: str) -> str:
    """Returns the device's address on its bus as text."""
    if bus.kind == "camera":
        raise ConfigError(f"{where}: bus: {bus.id} is for cameras")
    device_type = devices.load(device.type)
    protocol = bus.what.protocol
    if device_type.protocol != protocol:
        raise ConfigError(f"{where}: type {device.type} speaks {device_type.protocol}, bus {bus.id} {protocol}")
    points = {point.name for point in device_type.points}
    for name, spec in device.signals.items():
        if name not in points:
            raise ConfigError(f"{where}: signals.{name}: {device.type} has {', '.join(sorted(points))}")
        try:
            spec.check()
        except ValueError as error:
            raise ConfigError(f"{where}: signals.{name}: {error}") from error
    for number, mark in enumerate(device.mark):
        if protocol != "hj212":
            raise ConfigError(f"{where}: mark[{number}]: item flags belong to HJ 212 stations")
        if mark.point not in points or mark.flag not in MARKS:
            raise ConfigError(
                f"{where}: mark[{number}]: needs a point of the type and a flag of {''.join(sorted(MARKS))}"
            )
    for number, fault in enumerate(device.fault):
        try:
            _check_fault(fault, bus)
        except ValueError as error:
            raise ConfigError(f"{where}: fault[{number}] ({fault.kind}): {error}") from error
    if device.interval_s < 1:
        raise ConfigError(f"{where}: interval_s: DataTime counts whole seconds, so 1 or more")
    return _address(device, protocol, where)


def _address(device: Device, protocol: str, where: str) -> str:
    if protocol == "hj212":
        if not device.mn or device.address is not None:
            raise ConfigError(f"{where}: an HJ 212 station has mn, not address")
        return device.mn
    if device.mn is not None:
        raise ConfigError(f"{where}: mn belongs to HJ 212 stations")
    if protocol not in ("dlt645", "modbus"):
        # The device model knows what an address of its protocol looks like and says so when it is built.
        if device.address is None:
            raise ConfigError(f"{where}: address: needed (number, or text where leading zeros matter)")
        return str(device.address)
    if protocol == "dlt645":
        number = device.address
        if not isinstance(number, str) or len(number) != 12 or not all(c in "0123456789ABCDEF" for c in number):
            raise ConfigError(f'{where}: address: a meter number is 12 digits in quotes, e.g. "000000000161"')
        return number
    if not isinstance(device.address, int) or not 1 <= device.address <= 255:
        raise ConfigError(f"{where}: address: a Modbus unit is a number from 1 to 247 (TCP boxes: also 255)")
    return str(device.address)


def _check_fault(fault: Fault, bus: Bus) -> None:
    if fault.every < 1:
        raise ValueError("every: 1 or more")
    if fault.for_s is not None and fault.for_s <= 0:
        raise ValueError("for_s: must be above 0")
    if fault.repeat_s is not None and (fault.for_s is None or fault.repeat_s < fault.for_s):
        raise ValueError("repeat_s: needs for_s and must not be shorter")
    if fault.kind in COMMON_FAULTS and (fault.kind == "delay") != (fault.delay_s > 0):
        raise ValueError("delay_s: belongs to kind delay, which needs it")
    stepped = fault.offset_s != 0 or fault.set_to is not None
    if (fault.kind == "clock_step") != stepped or (fault.offset_s != 0 and fault.set_to is not None):
        raise ValueError("clock_step needs either offset_s or set_to, other kinds neither")
    if fault.set_to is not None and fault.set_to.tzinfo is None:
        raise ValueError("set_to: needs a zone, e.g. +08:00")
    known = (COMMON_FAULTS | (SERIAL_FAULTS if bus.serial else frozenset()) | bus.what.faults) - bus.what.no_faults
    if not bus.what.clock:
        known -= {"clock_step"}
    if fault.kind not in known:
        raise ValueError(f"devices on a bus of kind {bus.kind} have {', '.join(sorted(known))}")
