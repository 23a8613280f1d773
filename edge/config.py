"""The gateway's configuration: one TOML file into frozen structs. Reading it never opens a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge.connectors.config import ConnectorConfig
from edge.connectors.config import check as check_connector
from edge.vision.config import CameraConfig, check_camera
from protocols.core import tomlfile
from protocols.core.errors import ConfigError, PackInvalid
from protocols.uplink.topics import valid_gateway_id
from scenarios.binding import ScenarioBinding
from scenarios.packs import bind_all

Positive = Annotated[float, msgspec.Meta(gt=0)]


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this gateway is. ``shard`` is given at enrolment and never changes."""

    id: str
    shard: Annotated[int, msgspec.Meta(ge=0, le=63)]
    state_dir: str = "state"  # outbox, models, evidence; relative to the file
    location: tuple[float, float] | None = None  # lon, lat, WGS 84
    status_listen: str = "127.0.0.1:0"  # the installer's status page; port 0 picks one, "" switches it off


class MqttConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``url``: mqtt://host:port or mqtts://host:port. The password comes from a file, never from here."""

    url: str
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    keepalive_s: Annotated[int, msgspec.Meta(ge=2, le=600)] = 6
    ack_timeout_s: Positive = 8.0  # no progress for this long: send again from the last acknowledged


class OutboxConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_mb: Annotated[int, msgspec.Meta(ge=1)] = 256
    flush_s: Positive = 0.5  # readings wait at most this long for their commit; events do not wait


class ReportRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Overrides the device type's report by exception. ``device`` and ``point`` may hold shell wildcards."""

    device: str
    point: str = "*"
    mode: Literal["deadband", "swinging-door", "all"] = "deadband"
    deadband: Annotated[float, msgspec.Meta(ge=0)] | None = None
    snapshot_s: Positive | None = None


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    device: str
    lon: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]


class EdgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gateway: GatewayConfig
    mqtt: MqttConfig
    outbox: OutboxConfig = OutboxConfig()
    connector: tuple[ConnectorConfig, ...] = ()
    camera: tuple[CameraConfig, ...] = ()
    scenario: tuple[ScenarioBinding, ...] = ()
    report: tuple[ReportRule, ...] = ()
    place: tuple[Place, ...] = ()


def load(path: Path) -> EdgeConfig:
    """Raises ConfigError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    config = tomlfile.decode(text, EdgeConfig, str(path))
    if not valid_gateway_id(config.gateway.id):
        raise ConfigError(f"{path}: gateway.id {config.gateway.id!r}: lower-case letters, digits and hyphens only")
    _check_parts(config, path)
    _refuse_twice([c.id for c in config.connector], "connector id", path)
    devices = [d.id for c in config.connector for d in c.device] + [c.id for c in config.camera]
    _refuse_twice(devices, "device id", path)
    return config


def _check_parts(config: EdgeConfig, path: Path) -> None:
    """What the structs cannot say: device types that exist, polygons with an area, packs with their roles."""
    for connector in config.connector:
        try:
            check_connector(connector)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    for camera in config.camera:
        check_camera(camera, str(path))
    try:
        bind_all(config.scenario)
    except (ConfigError, PackInvalid) as error:
        raise ConfigError(f"{path}: {error}") from error


def _refuse_twice(names: list[str], what: str, path: Path) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: {what} {name!r} is used twice")


def read_secret(path: Path, base: Path) -> str:
    """A password from its own file. Raises ConfigError; the content never appears in a message."""
    full = path if path.is_absolute() else base / path
    try:
        return full.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password file {full}: {type(error).__name__}") from error
