"""`citybrain decode PROTOCOL [FILE|-|HEX]`: a captured frame told field by field, and what is probably wrong with it.

Exit status: 0 if something was read, 1 if not (with the reason), 2 if the question itself was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

from citybrain_cli.hexinput import Form, from_argument, parse_hex
from protocols.core.errors import ConfigError
from protocols.core.explain import Capture, Explanation, Field, Told, from_vector
from protocols.registry import FAMILIES, family

AUTO = "auto"
#: A field's bytes are shown up to here; the rest is told by its length.
_SHOWN_BYTES = 12


def add(commands: Any) -> None:
    names = [one.name for one in FAMILIES.values() if one.explain]
    parser = commands.add_parser(
        "decode",
        help="tell a captured frame field by field",
        description=f"Protocols: {', '.join(names)}; {AUTO} finds it.",
    )
    parser.add_argument("protocol", metavar="PROTOCOL", help=f"one of those below, or {AUTO}")
    parser.add_argument("input", nargs="?", metavar="FILE|-|HEX", help="a file, - for standard input, or the frame")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--topic", default="", help="the MQTT topic it came on")
    parser.add_argument("--request", default="", metavar="HEX", help="the request that this frame answers")
    parser.add_argument("--strict", action="store_true", help="the standard and nothing else")
    parser.add_argument(
        "--as", dest="form", choices=("auto", "hex", "text", "raw"), default="auto", help="the input is"
    )
    parser.add_argument("--lang", choices=("zh", "en"), default=None, help="language of the labels (default: LANG)")
    parser.set_defaults(do=_decode)


#: Options of this command that take a value.
_WITH_VALUE = frozenset({"--topic", "--request", "--as", "--lang"})


def in_order(arguments: list[str]) -> list[str]:
    """Options first, then PROTOCOL and the input: argparse would take an optional input as missing when an option
    stands before it. ``--`` ends the options, as everywhere."""
    options: list[str] = []
    plain: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            plain += rest
        elif argument.startswith("-") and argument != "-":
            options.append(argument)
            if argument in _WITH_VALUE:
                options += [value for value in [next(rest, None)] if value is not None]
        else:
            plain.append(argument)
    return [*options, "--", *plain] if plain else options


def _decode(options: argparse.Namespace) -> int:
    if options.protocol != AUTO:
        family(options.protocol).explainer()  # an unknown name is said before standard input is waited for
    data = from_argument(options.input, sys.stdin.buffer, options.form)
    lang = options.lang or ("zh" if os.environ.get("LANG", "").startswith("zh") else "en")
    rows = _vectors(data, options.form)
    if rows is not None:
        told = [(row, tell(options.protocol, from_vector(row, strict=options.strict))) for row in rows]
        shown = [{"id": row.get("id", ""), **as_json(one)} for row, one in told]
        if options.json:
            print(json.dumps(shown[0] if len(shown) == 1 else shown, ensure_ascii=False, indent=2))
        else:
            for _, one in told:
                print(as_text(one, lang))
        return 0 if told and all(one.ok for _, one in told) else 1
    capture = Capture(data, topic=options.topic, request=_request(options.request), strict=options.strict)
    one = tell(options.protocol, capture)
    print(json.dumps(as_json(one), ensure_ascii=False, indent=2) if options.json else as_text(one, lang))
    return 0 if one.ok else 1


def _request(text: str) -> bytes:
    found = parse_hex(text) if text else b""
    if found is None:
        raise ConfigError("--request: not hex")
    return found


def _vectors(data: bytes, form: Form) -> list[Mapping[str, Any]] | None:
    """The rows of a vector file, or one such row; None if the input is none."""
    if form != "auto" or data[:1] not in (b"[", b"{"):
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    rows = found if isinstance(found, list) else [found]
    fits = rows and all(isinstance(row, dict) and "kind" in row and ("id" in row or "expect" in row) for row in rows)
    return rows if fits else None


def tell(protocol: str, capture: Capture) -> Explanation:
    """The explanation by that protocol, or by the one that fits best. Raises ConfigError for an unknown name."""
    if protocol != AUTO:
        return family(protocol).explainer()(capture)
    return guess(capture)[0]


def guess(capture: Capture) -> list[Explanation]:
    """Every protocol's explanation, the one that fits best first. Those whose library is not installed are left out."""
    found = []
    for one in FAMILIES.values():
        if not one.explain:
            continue
        try:
            found.append(one.explainer()(capture))
        except ModuleNotFoundError:
            continue
    return sorted(found, key=lambda told: _fit(told, capture), reverse=True)


def _fit(told: Explanation, capture: Capture) -> tuple[float, int]:
    """How much of the capture it explains, weighed by how sure one can be; then how close it came."""
    size = max(1, len(capture.data))
    read = 0.0
    for one in told.frames:
        if one.ok:
            sure = 1.0 if one.checksum is not None and one.checksum.ok else 0.5
            read += sure * min(one.length, size)
        elif one.checksum is not None:
            read += 0.1 * min(one.length, size)  # the shape fits, the checksum does not
    return read / size, len(told.good)


# -- as JSON


def as_json(told: Explanation) -> dict[str, Any]:
    """The message under the vectors' names at the top; the frames field by field under ``explained``."""
    out: dict[str, Any] = {"protocol": told.protocol, "ok": told.ok}
    if not told.ok:
        out |= {"error": told.error, "detail": told.detail}
    out |= {key: value for key, value in told.said().items() if key not in out}
    out["explained"] = [_frame_json(one) for one in told.frames]
    if told.rest:
        out["rest_hex"] = told.rest.hex()
    return out


def _frame_json(one: Told) -> dict[str, Any]:
    out: dict[str, Any] = {"offset": one.offset, "length": one.length, "title": one.title, "ok": one.ok}
    if one.error:
        out |= {"error": one.error, "detail": one.detail}
    if one.checksum is not None:
        check = one.checksum
        out["checksum"] = {"rule": check.rule, "stored": check.stored, "computed": check.computed, "ok": check.ok}
    if one.hints:
        out["hints"] = list(one.hints)
    out["fields"] = [
        {key: value for key, value in _field(field).items() if value not in (None, "") or key == "value"}
        for field in one.fields
    ]
    return out


def _field(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "value": field.value,
        "offset": field.offset,
        "length": field.length,
        "zh": field.zh,
        "en": field.en,
    }


# -- as text


_WORDS = {
    "zh": {
        "offset": "偏移",
        "bytes": "字节",
        "field": "字段",
        "value": "值",
        "label": "含义",
        "ok": "正确",
        "bad": "错误",
        "checksum": "校验",
        "computed": "应为",
        "refused": "拒绝",
        "hint": "提示",
        "rest": "剩余",
        "frame": "帧",
    },
    "en": {
        "offset": "offset",
        "bytes": "bytes",
        "field": "field",
        "value": "value",
        "label": "meaning",
        "ok": "right",
        "bad": "WRONG",
        "checksum": "checksum",
        "computed": "should be",
        "refused": "refused",
        "hint": "hint",
        "rest": "left over",
        "frame": "frame",
    },
}


def as_text(told: Explanation, lang: str) -> str:
    words = _WORDS[lang]
    out = []
    for number, one in enumerate(told.frames, 1):
        out.append(f"{told.protocol}  {words['frame']} {number}  @{one.offset}  {one.length} B  {one.title}".rstrip())
        if one.fields:
            out += _table(one, lang)
        if (check := one.checksum) is not None:
            verdict = words["ok"] if check.ok else f"{words['bad']}, {words['computed']} {check.computed}"
            out.append(f"  {words['checksum']} {check.rule}: {check.stored} {verdict}")
        if one.error:
            out.append(f"  {words['refused']}: {one.error}: {one.detail}")
        out += [f"  {words['hint']}: {hint}" for hint in one.hints]
    if not told.frames:
        out.append(f"{told.protocol}  {words['refused']}: {told.error}: {told.detail}")
    if told.rest:
        more = "" if len(told.rest) <= _SHOWN_BYTES else " ..."
        out.append(f"{words['rest']}: {len(told.rest)} B  {told.rest[:_SHOWN_BYTES].hex(' ')}{more}")
    return "\n".join(out)


def _table(one: Told, lang: str) -> list[str]:
    words = _WORDS[lang]
    rows = [(words["offset"], words["bytes"], words["field"], words["value"], words["label"])]
    for field in one.fields:
        at = "" if field.offset is None else str(field.offset)
        size = "" if field.length is None else str(field.length)
        value = field.value if isinstance(field.value, str) else json.dumps(field.value, ensure_ascii=False)
        rows.append((at, size, field.name, _shortened(value), field.zh if lang == "zh" else field.en))
    widths = [max(_width(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  " + "  ".join(_padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _shortened(text: str) -> str:
    text = "".join(c if c.isprintable() else "·" for c in text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


__all__ = ["AUTO", "add", "as_json", "as_text", "guess", "tell"]
