"""What a site writes about plants, buildings and radio sensors: Sparkplug B, ChirpStack, OPC UA, BACnet/IP."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from edge.connectors.scalars import DeviceId, Seconds
from edge.mqtt_url import split_url
from protocols.core.errors import ConfigError
from protocols.devices import DeviceType

DevEui = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]
Instance = Annotated[int, msgspec.Meta(ge=0, le=4_194_302)]
Priority = Annotated[int, msgspec.Meta(ge=1, le=16)]


class _Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    url: str  # `mqtt://host:port` or `mqtts://host:port` of the other side's broker
    username: str = ""  # at that broker
    password_file: str = ""  # a file that holds the password and nothing else
    ca_file: str = ""  # the broker's authority (PEM); empty: those the system trusts
    keepalive_s: Annotated[int, msgspec.Meta(ge=2, le=600)] = 30  # without a sign for so long the connection is lost


class SparkplugDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    node: str  # `group/node`, as in its topics
    device: str = ""  # the Sparkplug device; empty: metrics of the node itself
    prefix: str = ""  # put before the metric names of the type, where a node serves several of its kind
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class SparkplugHostConfig(_Broker, frozen=True, tag="sparkplug-host", tag_field="kind"):
    """Other people's Sparkplug B edge nodes publish to a broker; we listen as a host application."""

    id: DeviceId
    device: tuple[SparkplugDevice, ...]
    host_id: str = ""  # our name in STATE; empty: `citybrain-` and the connector's id
    group: str = ""  # only this group; empty: all
    read_back_s: Seconds = 5.0  # how long a command waits for the data that show it


class ChirpstackDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    dev_eui: DevEui  # 16 hex digits, lower case
    silent_s: Seconds = 86_400.0  # a sensor not heard of for so long is offline
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class ChirpstackConfig(_Broker, frozen=True, tag="chirpstack", tag_field="kind"):
    """LoRaWAN sensors behind a ChirpStack server (version 3 or 4) that publishes JSON to a broker."""

    id: DeviceId
    device: tuple[ChirpstackDevice, ...]
    application: str = ""  # only this application; empty: all
    downlink_s: Seconds = 60.0  # how long a command waits for the gateway's word that it was sent


class OpcuaDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    root: str = ""  # what `{root}` in the type's node ids stands for
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class OpcuaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="opcua", tag_field="kind"):
    """A server we subscribe to. ``security`` other than "none" needs our certificate and key, and the server must
    trust that certificate."""

    id: DeviceId
    url: str  # `opc.tcp://host:port/path` of the server
    device: tuple[OpcuaDevice, ...]
    security: Literal["none", "sign", "sign-encrypt"] = "none"  # of messages
    policy: Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "Basic256Sha256"  # of keys
    certificate_file: str = ""  # ours (DER or PEM)
    key_file: str = ""  # of our certificate (PEM)
    server_certificate_file: str = ""  # the server's, to accept no other; empty: the one it shows
    username: str = ""  # empty: anonymous
    password_file: str = ""  # a file that holds the password and nothing else
    publish_s: Seconds = 1.0  # how often the server tells what changed
    sample_s: Seconds = 1.0  # how often the server looks at a node
    queue: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10  # values of a node kept between two publications
    timeout_s: Seconds = 5.0


class BacnetDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    instance: Instance  # the BACnet device instance
    address: str = ""  # `host:port`; empty: found by Who-Is
    poll_s: Seconds = 60.0
    cov: bool = True  # ask to be told of changes; what refuses is polled
    priority: Priority = 8  # commands are written at it (8: manual operator)
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class BacnetConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="bacnet", tag_field="kind"
):
    """BACnet/IP devices of a building. Broadcasts do not cross routers: behind one, name the building's BBMD."""

    id: DeviceId
    address: str  # ours with the network: `192.168.1.10/24:47808`
    device: tuple[BacnetDevice, ...]
    instance: Instance = 4_194_300  # our own device instance, used once in the building
    bbmd: str = ""  # `host:port` to register with as a foreign device
    bbmd_ttl_s: Annotated[int, msgspec.Meta(ge=30, le=65_535)] = 300  # the registration is renewed in this time
    cov_lifetime_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 600  # of a subscription; renewed at two thirds
    timeout_s: Seconds = 3.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1
    slow_poll_s: Seconds = 300.0


IndustryConfig = SparkplugHostConfig | ChirpstackConfig | OpcuaConfig | BacnetConfig


def check_industry(config: IndustryConfig, where: str) -> tuple[str, list[str], str]:
    """The family, what must be used once, and the key's name. Raises ConfigError."""
    match config:
        case SparkplugHostConfig():
            _url(config.url, where)
            for device in config.device:
                group, slash, node = device.node.partition("/")
                if not (slash and group and node) or set("/+#") & set(node + device.device):
                    raise ConfigError(f"{where}: device {device.id!r}: node: {device.node!r} is not group/node")
            for text, key in ((config.host_id, "host_id"), (config.group, "group")):
                if set("/+#") & set(text):
                    raise ConfigError(f"{where}: {key}: without / + #")
            places = [f"{one.node}/{one.device} {one.prefix}".strip() for one in config.device]
            return "sparkplug_b", places, "device.node"
        case ChirpstackConfig():
            _url(config.url, where)
            if set("/+#") & set(config.application):
                raise ConfigError(f"{where}: application: without / + #")
            return "lorawan-chirpstack", [one.dev_eui for one in config.device], "device.dev_eui"
        case OpcuaConfig():
            parts = urlsplit(config.url)
            if parts.scheme != "opc.tcp" or not parts.hostname:
                raise ConfigError(f"{where}: url: {config.url!r} is not opc.tcp://host:port/path")
            if config.security != "none" and not (config.certificate_file and config.key_file):
                raise ConfigError(f"{where}: security: {config.security} needs certificate_file and key_file")
            if config.password_file and config.security == "none":
                raise ConfigError(f"{where}: password_file: a password needs security other than none")
            return "opcua", [f"{one.type} {one.root}".strip() for one in config.device], "device.root"
        case BacnetConfig():
            _bacnet_address(config.address, f"{where}: address")
            return "bacnet", [str(one.instance) for one in config.device], "device.instance"


def _url(url: str, where: str) -> None:
    try:
        split_url(url)
    except ConfigError as error:
        raise ConfigError(f"{where}: url: {error}") from error


def _bacnet_address(text: str, key: str) -> None:
    network, _, port = text.partition(":")
    try:
        ipaddress.IPv4Interface(network)
    except ValueError as error:
        raise ConfigError(f"{key}: {text!r} is not address/bits:port ({error})") from error
    if "/" not in network or not (port == "" or (port.isdecimal() and 0 < int(port) <= 65_535)):
        raise ConfigError(f"{key}: {text!r} is not address/bits:port, e.g. 192.168.1.10/24:47808")


def check_keys(kind: DeviceType, root: str, key: str) -> None:
    """An OPC UA type whose node ids have a placeholder needs something to put there."""
    if not root and any(point.value is not None and "{root}" in point.value.key for point in kind.points):
        raise ConfigError(f"{key}: root: {kind.id} has node ids with {{root}}")
