"""From a scene's tables to device models: the one place that knows which kind of bus needs which mechanics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from firmware_sim.devices.bus import PolledBus, PolledDevice
from firmware_sim.devices.cjt188_meter import Cjt188Meter
from firmware_sim.devices.dialing import DialingStation
from firmware_sim.devices.dlt645_meter import Dlt645Meter
from firmware_sim.devices.mbus_meter import MbusMeter
from firmware_sim.devices.modbus_device import ModbusDevice
from firmware_sim.devices.signal_controller import ControllerEndpoint, SignalController
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.scene import Bus, Device, Scene
from protocols.cjt188.endpoint import Cjt188Endpoint
from protocols.core.endpoint import Endpoint, Role
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.mbus.endpoint import MbusEndpoint
from protocols.modbus.endpoint import ModbusEndpoint

#: A polled kind of bus: its slave endpoint and its device model. To add a protocol, add a row.
POLLED: dict[str, tuple[Callable[[], Endpoint[Any]], Callable[[Device, Faults, World], PolledDevice[Any]]]] = {
    "modbus-rtu": (lambda: ModbusEndpoint(Role.SLAVE, framing="rtu"), ModbusDevice),
    "modbus-tcp": (lambda: ModbusEndpoint(Role.SLAVE, framing="tcp"), ModbusDevice),
    "dlt645": (lambda: Dlt645Endpoint(Role.SLAVE), Dlt645Meter),
    "cjt188": (lambda: Cjt188Endpoint(Role.SLAVE), Cjt188Meter),
    "mbus": (lambda: MbusEndpoint(Role.SLAVE), MbusMeter),
    "gb20999": (lambda: ControllerEndpoint(Role.SLAVE), SignalController),
}


def faults_of(device: Device, kind: str, world: World) -> Faults:
    return Faults(device.id, kind, device.fault, world.seed, world.ledger)


def polled_bus(bus: Bus, scene: Scene, world: World) -> PolledBus[Any]:
    """The slaves of one polled bus."""
    new_endpoint, model = POLLED[bus.kind]
    slaves = [model(device, faults_of(device, bus.kind, world), world) for device in scene.devices_on(bus.id)]
    return PolledBus(bus, slaves, world, new_endpoint)


#: A kind of station that dials in: ``module:class``, loaded when a scene has one.
STATIONS: dict[str, str] = {
    "hj212-client": "firmware_sim.devices.hj212_station:Hj212Station",
    "gb28181-client": "firmware_sim.devices.gb28181_camera:Gb28181Camera",
    "ocpp-station": "firmware_sim.devices.ocpp_station:OcppStation",
    "jt808-client": "firmware_sim.devices.jt808_terminal:Jt808Terminal",
    "gb26875-client": "firmware_sim.devices.gb26875_transmitter:Gb26875Transmitter",
    "gb32960-client": "firmware_sim.devices.gb32960_vehicle:Gb32960Vehicle",
    "sl651-client": "firmware_sim.devices.sl651_station:Sl651Station",
}
#: A kind with sockets of its own: ``module:class``, a LiveBus made from (bus, scene, world).
SERVICES: dict[str, str] = {
    "onvif": "firmware_sim.devices.onvif_camera:OnvifBus",
    "bacnet-device": "firmware_sim.devices.bacnet_device:BacnetBus",
    "gb28181-client-udp": "firmware_sim.devices.gb28181_camera:UdpCameras",
    "opcua-server": "firmware_sim.devices.opcua_server:OpcuaBus",
    "v2x-rsu": "firmware_sim.devices.rsu:RsuBus",
    "chirpstack": "firmware_sim.devices.chirpstack:ChirpstackBus",
    "nmea": "firmware_sim.devices.nmea_receiver:NmeaBus",
    "sparkplug-node": "firmware_sim.devices.sparkplug_node:SparkplugBus",
}


def _load(where: str) -> Callable[..., Any]:
    module, _, name = where.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def stations(bus: Bus, scene: Scene, world: World) -> Sequence[DialingStation]:
    """The stations that dial from one bus; each has a connection of its own."""
    model = _load(STATIONS[bus.kind])
    gather = getattr(model, "gather", None)  # several devices of the scene are one station
    if gather is not None:
        found: Sequence[DialingStation] = gather(
            scene.devices_on(bus.id), lambda device: faults_of(device, bus.kind, world), world
        )
        return found
    return [model(device, faults_of(device, bus.kind, world), world) for device in scene.devices_on(bus.id)]


def service(bus: Bus, scene: Scene, world: World) -> Any:
    """The LiveBus of a kind with sockets of its own."""
    return _load(SERVICES[bus.kind])(bus, scene, world)
