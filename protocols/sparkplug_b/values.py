"""What payloads are made of: metrics, properties, tables, templates. Frozen values, absence kept apart from zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Property:
    """One entry of a property set. ``datatype`` None: the sender left it out."""

    value: Any
    datatype: int | None = None
    is_null: bool = False


Properties = Mapping[str, Property]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A table: ``types`` are data types, each row has one value a column (None: empty)."""

    columns: tuple[str, ...]
    types: tuple[int, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    datatype: int | None
    value: Any = None


@dataclass(frozen=True, slots=True)
class Template:
    """A definition (``is_definition``) or an instance of the one that ``ref`` names."""

    metrics: tuple[Metric, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    version: str | None = None
    ref: str | None = None
    is_definition: bool | None = None


@dataclass(frozen=True, slots=True)
class MetaData:
    """Of files sent in parts. None: not said."""

    is_multi_part: bool | None = None
    content_type: str | None = None
    size: int | None = None
    seq: int | None = None
    file_name: str | None = None
    file_type: str | None = None
    md5: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One value. ``value`` is as its type says (int, float, bool, str, bytes, tuple, DataSet, Template); while the
    type is not known, what the field held (see :func:`typed`). ``held`` names that field. ``is_null`` and the other
    two are None where the sender left them out, which means false. ``fault``: why there is no value although
    something was sent (``range``, ``array``, ``type_mismatch``)."""

    name: str | None = None
    value: Any = None
    datatype: int | None = None
    alias: int | None = None
    timestamp_ms: int | None = None
    is_historical: bool | None = None
    is_transient: bool | None = None
    is_null: bool | None = None
    metadata: MetaData | None = None
    properties: Properties | None = None
    held: str = field(default="", compare=False)
    fault: str = ""

    @property
    def quality(self) -> int | None:
        """Property "Quality" where it is one: 0 bad, 192 good, 500 stale."""
        found = (self.properties or {}).get("Quality")
        return found.value if found is not None and isinstance(found.value, int) else None


@dataclass(frozen=True, slots=True)
class Payload:
    """``seq`` is None in NDEATH and commands."""

    timestamp_ms: int | None = None
    metrics: tuple[Metric, ...] = ()
    seq: int | None = None
    uuid: str | None = None
    body: bytes | None = None

    def metric(self, name: str) -> Metric | None:
        return next((one for one in self.metrics if one.name == name), None)
