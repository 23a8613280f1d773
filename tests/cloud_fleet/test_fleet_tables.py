"""Tables as people bring them: well made, badly made, and made to harm."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.fleet.columns import COLUMNS, column_named
from cloud.fleet.query import FIELDS, KINDS, Kind, QueryError, condition
from cloud.fleet.sheet import Row, RowError, SheetError, read, write_csv, write_json_lines

GOOD = '网关编号,中文名,经度,纬度,标签,区县\ngw-1,滨湖工地,117.29,31.74,冬季;试点,包河区\ngw-2,"名称,带逗号",,,,\n'


def rows(data: bytes | str, kind: Kind = "gateways") -> list[Row | RowError]:
    return list(read(kind, data.encode() if isinstance(data, str) else data))


def values(data: bytes | str, kind: Kind = "gateways") -> list[dict[str, Any]]:
    found = rows(data, kind)
    assert all(isinstance(row, Row) for row in found), found
    return [dict(row.values) for row in found if isinstance(row, Row)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_whatever_a_spreadsheet_writes_is_read(encoding: str, delimiter: str, newline: str) -> None:
    text = GOOD.replace("冬季;试点", "冬季|试点").replace("\n", newline)
    if delimiter != ",":
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator=newline).writerows(
            csv.reader(io.StringIO(text, newline=""))
        )
        text = out.getvalue()
    first, second = values(text.encode(encoding))
    assert first == {"gateway_id": "gw-1", "name_zh": "滨湖工地", "lon": 117.29, "lat": 31.74,
                     "tags": ["冬季", "试点"], "district": "baohe"}  # fmt: skip
    assert second["name_zh"] == "名称,带逗号" and second["lon"] is None


def test_json_in_three_forms() -> None:
    item = {"gateway_id": "gw-1", "lon": 117.2, "lat": 31.8, "tags": ["a", "b"], "name_zh": None}
    for text in (
        json.dumps([item]),
        json.dumps({"gateways": [item]}),
        json.dumps(item),
        json.dumps(item) + "\n" + json.dumps(item),
    ):
        assert values(text)[0] == {"gateway_id": "gw-1", "lon": 117.2, "lat": 31.8, "tags": ["a", "b"], "name_zh": ""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n\n  \n", "is empty"),
        ("gateway_id,nmae_zh\ngw-1,x", "is name_zh meant"),
        ("gateway_id,,name_zh\n", "unknown column ''"),
        ("name_zh\nx", "column gateway_id is missing"),
        ("gateway_id,网关编号\n", "stands there twice"),
        ("[1, 2", "not JSON"),
        ('{"gateways": 3}', "a list was expected"),
        ("[" * 100_000, "nested too deep"),
        ('"gateway_id\n' + "x" * 200_000, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(text: str, said: str) -> None:
    with pytest.raises(SheetError) as error:
        rows(text)
    assert said in error.value.en and error.value.zh


def test_bytes_that_are_no_text() -> None:
    for data in (b"\xef\xbb\xbfgateway_id\n\xff\xff", b"\xff\xfeg\x00\xd8", b"gateway_id\n\xff\xff\xff\n"):
        with pytest.raises(SheetError):
            rows(data)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("GW 1,,,", "gateway_id"), (",x,,", "gateway_id"), ("gw-1,,200,31", "lon"), ("gw-1,,117,", "lon"),
        ("gw-1,,nan,31", "lon"), ("gw-1,,1e999,31", "lon"), ("gw-1,,117,abc", "lat"), ("gw-1,a\x07b,,", "name_zh"),
        (f"gw-1,{'x' * 129},,", "name_zh"), ("gw-1,,,,more", ""), ("gw-1,a\x00b,,", "name_zh"),
        ("../../etc,,,", "gateway_id"), ("gw-1'; drop table gateway,,,", "gateway_id"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named_and_the_others_are_read(row: str, column: str) -> None:
    found = rows(f"gateway_id,name_zh,lon,lat\ngw-0,,,\n{row}\ngw-9,,,\n")
    wrong = [one for one in found if isinstance(one, RowError)]
    assert [(one.row, one.column) for one in wrong] == [(3, column)] and wrong[0].zh
    assert len(found) == 3


def test_quotes_that_do_not_match_end_the_table() -> None:
    found = rows('gateway_id,name_zh\ngw-1,a\ngw-2,"b\ngw-3,c\n')
    assert isinstance(found[0], Row) and isinstance(found[1], RowError) and len(found) == 2


CELL = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12).map(str.strip) | st.sampled_from(
    ["=1+1", "+49", "-5号楼", "@SUM(A1)", "'x", "'=x", "''", "'", "＝cmd|' /C calc'!A0", "a,b", 'a"b']
)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.booleans())
def test_what_is_given_out_comes_back_the_same_and_runs_nowhere(names: list[tuple[str, str]], zh: bool) -> None:
    given_out = [
        {"gateway_id": f"gw-{n}", "name_zh": one, "name_en": other, "lon": -117.5, "lat": 31.0, "tags": ["a-b", "c"],
         "shard": 3, "admission": "auto", "district": "", "department": "", "version": "=1", "online": True}
        for n, (one, other) in enumerate(names)
    ]  # fmt: skip
    text = "".join(write_csv("gateways", given_out, zh=zh))
    for cells in list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))[1:]:
        for column, cell in zip(COLUMNS["gateways"], cells, strict=True):
            assert column.numeric or not cell.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r")), cell
    for back in (values(text), values("".join(write_json_lines("gateways", given_out)))):
        assert [(row["name_zh"], row["name_en"], row["tags"], row["lon"]) for row in back] == [
            (one, other, ["a-b", "c"], -117.5) for one, other in names
        ]


@given(st.binary(max_size=300), st.sampled_from(KINDS))
def test_no_bytes_break_the_reader(data: bytes, kind: Kind) -> None:
    try:
        found = list(read(kind, data))
    except SheetError as error:
        assert error.en and error.zh
        return
    for row in found:
        json.dumps(row.en if isinstance(row, RowError) else list(row.values)).encode()


@given(st.text(max_size=60), st.sampled_from(KINDS))
def test_no_heading_and_cell_break_the_reader(text: str, kind: Kind) -> None:
    key = "gateway_id,device_id" if kind == "devices" else "gateway_id"
    for data in (f"{key},name_zh\n{text}", f"{text}\ngw-1", json.dumps([{"gateway_id": text, text: text}])):
        try:
            found = list(read(kind, data.encode("utf-8", "surrogatepass")))
        except SheetError:
            continue
        for row in found:
            if isinstance(row, RowError):
                (row.en + row.zh + row.column).encode()


def test_columns_go_by_key_and_by_name() -> None:
    for kind in KINDS:
        for column in COLUMNS[kind]:
            assert column_named(kind, f" {column.key.upper()} ") is column
            assert column_named(kind, column.zh) is column and column_named(kind, column.en) is column


# -- the question -----------------------------------------------------------------------------------------------------


@given(
    st.text(max_size=80) | st.from_regex(r"\A(-?[a-z]{2,7}(:|<|>=)?[\w*%'\"; -]{0,6} ?){1,5}\Z"), st.sampled_from(KINDS)
)
def test_a_question_is_parameters_and_our_own_words(text: str, kind: Kind) -> None:
    try:
        where, params = condition(kind, text)
    except QueryError as error:
        assert error.zh
        return
    ours = [field.sql for field in FIELDS[kind].values()]
    ours += [f"{x}_id || ' ' || {x[0]}.name_zh || ' ' || {x[0]}.name_en" for x in ("g.gateway", "d.device")]
    ours += ["version_key(", "is not true", "is true", "is false", "is null", "exists (", "t.tag", "ilike", "like",
             "not (", "true", " and ", " or ", "<> ''", "<=", ">=", "<", ">", "=", "(", ")", " "]  # fmt: skip
    fragment = "|".join([r"%\(q[0-9]+\)s", *(re.escape(one) for one in sorted(ours, key=len, reverse=True))])
    assert re.fullmatch(f"({fragment})*", where), where
    assert all(isinstance(value, str | int) for value in params.values())


@pytest.mark.parametrize(
    "text",
    ["colour:red", "online:maybe", "shard:x", "version<abc", "district<a", 'name:"open', "tag:", " ".join(["a"] * 21),
     "x" * 501, "a\x00b", "type:x"],
)  # fmt: skip
def test_a_question_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        condition("gateways", text)
