"""Links: the byte pipes between a simulated device and whoever asks it. See README of the package."""

from firmware_sim.links.base import Dial, Link, Serve
from firmware_sim.links.memory import MemoryLink, memory_pair

__all__ = ["Dial", "Link", "MemoryLink", "Serve", "memory_pair"]
