"""Every field protocol by name, so that generic code (property suite, decoding of captures) needs no list of its own.

Codecs are imported when asked for: a gateway with meters only never loads pymodbus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from protocols.core.endpoint import Endpoint, Role
from protocols.core.errors import ConfigError
from protocols.core.explain import Explain


@dataclass(frozen=True, slots=True)
class ProtocolEntry:
    """``factory`` is ``module:Class``; ``options`` are always given; ``can_listen``: takes captures of both
    directions."""

    name: str
    zh: str
    standard: str
    factory: str
    options: tuple[tuple[str, str], ...] = ()
    can_listen: bool = False

    def endpoint(self, role: Role, **options: Any) -> Endpoint[Any]:
        """A fresh endpoint of that role."""
        module, _, name = self.factory.partition(":")
        build: Callable[..., Endpoint[Any]] = getattr(import_module(module), name)
        return build(role, **dict(self.options), **options)

    def listener(self) -> Endpoint[Any]:
        """An endpoint that takes what is in a capture, whoever sent it."""
        return self.endpoint(Role.MASTER, **({"listen": True} if self.can_listen else {}))


_MODBUS = "protocols.modbus.endpoint:ModbusEndpoint"
_SIGNAL = "protocols.traffic_signal.endpoint:SignalEndpoint"

PROTOCOLS: dict[str, ProtocolEntry] = {
    entry.name: entry
    for entry in (
        ProtocolEntry(
            "gb26875", "消防设施联网", "GB/T 26875.3-2011", "protocols.gb26875.endpoint:Gb26875Endpoint"
        ),
        ProtocolEntry(
            "gb32960", "电动汽车远程服务与管理", "GB/T 32960.3-2016, 2025", "protocols.gb32960.endpoint:Gb32960Endpoint"
        ),
        ProtocolEntry(
            "hj212", "污染物在线监控", "HJ 212-2017, 2005; 2025 in part", "protocols.hj212.endpoint:Hj212Endpoint"
        ),
        ProtocolEntry(
            "nmea_beidou", "卫星定位与北斗短报文", "NMEA 0183 4.11", "protocols.nmea_beidou.endpoint:NmeaEndpoint"
        ),
        ProtocolEntry(
            "jt808", "道路运输车辆终端", "JT/T 808-2019, 2013, 2011", "protocols.jt808.endpoint:Jt808Endpoint"
        ),
        ProtocolEntry("sl651", "水文监测", "SL 651-2014", "protocols.sl651.endpoint:Sl651Endpoint"),
        ProtocolEntry(
            "dlt645", "电能表", "DL/T 645-2007, 1997", "protocols.dlt645.endpoint:Dlt645Endpoint", can_listen=True
        ),
        ProtocolEntry(
            "cjt188", "水气热表", "CJ/T 188-2004, 2018", "protocols.cjt188.endpoint:Cjt188Endpoint", can_listen=True
        ),
        ProtocolEntry("mbus", "M-Bus", "EN 13757-2, -3", "protocols.mbus.endpoint:MbusEndpoint", can_listen=True),
        ProtocolEntry("modbus-rtu", "Modbus RTU", "Modbus over serial line 1.02", _MODBUS, (), can_listen=True),
        ProtocolEntry(
            "modbus-tcp", "Modbus TCP", "Modbus TCP 1.0b", _MODBUS, (("framing", "tcp"),), can_listen=True
        ),
        ProtocolEntry(
            "modbus-ascii", "Modbus ASCII", "Modbus over serial line 1.02", _MODBUS, (("framing", "ascii"),),
            can_listen=True,
        ),
        ProtocolEntry(
            "gb20999-tcp", "交通信号控制机（TCP、串口）", "GB/T 20999-2017", _SIGNAL, (("framing", "stream"),),
            can_listen=True,
        ),
        ProtocolEntry(
            "gb20999-udp", "交通信号控制机（UDP）", "GB/T 20999-2017", _SIGNAL, (("framing", "datagram"),),
            can_listen=True,
        ),
        ProtocolEntry("gb28181", "视频监控联网（SIP）", "GB/T 28181-2016", "protocols.gb28181.endpoint:SipEndpoint"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table of supported protocols. ``name`` is the word of device types, vectors and the command line.

    ``explain``: ``module:function`` behind ``citybrain decode``; ``endpoints``: names in PROTOCOLS (none where a
    library owns the wire); ``connectors``: kinds in a gateway's configuration; ``simulated``: kinds of bus in a scene;
    ``library``: whose codec is behind it ("" ours).
    """

    name: str
    zh: str
    en: str
    standard: str
    explain: str = ""
    endpoints: tuple[str, ...] = ()
    connectors: tuple[str, ...] = ()
    simulated: tuple[str, ...] = ()
    library: str = ""

    def explainer(self) -> Explain:
        """The function that tells a capture. Raises ConfigError where the family has none (no frames of its own)."""
        if not self.explain:
            raise ConfigError(f"{self.name}: nothing to decode; its frames belong to {self.library or 'a library'}")
        module, _, name = self.explain.partition(":")
        function: Explain = getattr(import_module(module), name)
        return function


def _family(name: str, zh: str, en: str, standard: str, **more: Any) -> Family:
    return Family(name, zh, en, standard, **{"explain": f"protocols.{name.replace('-', '_')}.explain:explain", **more})


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # -- meters and industry
        _family(
            "modbus", "Modbus", "Modbus RTU, TCP, ASCII", "Modbus Application Protocol 1.1b3",
            endpoints=("modbus-rtu", "modbus-tcp", "modbus-ascii"), connectors=("modbus-rtu", "modbus-tcp"),
            simulated=("modbus-rtu", "modbus-tcp"), library="pymodbus (framers, checksums)",
        ),
        _family(
            "dlt645", "多功能电能表", "electricity meters", "DL/T 645-2007, 1997",
            endpoints=("dlt645",), connectors=("dlt645",), simulated=("dlt645",),
        ),
        _family(
            "cjt188", "水表、燃气表、热量表", "water, gas and heat meters", "CJ/T 188-2004, 2018",
            endpoints=("cjt188",), connectors=("cjt188",), simulated=("cjt188",),
        ),
        _family(
            "mbus", "M-Bus 仪表", "M-Bus meters (heat, water, gas, power)", "EN 13757-2, -3",
            endpoints=("mbus",), connectors=("mbus",), simulated=("mbus",), library="pyMeterBus (table of VIF codes)",
        ),
        Family(
            "opcua", "OPC UA", "OPC UA client", "OPC UA 1.05 (IEC 62541)",
            connectors=("opcua",), simulated=("opcua-server",), library="asyncua",
        ),
        Family(
            "bacnet", "BACnet/IP", "building automation", "ASHRAE 135, annex J",
            connectors=("bacnet",), simulated=("bacnet-device",), library="bacpypes3",
        ),
        _family(
            "sparkplug_b", "Sparkplug B", "Sparkplug B over MQTT", "Eclipse Sparkplug 3.0",
            connectors=("sparkplug-host",), simulated=("sparkplug-node",), library="protobuf (wire format)",
        ),
        _family(
            "lorawan-chirpstack", "LoRaWAN(ChirpStack)", "LoRaWAN sensors by a ChirpStack server",
            "ChirpStack 4 and 3 over MQTT; LoRaWAN 1.0.3", connectors=("chirpstack",), simulated=("chirpstack",),
        ),
        # -- environment and hydrology
        _family(
            "hj212", "污染物在线监控", "pollution and dust monitoring", "HJ 212-2017, 2005; 2025 in part",
            endpoints=("hj212",), connectors=("hj212-server",), simulated=("hj212-client",),
        ),
        _family(
            "sl651", "水文监测", "rain, rivers and reservoirs", "SL 651-2014",
            endpoints=("sl651",), connectors=("sl651-server",), simulated=("sl651-client",),
        ),
        # -- fire and vehicles
        _family(
            "gb26875", "消防用户信息传输装置", "fire alarm transmitters", "GB/T 26875.3-2011",
            endpoints=("gb26875",), connectors=("gb26875-server",), simulated=("gb26875-client",),
        ),
        _family(
            "gb32960", "电动汽车", "electric vehicles", "GB/T 32960.3-2016, 2025",
            endpoints=("gb32960",), connectors=("gb32960-server",), simulated=("gb32960-client",),
        ),
        _family(
            "jt808", "道路运输车辆卫星定位终端", "vehicle terminals", "JT/T 808-2019, 2013, 2011; JT/T 1078-2016",
            endpoints=("jt808",), connectors=("jt808-server",), simulated=("jt808-client",),
        ),
        _family(
            "ocpp", "充电桩", "electric vehicle chargers", "OCPP 1.6J, 2.0.1",
            connectors=("ocpp-server",), simulated=("ocpp-station",), library="ocpp (schemas), websockets",
        ),
        _family(
            "nmea_beidou", "卫星定位与北斗短报文", "GNSS receivers and BeiDou messages",
            "NMEA 0183 4.11; BDS text sets 4.0 and 2.0",
            endpoints=("nmea_beidou",), connectors=("nmea",), simulated=("nmea",),
            library="pynmeagps (sentence tables)",
        ),
        # -- roadside and video
        _family(
            "traffic-signal", "交通信号控制机", "traffic signal controllers", "GB/T 20999-2017",
            endpoints=("gb20999-tcp", "gb20999-udp"), connectors=("gb20999",), simulated=("gb20999",),
        ),
        _family(
            "v2x", "车路协同", "vehicles and roadside units (V2X)", "T/CSAE 53 (YD/T 3709), SAE J2735",
            connectors=("v2x-udp",), simulated=("v2x-rsu",), library="asn1tools (UPER)",
        ),
        _family(
            "onvif", "网络摄像机（ONVIF）", "network cameras by ONVIF", "ONVIF Profile S, T", explain="",
            connectors=("onvif",), simulated=("onvif",), library="onvif-zeep-async (SOAP)",
        ),
        _family(
            "gb28181", "视频监控联网", "video surveillance over SIP", "GB/T 28181-2016, 2022",
            endpoints=("gb28181",), connectors=("gb28181-server",),
            simulated=("gb28181-client", "gb28181-client-udp"),
        ),
    )
}  # fmt: skip


def family(name: str) -> Family:
    """The family of that name. Raises ConfigError naming the known ones."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise ConfigError(f"unknown protocol {name!r}; known: {', '.join(FAMILIES)}") from None


def protocol(name: str) -> ProtocolEntry:
    """The entry of that name. Raises ConfigError naming the known ones."""
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise ConfigError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}") from None
