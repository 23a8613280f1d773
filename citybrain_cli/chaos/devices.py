"""The other half of the load: the real agent with a real connector, and simulated stations that keep their own book.

```
 simulated HJ 212 stations ──TCP──▶ agent (edge run) ═══ cable ═══▶ broker …
   └─▶ ledger: what was sent, and what the agent answered (9014: it is durable)
```
Few readings, but through everything: connector, rules, report by exception, pipeline. What a station got an answer for
must be in the database.
"""

from __future__ import annotations

import json
from pathlib import Path

STATIONS = 4


def station(number: int) -> tuple[str, str]:
    """Device id and MN (HJ 212-2017, 24 characters)."""
    return f"chaos-dust-{number}", f"010000A8900016F0{number:08d}"


def write_scene(path: Path, port: int) -> None:
    """Dust stations that upload once a second; now and then a frame is wrong."""
    lines = ['id = "chaos"', 'zh = "混沌"', 'en = "Chaos"', "seed = 1"]
    for number in range(STATIONS):
        device, mn = station(number)
        lines += [
            f'[[bus]]\nid = "bus-{number}"\nkind = "hj212-client"\nconnect = "127.0.0.1:{port}"',
            f'[[device]]\nid = "{device}"\ntype = "env/dust_station"\nbus = "bus-{number}"\nmn = "{mn}"',
            "interval_s = 1.0",
            "[device.signals]",
            "pm10 = { base = 90.0, noise = 8.0 }\npm25 = { base = 40.0, noise = 4.0 }",
            "tsp = { base = 160.0, noise = 9.0 }",
            "wind_speed = { base = 3.0, noise = 0.5 }\nwind_dir = { base = 120.0, noise = 9.0 }",
            "temperature = { base = 18.0, noise = 0.5 }\nhumidity = { base = 60.0, noise = 2.0 }",
            '[[device.fault]]\nkind = "wrong_checksum"\nevery = 50',
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_agent(path: Path, port: int, gateway: str, shard: int, url: str, password_file: Path, state: Path) -> None:
    """The agent's configuration, as a gateway on a mast would have it."""
    lines = [
        f'[gateway]\nid = "{gateway}"\nshard = {shard}\nstate_dir = {json.dumps(str(state))}\nstatus_listen = ""',
        f'[mqtt]\nurl = "{url}"\nusername = "{gateway}"\npassword_file = {json.dumps(str(password_file))}',
        f'[[connector]]\nid = "dust"\nkind = "hj212-server"\nlisten = "127.0.0.1:{port}"',
    ]
    for number in range(STATIONS):
        device, mn = station(number)
        lines.append(f'[[connector.device]]\nid = "{device}"\ntype = "env/dust_station"\nmn = "{mn}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
