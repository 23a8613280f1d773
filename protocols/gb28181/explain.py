"""A captured GB/T 28181 exchange told header by header and element by element.

Also parts on their own: a digest (kind ``digest``), a PTZCmd (``ptz``), SDP (``sdp``), an XML body (``xml``), a
MANSRTSP body (``mansrtsp``), an identity (``id``). Without a kind the capture says itself what it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, refused
from protocols.gb28181 import digest, explain_parts, headers, ids, manscdp, mansrtsp, ptz, sdp
from protocols.gb28181.frame import Scanner, SipMessage, parse_datagram

NAME = "gb28181"

_ZH = {
    "REGISTER": "注册", "MESSAGE": "消息", "INVITE": "点播请求", "ACK": "确认", "BYE": "结束", "CANCEL": "取消",
    "INFO": "播放控制", "SUBSCRIBE": "订阅", "NOTIFY": "通知", "OPTIONS": "能力查询",
    "Keepalive": "心跳", "Catalog": "目录", "DeviceInfo": "设备信息", "DeviceStatus": "设备状态", "Alarm": "报警",
    "RecordInfo": "录像检索", "DeviceControl": "设备控制", "MobilePosition": "移动位置", "MediaStatus": "媒体状态",
    "PresetQuery": "预置位查询", "ConfigDownload": "配置查询", "DeviceConfig": "设备配置", "Broadcast": "语音广播",
}  # fmt: skip
_BLANK = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\n(?:content-length|l)[ \t]*:[ \t]*(\d{1,6})[ \t]*\r?\n", re.IGNORECASE)
_NO_BODY = re.compile(rb"\n(?:content-length|l)[ \t]*:[ \t]*0[ \t]*[\r\n]*\Z|\n\r\Z", re.IGNORECASE)
_PTZ_HEX = re.compile(rb"[Aa]5[0-9A-Fa-f]{2,30}\Z")


def explain(capture: Capture) -> Explanation:
    """Never raises for what is in the capture."""
    match capture.kind or _guess(capture):
        case "digest":
            return explain_parts.login(capture)
        case "ptz":
            return explain_parts.ptz_order(capture)
        case "sdp":
            return _part(capture, "SDP", _sdp_values, sdp.hidden(capture.data.decode("utf-8", "replace")))
        case "xml" | "manscdp":
            return _part(capture, "MANSCDP", _xml_values, "")
        case "mansrtsp":
            return _part(capture, "MANSRTSP", _rtsp_values, "")
        case "id":
            return explain_parts.identity(capture)
    return _sip(capture)


def _guess(capture: Capture) -> str:
    data = capture.data.strip()
    if (len(capture.data) <= 16 and capture.data[:1] == b"\xa5") or _PTZ_HEX.match(data):
        return "ptz"
    if re.fullmatch(rb"\d{20}", data):
        return "id"
    if data.startswith(b"v=0"):
        return "sdp"
    if data.startswith(b"<"):
        return "xml"
    return "mansrtsp" if re.match(rb"(?:PLAY|PAUSE|TEARDOWN) (?:\S+ )?(?:MANS)?RTSP/1\.0", data) else "sip"


# -- SIP


def _sip(capture: Capture) -> Explanation:
    data = capture.data if capture.strict else _with_line_end(capture.data)
    frames: list[Told] = []
    try:
        # One datagram, or the first message of a stream; which of the two shows when more follows it.
        first = parse_datagram(data)
    except RemoteProtocolError:
        first = None
    found: list[SipMessage | RemoteProtocolError]
    scanner = Scanner()
    found = scanner.feed(data)
    found += scanner.idle()
    if first is not None and len([one for one in found if isinstance(one, SipMessage)]) <= 1:
        found = [first]
    at = 0
    for one in found:
        if isinstance(one, RemoteProtocolError):
            hints = _garbage_hints(data)
            frames.append(Told(at, len(data) - at, "", error=one.reason, detail=str(one), hints=hints))
            continue
        start = _start_of(data, at, one)
        length = _length_of(data, start, one)
        frames.append(_message(data, start, length, one, strict=capture.strict))
        at = start + length
    if not frames:
        return refused(NAME, "empty", "blank lines only: a keep-alive of the transport", capture=capture)
    return Explanation(NAME, tuple(frames))


def _with_line_end(data: bytes) -> bytes:
    """A message that was pasted or kept in a text file has lost its last line end, or all of its CRs: put them back
    where that makes up for what is missing."""
    if b"\r" not in data and (blank := _BLANK.search(data)) and (stated := _LENGTH.search(data, 0, blank.end())):
        body = data[blank.end() :]
        return data.replace(b"\n", b"\r\n") if int(stated[1]) == len(body) + body.count(b"\n") else data
    if data.endswith(b"\n"):
        return data
    blank = _BLANK.search(data)
    if blank is None:
        return data.rstrip(b"\r\n") + b"\r\n\r\n" if _NO_BODY.search(data) else data
    stated = _LENGTH.search(data, 0, blank.end())
    missing = int(stated[1]) - (len(data) - blank.end()) if stated else 0
    return data + b"\r\n"[-missing:] if missing in (1, 2) else data


def _start_of(data: bytes, at: int, message: SipMessage) -> int:
    word = message.method.encode() + b" " if message.is_request else b"SIP/2.0 "
    return max(data.find(word, at), at)


def _length_of(data: bytes, start: int, message: SipMessage) -> int:
    blank = _BLANK.search(data, start)
    return (blank.end() if blank else len(data)) - start + len(message.body)


def _garbage_hints(data: bytes) -> tuple[str, ...]:
    if b"SIP/2.0" not in data:
        return ("no SIP start line in it: is it RTP, or another protocol?",)
    return ()


def _message(data: bytes, start: int, length: int, message: SipMessage, *, strict: bool) -> Told:
    values: dict[str, Any] = {}
    if message.is_request:
        first = f"{message.method} {message.uri} SIP/2.0"
        values |= {"method": message.method, "uri": message.uri}
    else:
        first = f"SIP/2.0 {message.status} {message.reason}".rstrip()
        values |= {"status": message.status, "reason": message.reason}
    values |= {"start": first} | _header_values(message)
    values["content_length"] = message.stated_length
    values["body_bytes"] = len(message.body)
    error, detail, hints = "", "", list[str]()
    if not message.length_ok:
        hints.append(
            f"Content-Length says {message.stated_length}, the body has {len(message.body)} bytes: characters counted?"
        )
        if strict:
            error, detail = "length", "Content-Length is not the body's length in bytes"
    fields = [Field("start", first, start, len(first), "起始行", "start line"), *_header_fields(data, start, message)]
    if message.body:
        body_at = start + length - len(message.body)
        try:
            kind, said = _body_values(message)
        except RemoteProtocolError as exc:
            error, detail = error or exc.reason, detail or str(exc)
            kind, said = "", {}
        values |= {"sdp": said} if kind == "sdp" else said
        fields.append(Field("body", kind or "unknown", body_at, len(message.body), "消息体", "body"))
        fields += [Field(name, value, None, None, _ZH.get(str(value), ""), "") for name, value in said.items()]
    hints += _login(message, values)
    hints += _id_hints(values)
    title = " ".join(part for part in (message.method or str(message.status), values.get("xml_CmdType", "")) if part)
    zh = _ZH.get(values.get("xml_CmdType", "")) or _ZH.get(message.method) or "应答"
    return Told(start, length, f"{zh} {title}", tuple(fields), values, None, error, detail, tuple(hints))


def _header_values(message: SipMessage) -> dict[str, Any]:
    out: dict[str, Any] = {"call_id": message.get("Call-ID"), "cseq": " ".join(message.get("CSeq").split())}
    for name in ("From", "To", "Contact"):
        text = message.get(name)
        found = headers.uri(text)
        key = name.lower()
        if found is not None:
            host = f"{found.host}:{found.port}" if found.port else found.host
            out |= {f"{key}_id": found.user, f"{key}_domain": host if key != "contact" else found.host}
        if key != "contact":
            out[f"{key}_tag"] = headers.tag(text) or None
        elif found is not None:
            out["contact_port"] = found.port or None
            if "expires" in (more := headers.parameters(text)) and more["expires"].isdecimal():
                out["expires"] = int(more["expires"])
    expires = message.get("Expires")
    if expires.isdecimal() and len(expires) < 11:
        out["expires"] = int(expires)
    for name, key in (
        ("Subject", "subject"), ("Date", "date"), ("User-Agent", "user_agent"), ("Content-Type", "content_type"),
        ("Event", "event"), ("X-GB-Ver", "gb_ver"), ("Subscription-State", "subscription_state"), ("Route", "route"),
        ("Allow", "allow"), ("Server", "server"),
    ):  # fmt: skip
        if text := message.get(name):
            out[key] = text
    hops = message.get("Max-Forwards")
    if hops.isdecimal() and len(hops) < 6:
        out["max_forwards"] = int(hops)
    if (via := headers.via(message.get("Via"))) is not None:
        out |= {
            "via_transport": via.transport, "via_host": via.host, "via_port": via.port or None,
            "via_branch": via.branch or None, "via_received": via.received or None, "via_rport": via.rport,
        }  # fmt: skip
    for name, key in (
        ("Authorization", "authorization"), ("WWW-Authenticate", "www_authenticate"),
        ("Proxy-Authorization", "proxy_authorization"), ("Proxy-Authenticate", "proxy_authenticate"),
    ):  # fmt: skip
        if text := message.get(name):
            out[key] = headers.digest(text)
    return out


def _header_fields(data: bytes, start: int, message: SipMessage) -> list[Field]:
    zh = {
        "Via": "经由", "From": "发送方", "To": "接收方", "Call-ID": "会话标识", "CSeq": "序号", "Contact": "联系地址",
        "Expires": "有效期", "Authorization": "鉴权", "WWW-Authenticate": "鉴权要求", "Date": "时间", "Subject": "主题",
        "User-Agent": "设备软件", "Content-Type": "内容类型", "Max-Forwards": "最大转发",
    }  # fmt: skip
    out = []
    at = start
    for name, value in message.headers:
        place = data.find(value.encode(), at) if value else -1
        if place >= 0:
            at = place + len(value.encode())
        out.append(Field(name, value, place if place >= 0 else None, len(value.encode()), zh.get(name, ""), name))
    return out


def _body_values(message: SipMessage) -> tuple[str, dict[str, Any]]:
    kind = message.get("Content-Type").lower()
    body = message.body.strip()
    if "mansrtsp" in kind or body.startswith((b"PLAY ", b"PAUSE ", b"TEARDOWN ")):
        return "mansrtsp", _rtsp_values(message.body)
    if "sdp" in kind or body.startswith(b"v=0"):
        return "sdp", _sdp_values(message.body)
    if "xml" in kind or body.startswith(b"<"):
        return "xml", _xml_values(message.body)
    return "", {}


def _login(message: SipMessage, values: dict[str, Any]) -> list[str]:
    given = values.get("authorization")
    if not isinstance(given, dict) or not given:
        return []
    for password in explain_parts.FACTORY_PASSWORDS:
        if digest.fits(message.method, password, given):
            values["digest_ok_with_password"] = password
            return [f"logs in with the factory's password {password}: anybody can; change it"]
    if given.get("username") and values.get("from_id") and given["username"] != values["from_id"]:
        return ["the user of the digest is not the sender of the message"]
    return []


def _id_hints(values: Mapping[str, Any]) -> list[str]:
    out = []
    for key in ("from_id", "to_id"):
        number = str(values.get(key, ""))
        if number and not ids.valid(number):
            out.append(f"{key} {number[:40]!r} is no 20-digit identity")
    return out


# -- parts


def _part(capture: Capture, title: str, read: Any, shown: str) -> Explanation:
    try:
        values: dict[str, Any] = read(capture.data)
    except RemoteProtocolError as error:
        return refused(NAME, error.reason, str(error), capture=capture)
    fields = tuple(Field(name, value) for name, value in values.items())
    return Explanation(NAME, (Told(0, len(capture.data), title, fields, values),), values=values)


def _xml_values(data: bytes) -> dict[str, Any]:
    body = manscdp.parse(data)
    out: dict[str, Any] = {"xml_root": body.root, "xml_encoding": body.encoding}
    out |= {f"xml_{name}": text.strip() for name, text in body.fields.items()}
    for name, part in body.parts.items():
        out[f"xml_{name}"] = dict(part)
        out |= {f"xml_{leaf}": text for leaf, text in part.items() if f"xml_{leaf}" not in out}
    if body.list_name:
        out["items"] = [dict(item) for item in body.items]
        out["list"] = body.list_name
    if order := body.text("PTZCmd"):
        try:
            out["ptz"] = explain_parts.ptz_values(ptz.parse(order))
        except RemoteProtocolError as error:
            out["ptz"] = {"ok": False, "error": error.reason}
    return out


def _sdp_values(data: bytes) -> dict[str, Any]:
    one = sdp.parse(data)
    return {
        "s": one.session, "o_id": one.owner, "ip": one.ip, "port": one.port, "proto": one.proto, "media": one.media,
        "pts": list(one.payloads), "rtpmap": {str(number): codec for number, codec in one.rtpmap.items()},
        "direction": one.direction or None, "setup": one.setup or None, "connection": one.connection or None,
        "ssrc": one.ssrc or None, "f": one.hint, "u": one.source or None, "t": [one.start_s, one.end_s],
        "downloadspeed": one.speed or None, "filesize": one.size,
    }  # fmt: skip


def _rtsp_values(data: bytes) -> dict[str, Any]:
    steer = mansrtsp.parse(data)
    out: dict[str, Any] = {"rtsp_method": steer.method or None, "rtsp_status": steer.status or None}
    out |= {
        "rtsp_cseq": steer.cseq,
        "scale": steer.scale,
        "range": steer.headers.get("range"),
        "npt": steer.npt or None,
    }
    return out
