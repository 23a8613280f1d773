"""Small pieces of markup. Every value goes through :func:`esc`; nothing from the database reaches a page as markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from cloud.console.words import Words, number
from cloud.query.rows import Alarm

ICONS = {
    "map": "M9 4 3.5 6.5v13L9 17l6 2.5 5.5-2.5v-13L15 6.5zM9 4v13M15 6.5v13",
    "alarms": (
        "M12 4a5.5 5.5 0 0 0-5.5 5.5c0 5-2.5 6.5-2.5 6.5h16s-2.5-1.5-2.5-6.5A5.5 5.5 0 0 0 12 4z"
        "M10 19.5a2.2 2.2 0 0 0 4 0"
    ),
    "cases": "M4 8h16v11.5H4zM9 8V4.5h6V8M4 13h16M11 13v2h2v-2",
    "devices": (
        "M12 13.5v7M12 13.5a2.3 2.3 0 1 0 0-4.6 2.3 2.3 0 0 0 0 4.6zM7.5 15.5a6 6 0 0 1 0-8.5"
        "M16.5 15.5a6 6 0 0 0 0-8.5M4.8 18a9.5 9.5 0 0 1 0-13.5M19.2 18a9.5 9.5 0 0 0 0-13.5"
    ),
    "gateways": (
        "M4 13.5h16v6H4zM7.5 16.5h.01M11 16.5h5M12 13.5V9M8.8 8.5a4.5 4.5 0 0 1 6.4 0M6.3 5.8a8 8 0 0 1 11.4 0"
    ),
    "operators": (
        "M9 11.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c.8-3.5 3.3-5.2 6.5-5.2s5.7 1.7 6.5 5.2"
        "M16 5a3.2 3.2 0 0 1 0 6M18 15c1.8.6 3 2.3 3.5 5"
    ),
    "identity": "M12 3.5l7 3v5c0 4.5-3 7.5-7 9-4-1.5-7-4.5-7-9v-5zM9.5 12l2 2 3.5-4",
    "orders": "M4 6h10M4 12h7M4 18h10M15 9l5 3-5 3z",
    "ledger": "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11M9 8h6",
    "fleet": "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 17h6M17 14v6",
    "audit": "M6 3.5h9l4 4v13H6zM14.5 3.5V8H19M9 12.5l2 2 4-4M9 18h6",
    "rollouts": "M4 12a8 8 0 0 1 13.7-5.6L20 8.5M20 4v4.5h-4.5M20 12a8 8 0 0 1-13.7 5.6L4 15.5M4 20v-4.5h4.5",
    "back": "M15 5l-7 7 7 7",
    "find": "M11 4.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM16 16l4.5 4.5",
}


def esc(value: object) -> str:
    return html.escape(str(value), quote=True)


def icon(name: str) -> str:
    return f'<svg class="i" viewBox="0 0 24 24" aria-hidden="true"><path d="{ICONS[name]}"/></svg>'


def ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def level(words: Words, name: str) -> str:
    return f'<span class="cb-level lv {esc(name)}">{esc(words.level(name))}</span>'


def state(words: Words, name: str) -> str:
    return f'<span class="cb-state {esc(name)}">{esc(words.state(name))}</span>'


def chip(text: str) -> str:
    return f'<span class="cb-chip">{esc(text)}</span>'


def at(moment: datetime | None) -> str:
    """A time, said in the browser's own zone."""
    return "–" if moment is None else f'<span data-at="{ms(moment)}"></span>'


def age(moment: datetime | None) -> str:
    return f'<span data-age="{"" if moment is None else ms(moment)}"></span>'


def kv(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and (already safe) values."""
    rows = "".join(f"<dt>{esc(name)}</dt><dd>{value}</dd>" for name, value in pairs)
    return f'<dl class="cb-kv">{rows}</dl>'


def empty(icon_name: str, title: str, hint: str) -> str:
    return f'<div class="cb-empty">{icon(icon_name)}<b>{esc(title)}</b><span>{esc(hint)}</span></div>'


def head(title: str, hint: str) -> str:
    return f"<h1>{esc(title)}</h1><p>{esc(hint)}</p>"


def reading(value: float | None, decimals: int) -> str:
    """A value at the resolution the device has, without zeros it does not mean."""
    return number(value, min(decimals, 3))


def values_text(words: Words, values: Mapping[str, Any]) -> str:
    """What an alarm measured, in one short line: ``103.8 % / 100 %``."""
    x, unit, limit = values.get("x"), str(values.get("unit", "")), values.get("limit")
    if isinstance(x, int | float):
        text = f"{x:g} {words.unit(unit)}".strip()
        return f"{text} / {limit:g}" if isinstance(limit, int | float) else text
    parts = []
    for key in ("clear_width_m", "dwell_s", "detail", "code", "since"):
        value = values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            unit = {"m": " m", "s": " s"}.get(key.rpartition("_")[2], "")
            parts.append(f"{words.point(key)} {value:g}{unit}")
        elif value:
            parts.append(words.cause(str(value)))
    return " · ".join(parts[:2])


def still(alarm: Alarm) -> str | None:
    """Address of the newest masked still of an alarm."""
    for ref in reversed(alarm.evidence):
        if ref.get("kind") == "still" and ref.get("masked") and str(ref.get("sha256", "")).isalnum():
            return f"/api/v1/evidence/{ref['sha256']}"
    return None
