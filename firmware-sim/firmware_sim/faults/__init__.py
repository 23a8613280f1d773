"""Faults: what goes wrong on the street, injected on purpose, seeded and written to the ledger."""

from firmware_sim.faults.injector import Faults, Outgoing

__all__ = ["Faults", "Outgoing"]
