"""What the gateway remembers of one GB/T 28181 camera or recorder."""

from __future__ import annotations

import asyncio

from edge.connectors.health import Health
from edge.connectors.station_server import News
from edge.connectors.street_config import Gb28181Device
from protocols.devices import load
from protocols.devices.values import by_key
from protocols.gb28181.manscdp import Channel


class Camera:
    """One configured device."""

    def __init__(self, config: Gb28181Device) -> None:
        self.config = config
        self.id = config.id
        self.gb_id = config.gb_id
        self.type = load(config.type)
        self.points = by_key(self.type)
        self.health = Health(config.id, lost_after=1)
        self.news = News()
        self.silence: asyncio.TimerHandle | None = None
        self.channels: dict[str, Channel] = {}
        self.asked_s = {"catalogue": 0.0, "status": 0.0}  # when (loop) it is to be asked next
