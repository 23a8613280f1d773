"""Where the core keeps its repository of updates."""

from __future__ import annotations

import msgspec


class UpdatesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The repository that the web process gives out, and the one key that it signs with."""

    folder: str = "var/updates"
    """Folder of the signed repository (`citybrain cloud release init`). Given out under /updates/."""
    online_key_dir: str = ""
    """Folder with online.pem, which signs that nothing newer exists; empty: somebody runs `release refresh` daily."""
    tick_s: float = 2.0
    """How often rollouts are moved on."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.tick_s <= 3600:
            raise ValueError("updates.tick_s: must be 0.1 to 3600")
