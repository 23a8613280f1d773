"""One family of errors, so that a supervisor can tell what to retry from what to report.

Every error carries a stable ``code`` (a metric label and the word the user sees) and ``retry`` (whether trying the
same thing again can help). Bytes that are not complete yet are not an error. A programming error is none of these and
ends the process.
"""

from __future__ import annotations

from typing import ClassVar


class CityBrainError(Exception):
    """Base of everything citybrain raises on purpose."""

    code: ClassVar[str] = "error"
    retry: ClassVar[bool] = False


class ConfigError(CityBrainError):
    """Configuration is wrong. Start-up only; the message names file, key and line."""

    code = "config"


class ProtocolError(CityBrainError):
    """Bytes or messages break the protocol. ``reason`` is the stable sub-code: ``checksum``, ``length`` ..."""

    code = "protocol"

    def __init__(self, message: str, *, reason: str = "protocol", offset: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.offset = offset


class LocalProtocolError(ProtocolError):
    """We asked the codec for something illegal: our bug or our configuration."""

    code = "protocol.local"


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol: wrong checksum, bad length, unknown function, an answer to nothing."""

    code = "protocol.remote"


class DeviceError(CityBrainError):
    """The device understood and refused (Modbus exception, DL/T 645 error word, HJ 212 QnRtn)."""

    code = "device"


class TransportError(CityBrainError):
    """The link, not the message."""

    code = "transport"
    retry = True


class LinkDown(TransportError):
    code = "transport.down"


class LinkTimeout(TransportError):
    code = "transport.timeout"


class LinkRefused(TransportError):
    """Refused for a reason that time does not heal: wrong password, no permission, no such port."""

    code = "transport.refused"
    retry = False


class StoreError(CityBrainError):
    """The disk or the database did not take it."""

    code = "store"
    retry = True


class ContractError(CityBrainError):
    """A message that arrived whole but must not be stored: it is set aside with its ``reason``."""

    code = "contract"

    def __init__(self, message: str, *, reason: str = "contract") -> None:
        super().__init__(message)
        self.reason = reason


class ScenarioError(CityBrainError):
    code = "scenario"


class PackInvalid(ScenarioError):
    """A scenario pack cannot be loaded; the message names the file and the key."""

    code = "scenario.pack"
