"""Payloads as typed values: what a metric says, not which protobuf field it sat in.

Absence is kept apart from zero: a metric without name is known by its alias, one without type by the birth message,
one without value has none. What does not fit its own type costs that metric only (``fault``), never the payload.
Field numbers: Sparkplug 3.0, 6.4; see ``sparkplug_b.proto``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from protocols.core.errors import RemoteProtocolError
from protocols.sparkplug_b import sparkplug_b_pb2 as pb
from protocols.sparkplug_b import wire
from protocols.sparkplug_b.datatypes import (
    FLOATS,
    INTEGERS,
    TEXTS,
    DataType,
    array_from_wire,
    integer_from_wire,
    is_array,
    name_of,
    short_float,
    text_of,
)
from protocols.sparkplug_b.values import DataSet, MetaData, Metric, Parameter, Payload, Properties, Property, Template
from protocols.sparkplug_b.writing import encode

__all__ = [
    "DataSet",
    "MetaData",
    "Metric",
    "Parameter",
    "Payload",
    "Properties",
    "Property",
    "Template",
    "compressed",
    "decode",
    "encode",
    "typed",
]

#: A payload larger than this is refused unread; births of large plants stay below 1 MB.
MAX_BYTES = 8 << 20
#: Templates hold metrics that may hold templates.
MAX_DEPTH = 16
#: What Eclipse Tahu's compressed payloads carry as uuid; the payload proper is in ``body``, "algorithm" says how.
_COMPRESSED = "SPBV1.0_COMPRESSED"


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
    message = pb.Payload()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        _check_shape(data)  # says where
        raise RemoteProtocolError(f"no Sparkplug payload: {error}", reason="protobuf") from error
    if len(UnknownFieldSet(message)) or any(len(UnknownFieldSet(one)) for one in message.metrics):
        _check_shape(data)  # extensions are allowed, a known field of another type is not
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
