"""Alarms of the cloud core: what the events say is wrong now. The public names are here."""

from __future__ import annotations

from cloud.alarms.errors import AlarmNotFound
from cloud.alarms.model import Alarm, AlarmChange, ChangeKind, alarm_id_of
from cloud.alarms.service import acknowledge, apply_events, load_alarm

__all__ = [
    "Alarm",
    "AlarmChange",
    "AlarmNotFound",
    "ChangeKind",
    "acknowledge",
    "alarm_id_of",
    "apply_events",
    "load_alarm",
]
