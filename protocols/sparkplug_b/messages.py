"""Payloads as typed values: what a metric says, not which protobuf field it sat in.

Absence is kept apart from zero: a metric without name is known by its alias, one without type by the birth message,
one without value has none. What does not fit its own type costs that metric only (``fault``), never the payload.
Field numbers: Sparkplug 3.0, 6.4; see ``sparkplug_b.proto``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import DecodeError

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.sparkplug_b import sparkplug_b_pb2 as pb
from protocols.sparkplug_b import wire
from protocols.sparkplug_b.datatypes import (
    FLOATS,
    INTEGERS,
    TEXTS,
    DataType,
    array_from_wire,
    array_to_wire,
    integer_from_wire,
    integer_to_wire,
    is_array,
    name_of,
    short_float,
    text_of,
)

#: A payload larger than this is refused unread; births of large plants stay below 1 MB.
MAX_BYTES = 8 << 20
#: Templates hold metrics that may hold templates.
MAX_DEPTH = 16
#: What Eclipse Tahu's compressed payloads carry as uuid; the payload proper is in ``body``, "algorithm" says how.
_COMPRESSED = "SPBV1.0_COMPRESSED"


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


# -- in ----------------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> Payload:
    """The payload, expanded where it came compressed. Raises RemoteProtocolError: ``short`` (cut off), ``protobuf``
    (something else), ``length`` (too large), ``compression``."""
    message = _parsed(data)
    if message.uuid == _COMPRESSED:
        message = _parsed(_expanded(message))
    return Payload(
        timestamp_ms=_maybe(message, "timestamp"),
        metrics=tuple(_metric(one, MAX_DEPTH) for one in message.metrics),
        seq=_maybe(message, "seq"),
        uuid=_maybe_text(message, "uuid"),
        body=_maybe(message, "body"),
    )


def compressed(data: bytes) -> str | None:
    """How a payload is compressed, None if it is not. Raises nothing for what :func:`decode` accepts."""
    message = _parsed(data)
    return _algorithm(message) if message.uuid == _COMPRESSED else None


def _parsed(data: bytes) -> pb.Payload:
    if len(data) > MAX_BYTES:
        raise RemoteProtocolError(f"a payload of {len(data)} bytes", reason="length")
    _check_shape(data)
    message = pb.Payload()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise RemoteProtocolError(f"no Sparkplug payload: {error}", reason="protobuf") from error
    return message


def _algorithm(message: pb.Payload) -> str:
    return next((one.string_value for one in message.metrics if one.name == "algorithm"), "DEFLATE")


def _expanded(message: pb.Payload) -> bytes:
    """The payload inside ``body``; one that unpacks to more than MAX_BYTES is refused before it is unpacked whole."""
    gzip = _algorithm(message).upper() == "GZIP"
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if gzip else 0))
    try:
        data = unpack.decompress(message.body, MAX_BYTES)
    except zlib.error as error:
        raise RemoteProtocolError(f"compressed payload: {error}", reason="compression") from error
    if not unpack.eof:
        raise RemoteProtocolError("a compressed payload that is cut off or too large", reason="compression")
    return data


#: Wire types of the fields that tell a payload from text that happens to parse.
_PAYLOAD_KINDS = {1: wire.VARINT, 2: wire.LENGTH, 3: wire.VARINT, 4: wire.LENGTH, 5: wire.LENGTH}
_METRIC_KINDS = {
    **{1: wire.LENGTH, 2: wire.VARINT, 3: wire.VARINT, 4: wire.VARINT, 5: wire.VARINT, 6: wire.VARINT, 7: wire.VARINT},
    **{8: wire.LENGTH, 9: wire.LENGTH, 10: wire.VARINT, 11: wire.VARINT, 12: wire.FIXED32, 13: wire.FIXED64},
    **{14: wire.VARINT, 15: wire.LENGTH, 16: wire.LENGTH, 17: wire.LENGTH, 18: wire.LENGTH},
}


def _check_shape(data: bytes) -> None:
    for found in wire.fields(data):
        _expect(found, _PAYLOAD_KINDS, "payload")
        if found.number == 2:
            for inner in wire.fields(data, found.value, found.end):
                _expect(inner, _METRIC_KINDS, "metric")


def _expect(found: wire.WireField, kinds: Mapping[int, int], what: str) -> None:
    if kinds.get(found.number, found.kind) != found.kind:
        text = f"field {found.number} of a {what} has wire type {found.kind}, not {kinds[found.number]}"
        raise RemoteProtocolError(text, reason="protobuf", offset=found.start)


def _maybe(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _maybe_text(message: Any, name: str) -> str | None:
    return text_of(getattr(message, name)) if message.HasField(name) else None


def _metric(message: Any, depth: int) -> Metric:
    held: str | None = message.WhichOneof("value")
    metric = Metric(
        name=_maybe_text(message, "name"),
        alias=_maybe(message, "alias"),
        timestamp_ms=_maybe(message, "timestamp"),
        datatype=_maybe(message, "datatype"),
        is_historical=_maybe(message, "is_historical"),
        is_transient=_maybe(message, "is_transient"),
        is_null=_maybe(message, "is_null"),
        metadata=_metadata(message.metadata) if message.HasField("metadata") else None,
        properties=_properties(message.properties, depth) if message.HasField("properties") else None,
        held=(held or "").removesuffix("_value"),
    )
    if held is None:
        return metric
    raw = getattr(message, held)
    try:
        if held == "dataset_value":
            return replace(metric, value=_dataset(raw))
        if held == "template_value":
            return replace(metric, value=_template(raw, depth))
        return replace(metric, value=_typed(_plain(raw, held), metric.datatype, metric.held))
    except RemoteProtocolError as error:
        return replace(metric, fault=error.reason)


def typed(metric: Metric, datatype: int) -> Metric:
    """A metric that came without type, now that the birth message says what it is."""
    if metric.datatype is not None or metric.fault:
        return metric
    if metric.value is None or metric.held in ("", "dataset", "template"):
        return replace(metric, datatype=datatype)
    try:
        return replace(metric, datatype=datatype, value=_typed(metric.value, datatype, metric.held))
    except RemoteProtocolError as error:
        return replace(metric, datatype=datatype, value=None, fault=error.reason)


def _plain(raw: Any, held: str) -> Any:
    if held == "float_value":
        return short_float(raw)
    return text_of(raw) if held == "string_value" else raw


def _typed(raw: Any, datatype: int | None, held: str) -> Any:
    """What a field's content means as ``datatype``. Raises RemoteProtocolError."""
    if datatype is None or datatype == DataType.UNKNOWN or datatype > DataType.DATE_TIME_ARRAY:
        return raw
    if datatype in INTEGERS and held in ("int", "long"):
        return integer_from_wire(raw, datatype)
    if datatype in FLOATS and held in ("float", "double"):
        return raw
    if datatype == DataType.BOOLEAN and (held == "boolean" or (held in ("int", "long") and raw in (0, 1))):
        return bool(raw)
    if datatype in TEXTS and held == "string":
        return raw
    if datatype in (DataType.BYTES, DataType.FILE) and held == "bytes":
        return raw
    if is_array(datatype) and held == "bytes":
        return array_from_wire(raw, datatype)
    raise RemoteProtocolError(f"a {name_of(datatype)} in field {held}_value", reason="type_mismatch")


def _metadata(message: Any) -> MetaData:
    return MetaData(
        is_multi_part=_maybe(message, "is_multi_part"),
        content_type=_maybe_text(message, "content_type"),
        size=_maybe(message, "size"),
        seq=_maybe(message, "seq"),
        file_name=_maybe_text(message, "file_name"),
        file_type=_maybe_text(message, "file_type"),
        md5=_maybe_text(message, "md5"),
        description=_maybe_text(message, "description"),
    )


def _properties(message: Any, depth: int) -> Properties:
    """Keys and values are two lists; what has no partner is left out."""
    return {text_of(key): _property(value, depth) for key, value in zip(message.keys, message.values, strict=False)}


def _property(message: Any, depth: int) -> Property:
    held: str | None = message.WhichOneof("value")
    datatype = _maybe(message, "type")
    if held is None or depth <= 0:
        return Property(None, datatype, bool(message.is_null))
    raw = getattr(message, held)
    if held == "propertyset_value":
        return Property(_properties(raw, depth - 1), datatype)
    if held == "propertysets_value":
        return Property(tuple(_properties(one, depth - 1) for one in raw.propertyset), datatype)
    value = _plain(raw, held)
    try:
        return Property(_typed(value, datatype, held.removesuffix("_value")), datatype)
    except RemoteProtocolError:
        return Property(value, datatype)


def _dataset(message: Any) -> DataSet:
    columns, types = tuple(text_of(one) for one in message.columns), tuple(message.types)
    if len(columns) != len(types) or message.num_of_columns != len(columns):
        text = f"{message.num_of_columns} columns announced, {len(columns)} named, {len(types)} typed"
        raise RemoteProtocolError(text, reason="dataset")
    rows = []
    for row in message.rows:
        if len(row.elements) != len(columns):
            raise RemoteProtocolError(f"a row of {len(row.elements)} in {len(columns)} columns", reason="dataset")
        rows.append(tuple(_element(one, kind) for one, kind in zip(row.elements, types, strict=True)))
    return DataSet(columns, types, tuple(rows))


def _element(message: Any, datatype: int) -> Any:
    held: str | None = message.WhichOneof("value")
    if held is None:
        return None
    return _typed(_plain(getattr(message, held), held), datatype, held.removesuffix("_value"))


def _template(message: Any, depth: int) -> Template:
    if depth <= 0:
        raise RemoteProtocolError(f"templates within templates, more than {MAX_DEPTH} deep", reason="depth")
    return Template(
        metrics=tuple(_metric(one, depth - 1) for one in message.metrics),
        parameters=tuple(_parameter(one) for one in message.parameters),
        version=_maybe_text(message, "version"),
        ref=_maybe_text(message, "template_ref"),
        is_definition=_maybe(message, "is_definition"),
    )


def _parameter(message: Any) -> Parameter:
    held: str | None = message.WhichOneof("value")
    datatype = _maybe(message, "type")
    value = None if held is None else _plain(getattr(message, held), held)
    if held is not None:
        value = _typed(value, datatype, held.removesuffix("_value"))
    return Parameter(text_of(message.name), datatype, value)


# -- out ---------------------------------------------------------------------------------------------------------------


def encode(payload: Payload) -> bytes:
    """The bytes, fields in the order of their numbers. Raises LocalProtocolError for what no field can hold."""
    message = pb.Payload()
    if payload.timestamp_ms is not None:
        message.timestamp = payload.timestamp_ms
    for metric in payload.metrics:
        _put_metric(message.metrics.add(), metric)
    if payload.seq is not None:
        if not 0 <= payload.seq <= 255:
            raise LocalProtocolError(f"seq {payload.seq} is outside 0..255", reason="seq")
        message.seq = payload.seq
    if payload.uuid is not None:
        message.uuid = payload.uuid
    if payload.body is not None:
        message.body = payload.body
    return message.SerializeToString(deterministic=True)


_COPIED = (
    ("name", "name"),
    ("alias", "alias"),
    ("timestamp", "timestamp_ms"),
    ("datatype", "datatype"),
    ("is_historical", "is_historical"),
    ("is_transient", "is_transient"),
    ("is_null", "is_null"),
)


def _put_metric(message: Any, metric: Metric) -> None:
    for there, here in _COPIED:
        value = getattr(metric, here)
        if value is not None:
            setattr(message, there, value)
    if metric.metadata is not None:
        for name in MetaData.__dataclass_fields__:
            value = getattr(metric.metadata, name)
            if value is not None:
                setattr(message.metadata, name, value)
        message.metadata.SetInParent()
    if metric.properties is not None:
        message.properties.SetInParent()
        _put_properties(message.properties, metric.properties)
    if metric.value is not None and not metric.is_null:
        _put_value(message, metric.value, metric.datatype, metric.held)


def _put_properties(message: Any, properties: Properties) -> None:
    for key, one in properties.items():
        message.keys.append(key)
        added = message.values.add()
        if one.datatype is not None:
            added.type = one.datatype
        if one.is_null:
            added.is_null = True
        elif isinstance(one.value, Mapping):
            added.propertyset_value.SetInParent()
            _put_properties(added.propertyset_value, one.value)
        elif isinstance(one.value, tuple):
            added.propertysets_value.SetInParent()
            for inner in one.value:
                _put_properties(added.propertysets_value.propertyset.add(), inner)
        elif one.value is not None:
            _put_value(added, one.value, one.datatype, "")


def _put_value(message: Any, value: Any, datatype: int | None, held: str) -> None:
    """``held``: the field to use where the type does not say it."""
    if isinstance(value, DataSet):
        _put_dataset(message.dataset_value, value)
        return
    if isinstance(value, Template):
        _put_template(message.template_value, value)
        return
    name, content = field_of(value, datatype, held)
    try:
        setattr(message, name, content)
    except (TypeError, ValueError, AttributeError) as error:
        raise LocalProtocolError(f"{value!r} as {name}: {error}", reason="value") from error


def field_of(value: Any, datatype: int | None, held: str = "") -> tuple[str, Any]:
    """Field and content for a value of that type. Raises LocalProtocolError."""
    if datatype in INTEGERS and isinstance(value, int):
        name, content = integer_to_wire(value, datatype)
        return ("long_value" if held == "long" and name == "int_value" else name), content
    if datatype in FLOATS and isinstance(value, int | float):
        return ("float_value" if datatype == DataType.FLOAT else "double_value"), float(value)
    if datatype == DataType.BOOLEAN and isinstance(value, bool):
        return "boolean_value", value
    if datatype in TEXTS and isinstance(value, str):
        return "string_value", value
    if datatype is not None and is_array(datatype) and isinstance(value, tuple | list):
        return "bytes_value", array_to_wire(value, datatype)
    if datatype in (DataType.BYTES, DataType.FILE) and isinstance(value, bytes):
        return "bytes_value", value
    if (datatype is None or datatype not in DataType._value2member_map_ or not datatype) and held:
        return f"{held}_value", value
    raise LocalProtocolError(f"{value!r} is no {name_of(datatype or 0)}", reason="value")


def _put_dataset(message: Any, table: DataSet) -> None:
    message.num_of_columns = len(table.columns)
    message.columns.extend(table.columns)
    message.types.extend(table.types)
    for row in table.rows:
        added = message.rows.add()
        for value, datatype in zip(row, table.types, strict=True):
            element = added.elements.add()
            if value is not None:
                _put_value(element, value, datatype, "")


def _put_template(message: Any, template: Template) -> None:
    message.SetInParent()
    if template.version is not None:
        message.version = template.version
    for metric in template.metrics:
        _put_metric(message.metrics.add(), metric)
    for parameter in template.parameters:
        added = message.parameters.add(name=parameter.name)
        if parameter.datatype is not None:
            added.type = parameter.datatype
        if parameter.value is not None:
            _put_value(added, parameter.value, parameter.datatype, "")
    if template.ref is not None:
        message.template_ref = template.ref
    if template.is_definition is not None:
        message.is_definition = template.is_definition
