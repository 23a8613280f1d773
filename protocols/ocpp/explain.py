"""A captured OCPP frame, station URI or date-time told field by field.

``error`` of a refused call is the CALLERROR code that answers it; ``values["tolerant"]`` says what a lenient server
still makes of it (:mod:`protocols.ocpp.reports`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit

from protocols.core.errors import ConfigError
from protocols.core.explain import Capture, Explanation, Field, Told, refused
from protocols.ocpp import times
from protocols.ocpp.frame import VERSIONS, Call, CallError, CallResult, FrameError, Message, Version, encode, parse
from protocols.ocpp.labels import ACTIONS, FIELDS, STATUS
from protocols.ocpp.reports import Meter, Transaction, Understood, understand
from protocols.ocpp.samples import normalized
from protocols.ocpp.schema import Violation, actions, check, formation

NAME = "ocpp"
#: What the central system answers without anything of its own in it.
_EMPTY_ANSWERS = frozenset(
    {
        *("StatusNotification", "MeterValues", "StopTransaction", "TransactionEvent", "FirmwareStatusNotification"),
        *("DiagnosticsStatusNotification", "LogStatusNotification", "SecurityEventNotification", "NotifyReport"),
        *("NotifyEvent", "NotifyMonitoringReport", "ReservationStatusUpdate"),
    }
)


def explain(capture: Capture) -> Explanation:
    """Tell what is in the capture; never raises for what is in it."""
    try:
        match capture.kind:
            case "ocpp-uri":
                return _uri(capture)
            case "ocpp-datetime":
                return _datetime(capture)
            case "" if times.read(capture.data[:64].decode("utf-8", "replace")) is not None:
                return _datetime(capture)
            case _:
                return _frame(capture)
    except ConfigError as error:
        return refused(NAME, "config", str(error), capture=capture)


def _frame(capture: Capture) -> Explanation:
    try:
        message = parse(capture.data)
    except FrameError as error:
        lines = capture.data.splitlines(keepends=True)
        if error.reason == "not_json" and sum(line.lstrip()[:1] == b"[" for line in lines) > 1:
            return Explanation(NAME, tuple(_lines(capture, lines)))
        version = _version_given(capture) or "1.6"
        code = error.reason
        values: dict[str, Any] = {"ok": False}
        if error.id is not None and code in ("not_json", "duplicate_key", "malformed_call", "size"):
            # The id can be read, so the station gets an answer.
            code = formation(version)
        if error.id is not None:
            answer = CallError(error.id, formation(version), str(error)[:255], {})
            values |= {"message_id": error.id, "reply_text": encode(answer).decode()}
        told = Told(0, len(capture.data), "OCPP", error=code, detail=str(error), hints=_frame_hints(capture, error))
        return Explanation(NAME, (told,), values)
    version = _version_given(capture) or _version_of(message)
    match message:
        case Call():
            told = _call(message, version, capture)
        case CallResult():
            told = _result(message, version, capture)
        case CallError():
            told = _call_error(message, version, capture)
    return Explanation(NAME, (told,), dict(told.values))


def _lines(capture: Capture, lines: list[bytes]) -> Iterator[Told]:
    """A log: one message in each line."""
    at = 0
    for line in lines:
        if line.strip():
            for told in _frame(replace(capture, data=line)).frames:
                fields = tuple(
                    one if one.offset is None else replace(one, offset=at + one.offset) for one in told.fields
                )
                yield replace(told, offset=at, fields=fields)
        at += len(line)


def _version_given(capture: Capture) -> Version | None:
    text = str(capture.extra.get("version", "")).removeprefix("ocpp")
    return next((one for one in VERSIONS if one == text), None)


def _version_of(message: Message) -> Version:
    """Where nobody says which was negotiated: the one whose schema the payload breaks least."""
    if not isinstance(message, Call):
        return "1.6"
    known = [version for version in VERSIONS if message.action in actions(version)]
    return min(known, key=lambda version: len(check(message.action, message.payload, version)), default="1.6")


def _call(call: Call, version: Version, capture: Capture) -> Told:
    values: dict[str, Any] = {
        "type": "CALL",
        "message_id": call.id,
        "action": call.action,
        "payload": _plain(call.payload),
        "version": version,
    }
    zh, en = ACTIONS.get(call.action, ("", ""))
    title = f"{zh} {call.action}".strip() + f" (OCPP {version})"
    head = (
        Field("type", 2, zh="请求", en="CALL"),
        Field("message_id", call.id, zh="消息编号", en="message id"),
        Field("action", call.action, zh=zh, en=en),
    )
    if call.action not in actions(version):
        detail = f"{call.action[:50]} is no action of OCPP {version}"
        values["reply_text"] = encode(CallError(call.id, "NotImplemented", detail, {})).decode()
        other = [one for one in VERSIONS if one != version and call.action in actions(one)]
        hints = tuple(f"known in OCPP {one}: which sub-protocol was negotiated? 该动作属于 OCPP {one}" for one in other)
        return Told(0, len(capture.data), title, head, values, error="NotImplemented", detail=detail, hints=hints)
    understood = understand(call, version)
    values["tolerant"] = dict(understood.notes)
    report = understood.report
    if isinstance(report, Meter) or (isinstance(report, Transaction) and report.metered):
        values["normalized"] = normalized(report.metered)
    fields = (*head, *_fields(call.payload, capture.data))
    hints = (*_violation_hints(understood), *_value_hints(understood))
    if not understood.violations:
        if call.action in _EMPTY_ANSWERS:
            values["reply_text"] = encode(CallResult(call.id, {})).decode()
        return Told(0, len(capture.data), title, fields, values, hints=hints)
    first = understood.violations[0]
    detail = f"{first.path or 'payload'}: {first.text}"
    values["reply_text"] = encode(CallError(call.id, first.code, detail, {})).decode()
    return Told(0, len(capture.data), title, fields, values, error=first.code, detail=detail, hints=hints)


def _result(result: CallResult, version: Version, capture: Capture) -> Told:
    action = str(capture.extra.get("answers_action", ""))
    values: dict[str, Any] = {"type": "CALLRESULT", "message_id": result.id, "payload": _plain(result.payload)}
    fields = (
        Field("type", 3, zh="应答", en="CALLRESULT"),
        Field("message_id", result.id, zh="消息编号", en="message id"),
        *_fields(result.payload, capture.data),
    )
    title = f"应答 CALLRESULT {action}".strip()
    if not action:
        hint = "a result carries no action: find the call with the same id 应答不含动作名, 请找同编号的请求"
        return Told(0, len(capture.data), title, fields, values, hints=(hint,))
    values["action"] = action
    broken = check(action, result.payload, version, result=True) if action in actions(version) else []
    if broken:
        detail = f"{broken[0].path or 'payload'}: {broken[0].text}; a result is never answered, the call fails"
        return Told(0, len(capture.data), title, fields, values, error=broken[0].code, detail=detail)
    return Told(0, len(capture.data), title, fields, values)


def _call_error(error: CallError, version: Version, capture: Capture) -> Told:
    values: dict[str, Any] = {
        "type": "CALLERROR",
        "message_id": error.id,
        "error_code": error.code,
        "error_description": error.description,
        "known_code": error.known_code,
        "details": _plain(error.details),
    }
    fields = (
        Field("type", 4, zh="错误", en="CALLERROR"),
        Field("message_id", error.id, zh="消息编号", en="message id"),
        Field("error_code", error.code, zh="错误码", en="error code"),
        Field("error_description", error.description, zh="说明", en="description"),
    )
    hints = () if error.known_code else ("no code of OCPP: the call has failed all the same 非标准错误码",)
    return Told(0, len(capture.data), f"错误 CALLERROR {error.code[:40]}", fields, values, hints=hints)


# -- fields and hints


def _fields(value: Any, data: bytes, path: str = "") -> Iterator[Field]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _fields(one, data, f"{path}.{key}" if path else key)
        return
    if isinstance(value, list):
        for number, one in enumerate(value[:500]):
            yield from _fields(one, data, f"{path}[{number}]")
        return
    name = path.rpartition(".")[2].partition("[")[0]
    zh, en = FIELDS.get(name, ("", ""))
    if isinstance(value, str) and name in ("status", "connectorStatus"):
        zh = f"{zh}: {STATUS.get(value, '?')}"
    quoted = f'"{name}"'.encode()
    at = data.find(quoted)
    once = at >= 0 and data.count(quoted) == 1
    yield Field(path or "payload", _plain(value), at if once else None, len(quoted) if once else None, zh, en)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def _violation_hints(understood: Understood) -> Iterator[str]:
    for one in understood.violations[:5]:
        yield f"{one.path or 'payload'}: {_in_words(one)}"
    if understood.violations and understood.report is not None:
        yield "citybrain's server stores it all the same and counts the violation 服务端仍会保存并计数"


def _in_words(one: Violation) -> str:
    match one.rule:
        case "maxLength":
            return f"longer than {one.limit} 超过 {one.limit} 个字符"
        case "enum":
            return f"not among {', '.join(str(word) for word in (one.limit or ())[:6])} ... 不在取值范围内"
        case "required":
            return f"missing field 缺少字段: {one.text}"
        case "additionalProperties":
            return f"extra field 多余字段: {one.text}"
        case _:
            return one.text


def _value_hints(understood: Understood) -> Iterator[str]:
    notes = understood.notes
    if notes.get("time_zone_missing"):
        yield "no offset: taken as UTC; local time sent without one is 8 hours off 时间缺少时区, 按 UTC 处理"
    if notes.get("time_unset"):
        yield "the station's clock was never set 充电桩时钟未校准"
    if "transaction_id" in notes:
        yield "this transaction id means none 该交易号表示无交易"
    if "reply_id" in notes:
        yield "the message id must be a text; it is answered as it came 消息编号应为非空字符串"
    if "long_id" in notes:
        yield f"the message id has {notes['long_id']} characters, 36 are allowed 消息编号过长"
    if notes.get("wrapped"):
        yield f"an object where a list belongs: {', '.join(notes['wrapped'])} 应为数组"


def _frame_hints(capture: Capture, error: FrameError) -> tuple[str, ...]:
    data = capture.data
    if error.reason == "not_json" and b"'" in data and b'"' not in data:
        return ("quotes must be double: copied from a log of another program? 引号应为双引号",)
    if error.reason == "not_a_message_array" and data.lstrip()[:2] in (b"[5", b"[6"):
        return ("types 5 and 6 belong to OCPP 2.1 类型 5 和 6 属于 OCPP 2.1",)
    if data[:1] in (b"\x81", b"\x82", b"\x01"):
        return ("looks like a raw WebSocket frame: take its payload 可能是未解开的 WebSocket 帧",)
    return ()


# -- station URIs and date-times


def station_uri(base: str, identity: str, profile: int) -> str:
    """Where a station connects: base, slash, identity, unless the base already ends with it. Raises ConfigError where
    scheme and security profile contradict each other (profiles 0, 1: ws; 2, 3: wss)."""
    if re.match(r"wss?:(?!//)", base):
        raise ConfigError(f"{base[:60]!r}: the slashes are missing behind the scheme")
    parts = urlsplit(base if "://" in base else f"{'wss' if profile >= 2 else 'ws'}://{base}")
    wanted = "wss" if profile >= 2 else "ws"
    if not 0 <= profile <= 3:
        raise ConfigError(f"security profile {profile}: 0 to 3")
    if parts.scheme != wanted:
        raise ConfigError(f"security profile {profile} needs {wanted}://, the address says {parts.scheme}://")
    if not parts.hostname or not identity:
        raise ConfigError("an address needs a host, a station an identity")
    if not identity.isprintable():
        raise ConfigError(f"the identity {identity[:60]!r} has characters that no address can have")
    name = quote(identity, safe="")
    path = parts.path.rstrip("/")
    if path.rpartition("/")[2] != name:
        path = f"{path}/{name}"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _uri(capture: Capture) -> Explanation:
    extra = capture.extra
    base = str(extra.get("base") or capture.data.decode("utf-8", "replace"))
    profile = extra.get("security_profile", 1)
    try:
        uri = station_uri(base, str(extra.get("identity", "")), profile if isinstance(profile, int) else -1)
    except (ConfigError, ValueError) as error:
        return refused(NAME, "uri", str(error), capture=capture)
    field = Field("uri", uri, zh="充电桩连接地址", en="where the station connects")
    return Explanation(NAME, (Told(0, len(capture.data), "URI", (field,), {"uri": uri}),))


def _datetime(capture: Capture) -> Explanation:
    text = capture.data.decode("utf-8", "replace").strip()
    found = times.read(text)
    values: dict[str, Any] = {"rfc3339_ok": times.is_rfc3339(text)}
    hints: tuple[str, ...] = ()
    if found is not None:
        values |= {"timestamp_utc": times.short(found.ms), "time_zone_missing": found.zone_missing}
        if not found.strict:
            hints = ("not as the standard writes it, but readable 格式不标准, 但可识别",)
    else:
        hints = ("no date-time 不是日期时间",)
    fields = (
        Field("rfc3339_ok", values["rfc3339_ok"], zh="符合 RFC 3339", en="as RFC 3339 wants it"),
        Field("timestamp_utc", values.get("timestamp_utc"), 0, len(capture.data), "UTC 时间", "in UTC"),
    )
    return Explanation(NAME, (Told(0, len(capture.data), "date-time", fields, values, hints=hints),))
