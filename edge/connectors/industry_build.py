"""Plants, buildings and radio sensors: each connector's library is loaded only where a site has one of its kind."""

from __future__ import annotations

from pathlib import Path

from edge.clock import Clock
from edge.connectors.base import Connector
from edge.connectors.industry_config import (
    BacnetConfig,
    ChirpstackConfig,
    IndustryConfig,
    OpcuaConfig,
    SparkplugHostConfig,
)


def build_industry(config: IndustryConfig, clock: Clock, base: Path) -> Connector:
    """``base``: what relative paths of certificates and password files count from."""
    match config:
        case SparkplugHostConfig():
            from edge.connectors.mqtt_link import dial
            from edge.connectors.sparkplug_host import SparkplugHost

            return SparkplugHost(config, clock, dial(config, base))
        case ChirpstackConfig():
            from edge.connectors.chirpstack import Chirpstack
            from edge.connectors.mqtt_link import dial

            return Chirpstack(config, clock, dial(config, base))
        case OpcuaConfig():
            from edge.connectors.opcua import OpcuaClient

            return OpcuaClient(config, clock, base)
        case BacnetConfig():
            from edge.connectors.bacnet import BacnetClient

            return BacnetClient(config, clock)
