"""A password from its own file, for connectors that log in somewhere or let devices log in."""

from __future__ import annotations

from pathlib import Path

from protocols.core.errors import ConfigError


def read_secret(path: Path, base: Path) -> str:
    """Raises ConfigError; the content never appears in a message."""
    full = path if path.is_absolute() else base / path
    try:
        text = full.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password file {full}: {type(error).__name__}") from error
    if not text:
        raise ConfigError(f"password file {full}: empty")
    return text
