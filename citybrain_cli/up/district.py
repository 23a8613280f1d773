"""The demonstration district: three gateways of Hefei, their devices, places and scenarios.

One table says everything; the agents' configuration, the broker's users, the core's registry and the simulator's
placeholders are all written from it, so they cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citybrain_cli.up.layout import Layout


@dataclass(frozen=True, slots=True)
class Device:
    id: str
    zh: str
    en: str
    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class Gateway:
    id: str
    shard: int
    zh: str
    en: str
    lon: float
    lat: float
    devices: tuple[Device, ...]


_METERS = tuple(
    Device(
        f"meter-{n:02d}",
        f"配电箱{n:02d}号电表",
        f"Cabinet {n:02d} meter",
        117.2885 + 0.0011 * (n % 8),
        31.8702 + 0.0009 * (n // 8),
    )
    for n in range(1, 33)
)

GATEWAYS: tuple[Gateway, ...] = (
    Gateway(
        "gw-site-01", 5, "滨湖工地网关", "Binhu site gateway", 117.3050, 31.7420,
        (
            Device("site-1-dust", "东门扬尘站", "East gate dust station", 117.3062, 31.7424),
            Device("site-1-noise", "北界噪声计", "North boundary noise meter", 117.3048, 31.7433),
            Device("site-1-crane", "1号塔机黑匣子", "Tower crane 1 black box", 117.3053, 31.7418),
        ),
    ),
    Gateway(
        "gw-estate-01", 21, "包河小区网关", "Baohe estate gateway", 117.3120, 31.7910,
        (Device("lane-cam-1", "2号楼消防通道相机", "Block 2 fire-lane camera", 117.3123, 31.7913),),
    ),
    Gateway(
        "gw-utility-01", 42, "庐阳管廊网关", "Luyang utility gateway", 117.2880, 31.8700,
        (
            Device("gas-01", "阜阳路窨井燃气探头", "Fuyang Road manhole gas sensor", 117.2874, 31.8712),
            Device("gas-02", "濉溪路窨井燃气探头", "Suixi Road manhole gas sensor", 117.2896, 31.8693),
            Device("gas-main-1", "阜阳路燃气主管压力", "Fuyang Road gas main pressure", 117.2871, 31.8716),
            *_METERS,
        ),
    ),
)  # fmt: skip


def scene_values(layout: Layout) -> dict[str, str]:
    """Placeholders of firmware-sim/scenes/district.toml."""
    ports = layout.ports
    return {
        "hj212_connect": f"127.0.0.1:{ports.hj212}",
        "modbus_tcp_listen": f"127.0.0.1:{ports.crane}",
        "site_pty": str(layout.path("pty", "site-485")),
        "gas_pty": str(layout.path("pty", "gas-485")),
        "meter_pty": str(layout.path("pty", "meter-485")),
        "rtsp_listen": f"127.0.0.1:{ports.rtsp}",
    }


def write_agents(layout: Layout, camera: str | None, lane: Mapping[str, Any]) -> dict[str, Path]:
    """Configuration of the three agents. ``camera`` replaces the simulated one; ``lane`` is the zone table that goes
    with the simulated camera (unused for another: it has its own view)."""
    values = scene_values(layout)
    body = {
        "gw-site-01": _site(values, layout),
        "gw-estate-01": _estate(camera or f"rtsp://127.0.0.1:{layout.ports.rtsp}/lane-cam-1", None if camera else lane),
        "gw-utility-01": _utility(values),
    }
    out: dict[str, Path] = {}
    for gateway in GATEWAYS:
        path = layout.path("edge", gateway.id, "agent.toml")
        path.write_text(_head(gateway, layout) + body[gateway.id] + _places(gateway), encoding="utf-8")
        out[gateway.id] = path
    return out


def _head(gateway: Gateway, layout: Layout) -> str:
    password = layout.secret_path(f"mqtt-{gateway.id}")
    return f"""# Written by `citybrain up`; a real gateway's file looks just like it.
[gateway]
id = "{gateway.id}"
shard = {gateway.shard}
location = [{gateway.lon}, {gateway.lat}]

[mqtt]
url = "mqtt://127.0.0.1:{layout.ports.mqtt}"
username = "{gateway.id}"
password_file = "{password}"
"""


def _places(gateway: Gateway) -> str:
    return "".join(f'\n[[place]]\ndevice = "{d.id}"\nlon = {d.lon:.6f}\nlat = {d.lat:.6f}\n' for d in gateway.devices)


def _site(values: Mapping[str, str], layout: Layout) -> str:
    return f"""
[[connector]]
id = "dust"
kind = "hj212-server"
listen = "{values["hj212_connect"]}"
[[connector.device]]
id = "site-1-dust"
type = "env/dust_station"
mn = "010000A8900016F000169DC0"

[[connector]]
id = "noise"
kind = "modbus-rtu"
port = "{values["site_pty"]}"
[[connector.device]]
id = "site-1-noise"
type = "env/noise_meter"
unit = 4

[[connector]]
id = "crane"
kind = "modbus-tcp"
address = "{values["modbus_tcp_listen"]}"
[[connector.device]]
id = "site-1-crane"
type = "crane/tower_crane"
unit = 1

[[report]]  # every upload that the station got an answer for must be in the database: nothing is thinned here
device = "site-1-dust"
mode = "all"

[[scenario]]
pack = "urban_mgmt/construction_site"
[scenario.devices]
noise = ["site-1-noise"]
dust = ["site-1-dust"]
crane = ["site-1-crane"]
"""


def _estate(url: str, lane: Mapping[str, Any] | None) -> str:
    zone = lane or {"id": "lane", "kind": "lane", "polygon": [[0.02, 0.35], [0.98, 0.35], [0.98, 0.98], [0.02, 0.98]]}
    ground = zone.get("ground")
    lines = [f"{key} = {json.dumps(value)}" for key, value in zone.items() if key != "ground"]
    table = "\n".join(lines)
    if ground is not None:
        pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in ground.items())
        table += f"\nground = {{ {pairs} }}"
    return f"""
[[camera]]
id = "lane-cam-1"
url = {json.dumps(url)}
analyse_fps = 2.0
[[camera.zone]]
{table}

[[scenario]]
pack = "community/fire_lane"
[scenario.devices]
lane_cam = ["lane-cam-1"]
[scenario.params]  # a narrow lane, declared strict by the estate: the demonstration then shows its case within minutes
"lane_blocked.voice_s" = 30
"lane_blocked.static_s" = 60
"""


def _utility(values: Mapping[str, str]) -> str:
    meters = "".join(
        f'[[connector.device]]\nid = "meter-{n:02d}"\ntype = "meter/electricity_three_phase"\n'
        f'address = "{100 + n:012d}"\n'
        for n in range(1, 33)
    )
    return f"""
[[connector]]
id = "gas"
kind = "modbus-rtu"
port = "{values["gas_pty"]}"
[[connector.device]]
id = "gas-01"
type = "gas/combustible"
unit = 11
[[connector.device]]
id = "gas-02"
type = "gas/combustible"
unit = 12
[[connector.device]]
id = "gas-main-1"
type = "gas/main_pressure"
unit = 21

[[connector]]
id = "meters"
kind = "dlt645"
port = "{values["meter_pty"]}"
{meters}
[[scenario]]
pack = "urban_mgmt/underground_pipeline"
[scenario.devices]
gas = ["gas-01", "gas-02"]
gas_main = ["gas-main-1"]
"""


def cloud_scenarios() -> str:
    """The core's side of the same scenarios."""
    return """
[[scenario]]
pack = "urban_mgmt/construction_site"
[scenario.devices]
noise = ["site-1-noise"]
dust = ["site-1-dust"]
crane = ["site-1-crane"]

[[scenario]]
pack = "community/fire_lane"
[scenario.devices]
lane_cam = ["lane-cam-1"]

[[scenario]]
pack = "urban_mgmt/underground_pipeline"
[scenario.devices]
gas = ["gas-01", "gas-02"]
gas_main = ["gas-main-1"]
"""
