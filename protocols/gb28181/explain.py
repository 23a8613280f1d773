"""A captured GB/T 28181 exchange told header by header and element by element.

Also parts on their own: a digest (kind ``digest``), a PTZCmd (``ptz``), SDP (``sdp``), an XML body (``xml``), a
MANSRTSP body (``mansrtsp``), an identity (``id``). Without a kind the capture says itself what it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused
from protocols.gb28181 import digest, headers, ids, manscdp, mansrtsp, ptz, sdp
from protocols.gb28181.frame import Scanner, SipMessage, parse_datagram

NAME = "gb28181"

#: What leaves the factory; a camera that logs in with one of these can be taken over by anybody.
FACTORY_PASSWORDS = (
    "12345678", "123456", "admin123", "admin", "admin12345", "123456789", "1234567890", "12345", "111111", "888888",
    "88888888", "00000000", "Admin123", "hik12345", "dahua123", "password",
)  # fmt: skip

_ZH = {
    "REGISTER": "注册", "MESSAGE": "消息", "INVITE": "点播请求", "ACK": "确认", "BYE": "结束", "CANCEL": "取消",
    "INFO": "播放控制", "SUBSCRIBE": "订阅", "NOTIFY": "通知", "OPTIONS": "能力查询",
    "Keepalive": "心跳", "Catalog": "目录", "DeviceInfo": "设备信息", "DeviceStatus": "设备状态", "Alarm": "报警",
    "RecordInfo": "录像检索", "DeviceControl": "设备控制", "MobilePosition": "移动位置", "MediaStatus": "媒体状态",
    "PresetQuery": "预置位查询", "ConfigDownload": "配置查询", "DeviceConfig": "设备配置", "Broadcast": "语音广播",
}  # fmt: skip
_PTZ_HEX = re.compile(rb"\s*[Aa]5[0-9A-Fa-f]{14}\s*\Z")


def explain(capture: Capture) -> Explanation:
    """Never raises for what is in the capture."""
    match capture.kind or _guess(capture):
        case "digest":
            return _digest(capture)
        case "ptz":
            return _ptz(capture)
        case "sdp":
            return _part(capture, "SDP", _sdp_values, sdp.hidden(capture.data.decode("utf-8", "replace")))
        case "xml" | "manscdp":
            return _part(capture, "MANSCDP", _xml_values, "")
        case "mansrtsp":
            return _part(capture, "MANSRTSP", _rtsp_values, "")
        case "id":
            return _id(capture)
    return _sip(capture)


def _guess(capture: Capture) -> str:
    data = capture.data.strip()
    if (len(capture.data) == 8 and capture.data[:1] == b"\xa5") or _PTZ_HEX.match(data):
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
    data = capture.data
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


def _start_of(data: bytes, at: int, message: SipMessage) -> int:
    word = message.method.encode() + b" " if message.is_request else b"SIP/2.0 "
    return max(data.find(word, at), at)


def _length_of(data: bytes, start: int, message: SipMessage) -> int:
    blank = re.compile(rb"\n\r?\n").search(data, start)
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
    for password in FACTORY_PASSWORDS:
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
            out["ptz"] = ptz_values(ptz.parse(order))
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


_WAYS = {
    "pan": {-1: "left", 0: "none", 1: "right"}, "tilt": {-1: "down", 0: "none", 1: "up"},
    "zoom": {-1: "out", 0: "none", 1: "in"}, "focus": {-1: "near", 0: "none", 1: "far"},
    "iris": {-1: "close", 0: "none", 1: "open"},
}  # fmt: skip


def ptz_values(read: ptz.Read) -> dict[str, Any]:
    """A PTZCmd in words."""
    head = {"version": read.version, "check_nibble_ok": True, "address": read.address}
    match read.order:
        case ptz.Motion() as order:
            names = ("pan", "tilt", "zoom")
            said = {"kind": "motion"} | {name: _WAYS[name][getattr(order, name)] for name in names}
            speeds = {f"{name}_speed": getattr(order, f"{name}_speed") for name in names}
            return head | said | speeds | {"stop": order.pan == order.tilt == order.zoom == 0}
        case ptz.Lens() as order:
            said = {"kind": "lens"} | {name: _WAYS[name][getattr(order, name)] for name in ("focus", "iris")}
            return head | said | {"focus_speed": order.focus_speed, "iris_speed": order.iris_speed}
        case ptz.Preset(op, number):
            return head | {"kind": "preset", "op": op, "preset": number}
        case ptz.Cruise(op, group, preset, value):
            more: dict[str, Any] = {"speed": {"speed": value}, "dwell": {"dwell_s": value, "dwell": value}}.get(
                op, {"preset": preset} if op in ("add_point", "delete_point", "delete_group") else {}
            )
            return head | {"kind": "cruise", "op": op, "group": group} | more
        case ptz.Scan(op, group, value):
            return head | {"kind": "scan", "op": op, "group": group} | ({"speed": value} if op == "speed" else {})
        case ptz.Auxiliary(on, switch):
            return head | {"kind": "auxiliary", "op": "on" if on else "off", "switch": switch}


def _ptz(capture: Capture) -> Explanation:
    data = capture.data
    text = data.hex() if data[:1] == b"\xa5" else data.decode("ascii", "replace").strip()
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    verdict = Verdict("sum of bytes 0 to 6", raw[7:8].hex(), f"{sum(raw[:7]) & 0xFF:02x}") if len(raw) == 8 else None
    try:
        values = ptz_values(ptz.parse(text))
    except RemoteProtocolError as error:
        hint = ("motion wants one direction of each pair",) if error.reason == "conflict" else ()
        told = Told(0, len(data), "", checksum=verdict, error=error.reason, detail=str(error), hints=hint)
        return Explanation(NAME, (told,))
    fields = (
        Field("head", raw[:2].hex(), 0, 2, "起始字节、组合码", "start, check nibble"),
        Field("address", values["address"], 2, 1, "地址", "address (high bits in byte 6)"),
        Field("command", f"{raw[3]:02x}", 3, 1, "指令码", "command"),
        Field("data", raw[4:7].hex(), 4, 3, "数据", "data 1, data 2, data 3"),
        Field("checksum", raw[7:].hex(), 7, 1, "校验码", "sum"),
    )
    return Explanation(NAME, (Told(0, 8, f"云台 {values['kind']}", fields, values, verdict),), values=values)


def _digest(capture: Capture) -> Explanation:
    given = {key: str(value) for key, value in capture.extra.items() if isinstance(value, (str, int))}
    if "authorization" in given:
        given = headers.digest(given["authorization"]) | given
    method = given.get("method", "REGISTER")
    stored = given.get("response", "").lower()
    tries = [given["password"]] if "password" in given else list(FACTORY_PASSWORDS)
    wanted = ""
    for password in tries:
        computed = digest.response(method, password, given)
        if computed is None:
            return refused(
                NAME, "algorithm", f"digest algorithm {given.get('algorithm')!r} is not known", capture=capture
            )
        wanted = wanted or computed
        if computed == stored:
            values = {"digest_ok": True, "digest_ok_with_password": password, "response": stored}
            verdict = Verdict(f"digest {given.get('algorithm') or 'MD5'}", stored, computed)
            return Explanation(NAME, (Told(0, 0, "鉴权 digest", values=values, checksum=verdict),), values=values)
    hints = tuple(_digest_hints(method, tries, given, stored))
    told = Told(
        0, 0, "鉴权 digest", checksum=Verdict("digest", stored, wanted), error="digest",
        detail="the response does not fit this password", hints=hints,
    )  # fmt: skip
    return Explanation(NAME, (told,))


def _digest_hints(method: str, tries: list[str], given: Mapping[str, str], stored: str) -> list[str]:
    out = []
    for password in tries:
        if given.get("qop") and digest.response(method, password, {**given, "qop": ""}) == stored:
            out.append("fits without qop although qop is sent")
        bare = re.sub(r":\d+$", "", given.get("uri", ""))
        if bare != given.get("uri") and digest.response(method, password, {**given, "uri": bare}) == stored:
            out.append("fits for the address without its port")
        others = (other for other in ("REGISTER", "INVITE", "MESSAGE") if other != method)
        out += [f"fits for the method {one}" for one in others if digest.response(one, password, given) == stored]
    return out


def _id(capture: Capture) -> Explanation:
    text = str(capture.extra.get("gb_id") or capture.data.decode("ascii", "replace")).strip()
    if not ids.valid(text):
        return refused(NAME, "id", f"{text[:40]!r} is no 20-digit identity", capture=capture)
    parts = (
        ("division", 0, 8, "行政区划"), ("trade", 8, 10, "行业"), ("type", 10, 13, "类型"),
        ("network", 13, 14, "网络标识"), ("serial", 14, 20, "序号"),
    )  # fmt: skip
    fields = tuple(Field(name, text[a:b], a, b - a, zh, name) for name, a, b, zh in parts)
    values = {name: text[a:b] for name, a, b, _ in parts} | {"kind": ids.kind(text), "kind_zh": ids.kind_zh(text)}
    return Explanation(NAME, (Told(0, 20, ids.kind_zh(text), fields, values),), values=values)
