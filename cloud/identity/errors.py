"""What enrolment and renewal refuse, each with a code that the installer sees and the audit log keeps."""

from __future__ import annotations

from protocols.core.errors import CityBrainError


class IdentityRefused(CityBrainError):
    """``reason``: ``code`` (wrong, used, expired or never made: the asker is not told which), ``request`` (the CSR),
    ``certificate`` (the one that asks for its successor), ``revoked``, ``busy`` (too many attempts). ``note``: the
    truth for the audit log, never sent out."""

    code = "identity"

    def __init__(self, message: str, *, reason: str, note: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.note = note or message
