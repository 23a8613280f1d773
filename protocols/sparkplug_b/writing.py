"""From typed payloads to bytes; fields go out in the order of their numbers, as the reference encoder writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocols.core.errors import LocalProtocolError
from protocols.sparkplug_b import sparkplug_b_pb2 as pb
from protocols.sparkplug_b.datatypes import (
    FLOATS,
    INTEGERS,
    TEXTS,
    DataType,
    array_to_wire,
    integer_to_wire,
    is_array,
    name_of,
)
from protocols.sparkplug_b.values import DataSet, MetaData, Metric, Payload, Properties, Template


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
