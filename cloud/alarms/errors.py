"""What an alarm operation refuses."""

from __future__ import annotations

from protocols.core.errors import CityBrainError


class AlarmNotFound(CityBrainError):
    code = "alarm.not_found"

    def __init__(self, alarm_id: str) -> None:
        super().__init__(f"no alarm {alarm_id}")
        self.alarm_id = alarm_id
