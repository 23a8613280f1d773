"""Words that every kind of connector's configuration uses, with their bounds."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Unit = Annotated[int, msgspec.Meta(ge=1, le=255)]
Baud = Literal[300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200]
Parity = Literal["N", "E", "O"]
StopBits = Literal[1, 2]
Connections = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
Retries = Annotated[int, msgspec.Meta(ge=0, le=5)]
DeviceId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
MeterAddress = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{12}$")]
