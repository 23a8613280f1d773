"""Parts of a GB/T 28181 exchange on their own, told for :mod:`protocols.gb28181.explain`: PTZCmd, digest, identity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused
from protocols.gb28181 import digest, headers, ids, ptz

NAME = "gb28181"

#: What leaves the factory; a camera that logs in with one of these can be taken over by anybody.
FACTORY_PASSWORDS = (
    "12345678", "123456", "admin123", "admin", "admin12345", "123456789", "1234567890", "12345", "111111", "888888",
    "88888888", "00000000", "Admin123", "hik12345", "dahua123", "password",
)  # fmt: skip

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


def ptz_order(capture: Capture) -> Explanation:
    data = capture.data
    # Sixteen digits as in the XML, or the eight bytes they stand for.
    text = data.decode("ascii").strip() if data.isascii() and data.strip() else data.hex()
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


def login(capture: Capture) -> Explanation:
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


def identity(capture: Capture) -> Explanation:
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
