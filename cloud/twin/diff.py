"""What changed between two JSON documents, place by place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Change:
    """``path``: JSON pointer (RFC 6901). ``kind``: added, removed or changed."""

    path: str
    kind: str
    before: Any
    after: Any


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """In the order of the documents. Lists of tables with an ``id`` or ``device`` are matched by it, not by place."""
    return list(_walk("", before, after))


def _walk(path: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _walk(f"{path}/{_escaped(key)}", before.get(key, _NOTHING), after.get(key, _NOTHING))
    elif isinstance(before, list) and isinstance(after, list) and (named := _named(before, after)) is not None:
        yield from _walk(path, *named)
    elif isinstance(before, list) and isinstance(after, list):
        for n in range(max(len(before), len(after))):
            yield from _walk(f"{path}/{n}", _at(before, n), _at(after, n))
    elif before is _NOTHING:
        yield Change(path, "added", None, after)
    elif after is _NOTHING:
        yield Change(path, "removed", before, None)
    elif type(before) is not type(after) or before != after:
        yield Change(path, "changed", before, after)


def _named(before: list[Any], after: list[Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Both lists as tables by name, if each of their members has one of its own."""
    for key in ("id", "device"):
        pair = [{str(item[key]): item for item in side if _has(item, key)} for side in (before, after)]
        if len(pair[0]) == len(before) and len(pair[1]) == len(after):
            return pair[0], pair[1]
    return None


def _has(item: Any, key: str) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get(key), str)


def _at(items: Sequence[Any], n: int) -> Any:
    return items[n] if n < len(items) else _NOTHING


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
