"""From a connector's configuration to the connector: the one place that knows every kind."""

from __future__ import annotations

from pathlib import Path

from edge.clock import Clock
from edge.connectors.base import Connector, LinkFactory
from edge.connectors.config import (
    ConnectorConfig,
    Dlt645Config,
    Hj212ServerConfig,
    ModbusRtuConfig,
    ModbusTcpConfig,
    check,
    split_address,
)
from edge.connectors.fleet_config import Jt808ServerConfig, NmeaConfig
from edge.connectors.gb_config import Gb26875ServerConfig, Gb32960ServerConfig
from edge.connectors.hydrology_config import Sl651ServerConfig
from edge.connectors.industry_config import BacnetConfig, ChirpstackConfig, OpcuaConfig, SparkplugHostConfig
from edge.connectors.meter_config import Cjt188Config, MbusConfig
from edge.connectors.road_config import OcppServerConfig, V2xUdpConfig
from edge.connectors.street_config import Gb20999Config, Gb28181ServerConfig, OnvifConfig


def build(
    config: ConnectorConfig, clock: Clock, link_factory: LinkFactory | None = None, *, base: Path = Path()
) -> Connector:
    """The connector; opens nothing yet. Raises ConfigError. Relative paths in it count from ``base``.

    ``link_factory`` replaces the real link. For kinds that listen (``hj212-server``, ``sl651-server``) it is awaited
    again and again and gives the next station that dials in.
    """
    check(config)
    match config:
        case Hj212ServerConfig():
            from edge.connectors.hj212_server import Hj212Server

            return Hj212Server(config, clock, link_factory)
        case Sl651ServerConfig():
            from edge.connectors.sl651_server import Sl651Server

            return Sl651Server(config, clock, link_factory)
        case OcppServerConfig():
            from edge.connectors.ocpp_server import OcppServer

            return OcppServer(config, clock, link_factory, base=base)
        case V2xUdpConfig():
            from edge.connectors.v2x_udp import V2xUdp

            return V2xUdp(config, clock)
        case Jt808ServerConfig():
            from edge.connectors.jt808_server import Jt808Server

            return Jt808Server(config, clock, link_factory, base=base)
        case NmeaConfig():
            from edge.connectors.nmea_line import NmeaLine  # loads pynmeagps

            return NmeaLine(config, clock, link_factory or _real(config))
        case Gb26875ServerConfig():
            from edge.connectors.gb26875_server import Gb26875Server

            return Gb26875Server(config, clock, link_factory)
        case Gb32960ServerConfig():
            from edge.connectors.gb32960_server import Gb32960Server

            return Gb32960Server(config, clock, link_factory)
        case ModbusRtuConfig() | ModbusTcpConfig():
            from edge.connectors.modbus_bus import ModbusBus  # loads pymodbus

            return ModbusBus(config, clock, link_factory or _real(config))
        case Dlt645Config():
            from edge.connectors.dlt645_bus import Dlt645Bus

            return Dlt645Bus(config, clock, link_factory or _real(config), base)
        case Cjt188Config():
            from edge.connectors.cjt188_bus import Cjt188Bus

            return Cjt188Bus(config, clock, link_factory or _real(config))
        case MbusConfig():
            from edge.connectors.mbus_bus import MbusBus  # loads pyMeterBus

            return MbusBus(config, clock, link_factory or _real(config))
        case SparkplugHostConfig() | ChirpstackConfig() | OpcuaConfig() | BacnetConfig():
            from edge.connectors.industry_build import build_industry

            return build_industry(config, clock, base)
        case Gb28181ServerConfig() | OnvifConfig() | Gb20999Config():
            from edge.connectors.street_build import build_street

            return build_street(config, clock, base, link_factory)


def _real(
    config: ModbusRtuConfig | ModbusTcpConfig | Dlt645Config | Cjt188Config | MbusConfig | NmeaConfig,
) -> LinkFactory:
    from edge.connectors.links import polled_line, tcp_client

    if isinstance(config, ModbusTcpConfig):
        host, port = split_address(config.address, f"connector {config.id!r}: address")
        return tcp_client(host, port)
    return polled_line(config.port, baud=config.baud, parity=config.parity, stop_bits=config.stop_bits)


def real_link(config: ConnectorConfig) -> LinkFactory | None:
    """What opens the connector's link; None for a kind that listens, or whose library has sockets of its own."""
    from edge.connectors.links import polled_line, tcp_client

    if isinstance(config, ModbusTcpConfig):
        host, port = split_address(config.address, f"connector {config.id!r}: address")
        return tcp_client(host, port)
    if isinstance(config, Gb20999Config):
        from edge.connectors.street_build import signal_link

        return signal_link(config)
    baud, line = getattr(config, "baud", None), getattr(config, "port", None)
    if isinstance(baud, int) and isinstance(line, str):
        parity, stop_bits = getattr(config, "parity", "N"), getattr(config, "stop_bits", 1)
        return polled_line(line, baud=baud, parity=parity, stop_bits=stop_bits)
    return None
