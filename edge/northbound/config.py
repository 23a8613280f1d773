"""What a site writes about systems of others that want the gateway's readings, too."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.mqtt_url import split_url
from protocols.core.errors import ConfigError

Name = Annotated[str, msgspec.Meta(pattern=r"^[^/+#]*$", max_length=128)]


class SparkplugNorthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The gateway as a Sparkplug B edge node of somebody's SCADA: what is reported to the core is published there as
    well. It follows the core, never delays it: what that broker does not take in time is kept for a while in memory,
    and counted when it has to go."""

    url: str  # `mqtt://host:port` or `mqtts://host:port` of the SCADA's broker
    group: Name  # the Sparkplug group
    node: Name = ""  # the edge node's name; empty: the gateway's id
    username: str = ""  # at that broker
    password_file: str = ""  # a file that holds the password and nothing else
    ca_file: str = ""  # the broker's authority (PEM); empty: those the system trusts
    keepalive_s: Annotated[int, msgspec.Meta(ge=2, le=600)] = 30  # without a sign for so long the connection is lost
    primary_host: Name = ""  # publish only while this host application is there; keep meanwhile
    aliases: bool = True  # data carry numbers instead of names
    commands: bool = False  # take orders (DCMD); each device's `allow` counts as ever
    devices: tuple[str, ...] = ("*",)  # device ids, `*` and `?` allowed
    keep: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 20_000  # readings kept while nobody takes them


class NorthboundConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    sparkplug: SparkplugNorthConfig | None = None  # Sparkplug B edge node


def check(config: NorthboundConfig) -> None:
    """What the struct cannot say. Opens nothing; raises ConfigError."""
    if config.sparkplug is not None:
        split_url(config.sparkplug.url)
        if not config.sparkplug.group:
            raise ConfigError("group: must not be empty")
