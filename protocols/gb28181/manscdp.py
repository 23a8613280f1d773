"""MANSCDP bodies: the XML in a MESSAGE (GB/T 28181-2016 annex A.2), read as cameras write it.

Declared GB2312 is read as GB18030; a wrong declaration is found out; a bare ``&`` in a channel's name and stray control
characters are repaired. Document types and entities are refused unread, depth and number of elements are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

CONTENT_TYPE = "Application/MANSCDP+xml"
MOST_DEPTH = 8
MOST_ELEMENTS = 20_000

ROOTS = ("Query", "Response", "Notify", "Control")
_DECLARATION = re.compile(rb"^\s*<\?xml([^>]*)\?>")
_ENCODING = re.compile(rb"encoding\s*=\s*[\"']([\w-]+)")
_BARE = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9A-Fa-f]{1,6});)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_DOCTYPE = re.compile(r"<!(?!--|\[CDATA\[)")
_TAG = re.compile(r"[A-Za-z_][\w.-]{0,63}\Z")
_CODECS = {"gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "utf-8": "utf-8", "utf8": "utf-8"}

#: Lists by name: some senders leave ``Num`` out of one that is empty.
_LISTS = frozenset({"DeviceList", "RecordList", "PresetList"})

Item = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Body:
    """``fields``: the children of the root that hold text, in order. ``parts``: children with children (Info, AlarmCmd
    parameters ...) by name. ``items``: Items of the one list a body has (DeviceList, RecordList, PresetList).

    Values are as sent; :meth:`text` gives "" for what stands for no value."""

    root: str
    fields: Mapping[str, str]
    items: tuple[Item, ...] = ()
    parts: Mapping[str, Item] = field(default_factory=dict)
    list_name: str = ""
    encoding: str = field(default="gb18030", compare=False)

    def text(self, name: str) -> str:
        return said(self.fields.get(name, ""))

    @property
    def command(self) -> str:
        return self.text("CmdType")

    @property
    def device(self) -> str:
        return self.text("DeviceID")

    @property
    def serial(self) -> str:
        return self.text("SN")

    @property
    def total(self) -> int | None:
        """SumNum: how many items all messages with this SN have."""
        return whole(self.fields.get("SumNum", ""))


def said(text: str) -> str:
    """The text, "" where the sender wrote "null"."""
    text = text.strip()
    return "" if text.lower() == "null" else text


def whole(text: str) -> int | None:
    text = said(text)
    return int(text) if text.isdecimal() and len(text) < 10 else None


def decimal(text: str) -> float | None:
    """A number in an element, None for none."""
    try:
        value = float(said(text))
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None


def parse(data: bytes) -> Body:
    """Raises RemoteProtocolError: encoding, entity, xml, root, depth."""
    text, codec = _decoded(data)
    if _DOCTYPE.search(text):
        raise RemoteProtocolError("MANSCDP body with a document type or entities", reason="entity")
    tree = _tree(text)
    if tree.tag not in ROOTS:
        raise RemoteProtocolError(f"MANSCDP root {tree.tag[:40]!r}", reason="root")
    fields: dict[str, str] = {}
    items: list[Item] = []
    parts: dict[str, Item] = {}
    list_name = ""
    for child in tree:
        listed = "Num" in child.attrib or child.tag in _LISTS or any(one.tag == "Item" for one in child)
        if len(child) == 0 and not listed:
            fields.setdefault(child.tag, child.text or "")
        elif listed:
            list_name = list_name or child.tag
            items += [_flat(one) for one in child if one.tag == "Item"]
        else:
            parts.setdefault(child.tag, _flat(child))
    return Body(tree.tag, fields, tuple(items), parts, list_name, codec)


def _decoded(data: bytes) -> tuple[str, str]:
    declaration = _DECLARATION.match(data[:200])
    stated = _ENCODING.search(declaration[1]) if declaration else None
    first = _CODECS.get(stated[1].decode().lower(), "") if stated else ""
    rest = data[declaration.end() :] if declaration else data
    for codec in dict.fromkeys(one for one in (first, "utf-8", "gb18030") if one):
        try:
            return rest.decode(codec).lstrip("\ufeff"), codec
        except UnicodeDecodeError:
            continue
    raise RemoteProtocolError("MANSCDP body is neither GB18030 nor UTF-8", reason="encoding")


def _tree(text: str) -> ET.Element:
    for attempt in (text, _BARE.sub("&amp;", _CONTROL.sub("", text))):
        try:
            # No document type gets here, so there is nothing to expand.
            tree = ET.fromstring(attempt.strip())  # noqa: S314
        except (ET.ParseError, ValueError):
            continue
        _bounded(tree)
        return tree
    raise RemoteProtocolError("MANSCDP body is not well-formed XML", reason="xml")


def _bounded(tree: ET.Element) -> None:
    level, count = [tree], 1
    for _ in range(MOST_DEPTH):
        level = [child for one in level for child in one]
        count += len(level)
        if not level:
            return
        if count > MOST_ELEMENTS:
            break
    raise RemoteProtocolError("MANSCDP body is too deep or too long", reason="depth")


def _flat(element: ET.Element) -> Item:
    """The leaves of an element by name; an Item's Info lies one deeper and is not worth a structure of its own."""
    out: dict[str, str] = {}
    for child in element:
        if len(child) == 0:
            out.setdefault(child.tag, child.text or "")
        else:
            for leaf in child.iter():
                if len(leaf) == 0:
                    out.setdefault(leaf.tag, leaf.text or "")
    return out


def build(body: Body) -> bytes:
    """The bytes, declared GB2312 or UTF-8 after ``body.encoding``. Raises LocalProtocolError for impossible names."""
    declared = "UTF-8" if body.encoding == "utf-8" else "GB2312"
    lines = [f'<?xml version="1.0" encoding="{declared}"?>', f"<{_name(body.root)}>"]
    lines += _leaves(body.fields)
    for name, part in body.parts.items():
        lines += [f"<{_name(name)}>", *_leaves(part), f"</{name}>"]
    if body.list_name:
        lines.append(f'<{_name(body.list_name)} Num="{len(body.items)}">')
        for item in body.items:
            lines += ["<Item>", *_leaves(item), "</Item>"]
        lines.append(f"</{body.list_name}>")
    lines.append(f"</{body.root}>")
    return ("\r\n".join(lines) + "\r\n").encode("utf-8" if declared == "UTF-8" else "gb18030")


def _name(name: str) -> str:
    if not _TAG.match(name):
        raise LocalProtocolError(f"{name!r} is no XML name", reason="xml")
    return name


def _leaves(fields: Item) -> list[str]:
    return [f"<{_name(name)}>{escape(_CONTROL.sub('', value))}</{name}>" for name, value in fields.items()]


def body(root: str, command: str, serial: int | str, device: str, **more: str) -> Body:
    """The usual head of a body and more leaves behind it."""
    return Body(root, {"CmdType": command, "SN": str(serial), "DeviceID": device, **more})


@dataclass(frozen=True, slots=True)
class Channel:
    """One item of a catalogue. ``on`` None: not said."""

    id: str
    name: str = ""
    maker: str = ""
    model: str = ""
    parent: str = ""
    address: str = ""
    civil_code: str = ""
    has_children: bool = False
    on: bool | None = None
    lon: float | None = None
    lat: float | None = None
    ptz: int | None = None  # 1 dome, 2 half dome, 3 fixed bullet, 4 bullet with remote control


def channel(item: Item) -> Channel | None:
    """The channel an item describes, None for one without an id."""
    number = said(item.get("DeviceID", ""))
    if not number:
        return None
    status = said(item.get("Status", "")).upper()
    lon, lat = decimal(item.get("Longitude", "")), decimal(item.get("Latitude", ""))
    placed = lon is not None and lat is not None and (lon, lat) != (0.0, 0.0) and abs(lon) <= 180 and abs(lat) <= 90
    return Channel(
        number, said(item.get("Name", "")), said(item.get("Manufacturer", "")), said(item.get("Model", "")),
        said(item.get("ParentID", "")), said(item.get("Address", "")), said(item.get("CivilCode", "")),
        said(item.get("Parental", "")) == "1",
        {"ON": True, "OK": True, "ONLINE": True, "OFF": False, "OFFLINE": False}.get(status),
        lon if placed else None, lat if placed else None, whole(item.get("PTZType", "")),
    )  # fmt: skip


def catalogue_parts(channels: Sequence[Channel], serial: str, device: str, *, size: int = 4) -> list[Body]:
    """A device's answer to a Catalog query: as many bodies as it takes, each with the total."""
    parts = [channels[at : at + size] for at in range(0, len(channels), size)] or [[]]
    head = {"CmdType": "Catalog", "SN": serial, "DeviceID": device, "SumNum": str(len(channels))}
    return [Body("Response", head, tuple(_item(one) for one in part), list_name="DeviceList") for part in parts]


def _item(one: Channel) -> Item:
    out = {
        "DeviceID": one.id, "Name": one.name, "Manufacturer": one.maker, "Model": one.model, "Owner": "null",
        "CivilCode": one.civil_code, "Address": one.address, "Parental": str(int(one.has_children)),
        "ParentID": one.parent, "SafetyWay": "0", "RegisterWay": "1", "Secrecy": "0",
        "Status": "OFF" if one.on is False else "ON",
    }  # fmt: skip
    if one.lon is not None and one.lat is not None:
        out |= {"Longitude": f"{one.lon:.6f}", "Latitude": f"{one.lat:.6f}"}
    if one.ptz is not None:
        out["PTZType"] = str(one.ptz)
    return out
