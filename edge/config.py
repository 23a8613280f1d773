"""The gateway's configuration: one TOML file into frozen structs. Reading it never opens a connection."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from edge.connectors.config import ConnectorConfig, split_address
from edge.connectors.config import check as check_connector
from edge.identity.config import IdentityConfig
from edge.interlocks import InterlockConfig
from edge.interlocks import check as check_interlock
from edge.mqtt_url import split_urls
from edge.northbound.config import NorthboundConfig
from edge.northbound.config import check as check_northbound
from edge.updates.config import UpdatesConfig
from edge.updates.config import check as check_updates
from edge.vision.config import CameraConfig, check_camera
from protocols.core import tomlfile
from protocols.core.errors import ConfigError, PackInvalid
from protocols.uplink.topics import Lane, valid_gateway_id
from scenarios.binding import ScenarioBinding
from scenarios.packs import bind_all

T = TypeVar("T")

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this gateway is. ``shard`` is given at enrolment and never changes."""

    id: str
    shard: Annotated[int, msgspec.Meta(ge=0, le=63)]
    state_dir: str = "state"  # outbox, models, evidence; relative to the file
    location: tuple[float, float] | None = None  # lon, lat, WGS 84
    status_listen: str = "127.0.0.1:0"  # the installer's status page; port 0 picks one, "" switches it off


class MqttConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``url``: mqtt://host:port or mqtts://host:port; several nodes of a cluster, parted by commas, are tried in turn.
    The password comes from a file, never from here."""

    url: str
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""  # client certificate with its chain; may hold the key too (as `citybrain edge enrol` writes it)
    key_file: str = ""  # the certificate's key, where it is a file of its own
    keepalive_s: Annotated[int, msgspec.Meta(ge=2, le=600)] = 4  # a dead link is noticed within twice this
    ack_timeout_s: Positive = 8.0  # no progress for this long: send again from the last acknowledged
    budget_mb_per_day: NotNegative = 0.0  # metered link: 10^6 bytes a day (UTC+8), all layers from IP up; 0: no bound
    budget_mb_per_hour: NotNegative = 0.0  # the same for an hour; both may hold


class LaneTtl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hours; 0: for ever. Alarms and device states are not in the list: they never expire."""

    data: NotNegative = 0.0  # readings taken while the way to the core was open
    backfill: NotNegative = 0.0  # readings taken while it was not
    evidence: NotNegative = 0.0  # pictures

    def ms(self) -> dict[Lane, int]:
        """Lanes that have a limit, in milliseconds."""
        hours: dict[Lane, float] = {"data": self.data, "backfill": self.backfill, "evidence": self.evidence}
        return {lane: round(limit * 3_600_000) for lane, limit in hours.items() if limit}


class OutboxConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_mb: Annotated[int, msgspec.Meta(ge=1)] = 256
    flush_s: Positive = 0.5  # readings wait at most this long for their commit; events do not wait
    ttl_h: LaneTtl = LaneTtl()  # hours a row waits for its sending at most, by lane; events wait for ever


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
    northbound: NorthboundConfig = NorthboundConfig()
    updates: UpdatesConfig = UpdatesConfig()
    identity: IdentityConfig | None = None  # how the certificate is renewed; none: it is not
    interlock: tuple[InterlockConfig, ...] = ()


def load(path: Path) -> EdgeConfig:
    """Raises ConfigError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    config = tomlfile.decode(text, EdgeConfig, str(path))
    _Check(config, text, str(path)).all()
    return config


def check(config: EdgeConfig, name: str) -> None:
    """What the structs cannot say, for a configuration that came from no file. Raises ConfigError."""
    _Check(config, "", name).all()


class _Check:
    """What the structs cannot say: names used once, places on Earth, types that exist, packs with their roles."""

    def __init__(self, config: EdgeConfig, text: str, name: str) -> None:
        self._config = config
        self._text = text
        self._name = name

    def all(self) -> None:
        self._gateway(self._config.gateway)
        self._within("mqtt", "url", split_urls, self._config.mqtt.url)
        for at, connector in enumerate(self._config.connector):
            self._within(f"connector[{at}]", "", check_connector, connector)
        for camera in self._config.camera:
            check_camera(camera, self._name)
        self._within("northbound.sparkplug", "", check_northbound, self._config.northbound)
        self._within("updates", "url", check_updates, self._config.updates)
        for at, rule in enumerate(self._config.report):
            if not math.isfinite(rule.snapshot_s or 0) or not math.isfinite(rule.deadband or 0):
                raise self._error(f"report[{at}]", "snapshot_s", "deadband and snapshot_s are finite numbers")
        for at, interlock in enumerate(self._config.interlock):
            self._within(f"interlock[{at}]", "", check_interlock, interlock)
        known = self._once()
        for at, interlock in enumerate(self._config.interlock):
            sources = tuple(source.partition("/")[0] for source in interlock.inputs.values())
            self._known(f"interlock[{at}]", "inputs", sources, known)
        for at, binding in enumerate(self._config.scenario):
            self._within(f"scenario[{at}]", "pack", bind_all, [binding])
            for role, devices in binding.devices.items():
                self._known(f"scenario[{at}].devices", role, devices, known)
        for at, place in enumerate(self._config.place):
            self._known(f"place[{at}]", "device", (place.device,), known)

    def _gateway(self, gateway: GatewayConfig) -> None:
        if not valid_gateway_id(gateway.id):
            raise self._error("gateway", "id", f"{gateway.id!r}: lower-case letters, digits and hyphens only")
        if gateway.location is not None:
            lon, lat = gateway.location
            if not (-180 <= lon <= 180 and -90 <= lat <= 90):
                raise self._error("gateway", "location", f"{gateway.location} is not [longitude, latitude] in degrees")
        if gateway.status_listen:
            self._within(
                "gateway", "status_listen", lambda listen: split_address(listen, "host"), gateway.status_listen
            )

    def _once(self) -> set[str]:
        """Every device's id; connectors and devices are each named once."""
        connectors: set[str] = set()
        known: set[str] = set()
        for at, connector in enumerate(self._config.connector):
            self._new(f"connector[{at}]", "connector id", connector.id, connectors)
            for number, device in enumerate([device.id for device in connector.device]):
                self._new(f"connector[{at}].device[{number}]", "device id", device, known)
        for at, camera in enumerate(self._config.camera):
            self._new(f"camera[{at}]", "device id", camera.id, known)
        return known

    def _new(self, where: str, what: str, name: str, seen: set[str]) -> None:
        if name in seen:
            raise self._error(where, "id", f"{what} {name!r} is used twice")
        seen.add(name)

    def _known(self, where: str, key: str, devices: tuple[str, ...], known: set[str]) -> None:
        for device in devices:
            if device not in known:
                raise self._error(where, key, f"no device {device!r} on this gateway")

    def _within(self, where: str, key: str, check: Callable[[T], object], value: T) -> None:
        try:
            check(value)
        except (ConfigError, PackInvalid) as error:
            raise self._error(where, key, str(error)) from error

    def _error(self, where: str, key: str, message: str) -> ConfigError:
        line = tomlfile.locate(self._text, f"$.{where}", key)
        place = f"{self._name}:{line}" if line else self._name
        return ConfigError(f"{place}: {message} (at {where}{'.' + key if key else ''})")


def read_secret(path: Path, base: Path) -> str:
    """A password from its own file. Raises ConfigError; the content never appears in a message."""
    full = path if path.is_absolute() else base / path
    try:
        return full.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password file {full}: {type(error).__name__}") from error
