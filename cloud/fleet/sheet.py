"""Tables as people bring them: CSV out of any spreadsheet, or JSON; and as they are given out.

Taken in: UTF-8 with or without BOM, UTF-16 with BOM, GB 18030 (what a Chinese Excel writes); comma, semicolon or tab.
Given out: UTF-8 with BOM, so that the same Excel shows Chinese; a cell that a spreadsheet would run as a formula gets
an apostrophe in front, which is taken off again when the table comes back.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloud.fleet.columns import COLUMNS, REQUIRED, Column, Wrong, column_named
from cloud.fleet.query import Kind

MAX_BYTES = 64 << 20
MAX_ROWS = 1_000_000
_MAX_CELL = 4_096
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "'")


class SheetError(Wrong):
    """The table as a whole cannot be read."""


@dataclass(frozen=True, slots=True)
class RowError:
    """``row``: the line of the file, or the number of the JSON item, counted from 1."""

    row: int
    column: str
    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    values: Mapping[str, Any]  # by column key; columns that were not brought are absent


def read(kind: Kind, data: bytes) -> Iterator[Row | RowError]:
    """Rows and what is wrong with others, in order. Raises SheetError before the first row."""
    if len(data) > MAX_BYTES:
        raise SheetError(f"larger than {MAX_BYTES >> 20} MiB", f"超过 {MAX_BYTES >> 20} MiB")
    text = _decode(data)
    if text.lstrip()[:1] in ("[", "{"):
        return _limited(_json_rows(kind, text))
    return _limited(_csv_rows(kind, text))


def _limited(rows: Iterator[Row | RowError]) -> Iterator[Row | RowError]:
    for count, row in enumerate(rows):
        if count >= MAX_ROWS:
            yield RowError(count, "", f"more than {MAX_ROWS} rows", f"超过 {MAX_ROWS} 行")
            return
        yield row


def _decode(data: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise SheetError(
                    f"says it is {encoding} and is not: {error.reason}", f"标明 {encoding} 但内容不符"
                ) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError as error:
        raise SheetError(
            f"neither UTF-8 nor GBK, from byte {error.start}", f"既非 UTF-8 也非 GBK（第 {error.start} 字节起）"
        ) from None


def _csv_rows(kind: Kind, text: str) -> Iterator[Row | RowError]:
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        heading = next((cells for cells in reader if any(cell.strip() for cell in cells)), None)
    except csv.Error as error:
        raise SheetError(f"the heading cannot be read: {error}", f"表头无法读取：{error}") from None
    if heading is None:
        raise SheetError("is empty", "表是空的")
    return _csv_body(reader, _columns(kind, heading))


def _csv_body(reader: Any, columns: list[Column]) -> Iterator[Row | RowError]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RowError(reader.line_num, "", f"the line cannot be read: {error}", f"该行无法读取：{error}")
            return  # quotes do not match: what follows cannot be told apart
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            yield RowError(
                reader.line_num, "", f"{len(cells)} cells, the heading has {len(columns)}",
                f"有 {len(cells)} 格，表头有 {len(columns)} 格",
            )  # fmt: skip
            continue
        padded = [*cells, *[""] * (len(columns) - len(cells))]
        yield from _row(
            reader.line_num, {column: _unguard(cell) for column, cell in zip(columns, padded, strict=False)}
        )


def _columns(kind: Kind, heading: list[str]) -> list[Column]:
    while heading and not heading[-1].strip():
        heading.pop()
    found: list[Column] = []
    for name in heading:
        column = column_named(kind, name)
        if column is None:
            known = [c.key for c in COLUMNS[kind]]
            near = difflib.get_close_matches(name.strip().lower(), known, 1)
            en = f"unknown column {name.strip()[:40]!r}" + (
                f", is {near[0]} meant?" if near else f"; there are {', '.join(known)}"
            )
            zh = f"未知的列 {name.strip()[:40]}" + (
                f"，是否应为 {near[0]}？" if near else f"；可用：{'、'.join(known)}"
            )
            raise SheetError(en, zh)
        if column in found:
            raise SheetError(f"column {column.key} stands there twice", f"列 {column.zh} 出现两次")
        found.append(column)
    for key in REQUIRED[kind]:
        if key not in [column.key for column in found]:
            raise SheetError(f"column {key} is missing", f"缺少列 {key}")
    return found


def _row(number: int, cells: Mapping[Column, str]) -> Iterator[Row | RowError]:
    values: dict[str, Any] = {}
    errors: list[RowError] = []
    for column, cell in cells.items():
        if column.read is None:
            continue
        cell = cell.strip()
        try:
            if len(cell) > _MAX_CELL:
                raise Wrong(f"longer than {_MAX_CELL} characters", f"超过 {_MAX_CELL} 个字符")
            values[column.key] = column.read(cell)
        except Wrong as wrong:
            errors.append(RowError(number, column.key, wrong.en, wrong.zh))
    misread = {error.column for error in errors} & {"lon", "lat"}
    if not misread and (values.get("lon") is None) != (values.get("lat") is None):
        errors.append(RowError(number, "lon", "longitude and latitude belong together", "经度和纬度须同时给出"))
    if errors:
        yield from errors
    else:
        yield Row(number, values)


def _json_rows(kind: Kind, text: str) -> Iterator[Row | RowError]:
    """A list, a table with one list in it, or one object a line."""
    try:
        whole = json.loads(text)
    except RecursionError:
        raise SheetError("nested too deep", "嵌套过深") from None
    except ValueError as error:
        if text.lstrip().startswith("{") and "\n" in text.strip():
            return _json_items(kind, _json_lines(text))
        raise SheetError(f"not JSON: {error}", f"不是 JSON：{error}") from None
    if isinstance(whole, dict):
        whole = whole.get(kind, [whole])
    if not isinstance(whole, list):
        raise SheetError(f"{kind}: a list was expected", f"{kind}：应为列表")
    return _json_items(kind, enumerate(whole, 1))


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, RowError(number, "", f"not JSON: {error}", f"不是 JSON：{error}")


def _json_items(kind: Kind, items: Iterable[tuple[int, Any]]) -> Iterator[Row | RowError]:
    for number, item in items:
        if isinstance(item, RowError):
            yield item
        elif not isinstance(item, dict):
            yield RowError(number, "", "not an object", "不是对象")
        else:
            yield from _json_item(kind, number, item)


def _json_item(kind: Kind, number: int, item: Mapping[str, Any]) -> Iterator[Row | RowError]:
    cells: dict[Column, str] = {}
    for name, value in item.items():
        column = column_named(kind, name)
        if column is None:
            shown = name[:40].encode("utf-8", "replace").decode()
            yield RowError(number, shown, "unknown column", "未知的列")
            return
        if isinstance(value, list):
            value = ";".join(str(part) for part in value)
        elif isinstance(value, bool | dict) and column.read is not None:
            yield RowError(number, column.key, "text or number was expected", "应为文字或数字")
            return
        cells[column] = "" if value is None else str(value).encode("utf-8", "replace").decode()
    for key in REQUIRED[kind]:
        if key not in [column.key for column in cells]:
            yield RowError(number, key, "is missing", "缺失")
            return
    yield from _row(number, cells)


# -- giving out -------------------------------------------------------------------------------------------------------


def guard(cell: str) -> str:
    """A cell that no spreadsheet runs."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _unguard(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def write_csv(kind: Kind, rows: Iterable[Mapping[str, Any]], *, zh: bool) -> Iterator[str]:
    """Pieces of a file, the first with the BOM."""
    columns = COLUMNS[kind]
    yield "\ufeff" + _line([column.zh if zh else column.key for column in columns])
    for row in rows:
        yield _line([_cell(column, row.get(column.key)) for column in columns])


def write_json_lines(kind: Kind, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps({column.key: row.get(column.key) for column in COLUMNS[kind]}, ensure_ascii=False) + "\n"


def _cell(column: Column, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return guard(";".join(str(part) for part in value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if column.numeric else guard(str(value))


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()
