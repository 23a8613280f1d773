"""Cameras and signal controllers: each connector is loaded only where a site has one of its kind."""

from __future__ import annotations

from pathlib import Path

from edge.clock import Clock
from edge.connectors.base import Connector, LinkFactory
from edge.connectors.config import split_address
from edge.connectors.street_config import (
    Gb20999Config,
    Gb28181ServerConfig,
    OnvifConfig,
    StreetConfig,
    split_scheme,
)


def build_street(config: StreetConfig, clock: Clock, base: Path, link_factory: LinkFactory | None) -> Connector:
    """``base``: what relative paths of password files count from."""
    match config:
        case Gb28181ServerConfig():
            from edge.connectors.gb28181_server import Gb28181Server

            return Gb28181Server(config, clock, base, link_factory)
        case OnvifConfig():
            from edge.connectors.onvif_camera import OnvifCameras

            return OnvifCameras(config, clock, base)
        case Gb20999Config():
            from edge.connectors.gb20999 import Gb20999

            return Gb20999(config, clock, link_factory or signal_link(config))


def signal_link(config: Gb20999Config) -> LinkFactory:
    """What opens the link to a signal controller."""
    from edge.connectors.datagrams import udp_client
    from edge.connectors.links import tcp_client

    scheme, rest = split_scheme(config.address, f"connector {config.id!r}: address")
    host, port = split_address(rest, f"connector {config.id!r}: address")
    return udp_client(host, port) if scheme == "udp" else tcp_client(host, port)
