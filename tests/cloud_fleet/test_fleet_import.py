"""Tables into a real registry and out of it again; questions, tags and groups over what is in it."""

from __future__ import annotations

import csv
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from citybrain_cli.main import main
from cloud.fleet import listing
from cloud.fleet.importing import Outcome, bring
from cloud.fleet.query import QueryError
from protocols.core.errors import ContractError

Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(dsn: str) -> Iterator[Conn]:
    with psycopg.connect(dsn, autocommit=True) as found:
        yield found


def gateways(conn: Conn, text: str, **options: bool) -> Outcome:
    return bring(conn, "gateways", text.encode(), "王敏", **options)


def devices(conn: Conn, text: str, **options: bool) -> Outcome:
    return bring(conn, "devices", text.encode(), "王敏", **options)


def audited(conn: Conn) -> list[tuple[str, Any]]:
    return conn.execute("select action, detail from audit_entry order by entry_id").fetchall()


TABLE = (
    "gateway_id,name_zh,lon,lat,shard,tags,district\n"
    "gw-a,甲,117.2,31.8,5,winter;pilot,baohe\ngw-b,乙,,,,,shushan\ngw-c,丙,,,,winter,\n"
)


def test_in_again_and_changed(conn: Conn) -> None:
    assert gateways(conn, TABLE, dry_run=True).written is False
    assert conn.execute("select count(*) from gateway").fetchone() == (0,) and audited(conn) == []
    first = gateways(conn, TABLE)
    assert (first.new, first.changed, first.same, first.written) == (["gw-a", "gw-b", "gw-c"], [], 0, True)
    shards = dict(conn.execute("select gateway_id, shard from gateway").fetchall())
    assert shards["gw-a"] == 5 and len(set(shards.values())) == 3  # the others where nobody is
    again = gateways(conn, TABLE)
    assert (again.new, again.changed, again.same) == ([], [], 3)
    assert dict(conn.execute("select gateway_id, shard from gateway").fetchall()) == shards
    third = gateways(conn, "gateway_id,tags\ngw-a,pilot\ngw-b,\n")
    assert (third.changed, third.same) == (["gw-a"], 1)
    row = conn.execute("select name_zh, lon from gateway where gateway_id = 'gw-a'").fetchone()
    assert row == ("甲", 117.2)  # columns that were not brought stay
    assert listing.ids(conn, "gateways", "tag:winter") == ["gw-c"]
    log = audited(conn)
    assert [action for action, _ in log] == ["fleet.import", "fleet.import.new", "fleet.import", "fleet.import",
                                             "fleet.import.changed"]  # fmt: skip
    assert log[1][1]["ids"] == ["gw-a", "gw-b", "gw-c"]


def test_all_or_nothing_or_all_but(conn: Conn) -> None:
    gateways(conn, TABLE)
    text = "gateway_id,shard,name_zh\ngw-a,6,x\ngw-d,,x\ngw-d,,y\ngw-e,,z\nGW,,\n"
    found = gateways(conn, text)
    assert not found.written and found.left_out == 3
    assert sorted((e.row, e.column) for e in found.errors) == [(2, "shard"), (4, "gateway_id"), (6, "gateway_id")]
    assert conn.execute("select count(*) from gateway").fetchone() == (3,)
    found = gateways(conn, text, skip_wrong=True)
    assert found.written and found.new == ["gw-d", "gw-e"] and found.left_out == 3
    assert conn.execute("select name_zh from gateway where gateway_id = 'gw-d'").fetchone() == ("x",)


def test_devices_belong_to_a_gateway(conn: Conn) -> None:
    gateways(conn, TABLE)
    text = "device_id,gateway_id,lon,lat,tags\nm-1,gw-a,117.2,31.8,x\nm-2,gw-none,,,\n"
    assert [(e.row, e.column) for e in devices(conn, text).errors] == [(3, "gateway_id")]
    assert devices(conn, text.replace("gw-none", "gw-b")).new == ["m-1", "m-2"]
    assert [e.en for e in devices(conn, "device_id,gateway_id\nm-1,gw-b\n").errors] == ["m-1 belongs to gateway gw-a"]
    cell = conn.execute("select h3_9 from device where device_id = 'm-1'").fetchone()
    assert cell is not None and cell[0]
    assert devices(conn, "device_id,gateway_id,lon,lat\nm-1,gw-a,,\n").changed == ["m-1"]
    assert conn.execute("select lon, h3_9 from device where device_id = 'm-1'").fetchone() == (None, None)


def test_questions(conn: Conn) -> None:
    gateways(conn, TABLE)
    devices(conn, "device_id,gateway_id,tags,district\nm-1,gw-a,x,\nm-2,gw-b,,baohe\nm-3,gw-b,,\n")
    conn.execute("update device set device_type = 'env/dust_station' where device_id <> 'm-3'")
    conn.execute("update gateway set version = '0.10.1', online = true where gateway_id = 'gw-a'")
    conn.execute("update gateway set version = '0.9', online = false where gateway_id = 'gw-b'")
    conn.execute("update device set online = device_id <> 'm-3'")
    for kind, question, wanted in (
        ("gateways", "", ["gw-a", "gw-b", "gw-c"]),
        ("gateways", "tag:winter", ["gw-a", "gw-c"]),
        ("gateways", "tag:winter -tag:pilot", ["gw-c"]),
        ("gateways", "version<0.10", ["gw-b"]),  # by number, not by letter
        ("gateways", "version>=0.10", ["gw-a"]),
        ("gateways", "version:0.*", ["gw-a", "gw-b"]),
        ("gateways", "online:yes", ["gw-a"]),
        ("gateways", "online:no,unknown", ["gw-b", "gw-c"]),
        ("gateways", "-online:yes", ["gw-b", "gw-c"]),
        ("gateways", "id:gw-a,gw-b", ["gw-a", "gw-b"]),
        ("gateways", "id:gw-* 丙", ["gw-c"]),
        ("gateways", '"GW-A"', ["gw-a"]),
        ("gateways", "shard:5", ["gw-a"]),
        ("gateways", "shard>=64", []),
        ("gateways", "district:baohe,shushan", ["gw-a", "gw-b"]),
        ("gateways", "name:甲", ["gw-a"]),
        ("gateways", "100%", []),
        ("gateways", "gw_a", []),  # an underscore is an underscore
        ("devices", "type:env/*", ["m-1", "m-2"]),
        ("devices", "district:baohe", ["m-1", "m-2"]),  # its own, else its gateway's
        ("devices", "gateway:gw-b -type:env/*", ["m-3"]),
        ("devices", "version<0.10 tag:x", []),
        ("devices", "tag:x", ["m-1"]),
        ("devices", "online:yes", ["m-1"]),
        ("devices", "online:unknown", ["m-2"]),  # it said so, but its gateway is away
        ("devices", "online:no", ["m-3"]),
    ):
        assert listing.ids(conn, kind, question) == wanted, question  # type: ignore[arg-type]
        assert listing.count(conn, kind, question) == len(wanted)  # type: ignore[arg-type]
    with conn.transaction():
        assert [row["online"] for row in listing.given_out(conn, "devices", "")] == [True, None, False]


def test_tags_and_groups(conn: Conn) -> None:
    gateways(conn, TABLE)
    assert listing.tag(conn, "gateways", "district:baohe,shushan", ["south"], ["winter"], "王敏") == 2
    assert listing.ids(conn, "gateways", "tag:south") == ["gw-a", "gw-b"]
    assert listing.ids(conn, "gateways", "tag:winter") == ["gw-c"]
    for wrong in (["a b"], [""], ["x" * 41]):
        with pytest.raises(QueryError):
            listing.tag(conn, "gateways", "tag:south", wrong, [], "王敏")
    with pytest.raises(QueryError):
        listing.tag(conn, "gateways", "  ", ["all"], [], "王敏")
    listing.save_group(conn, "south", "gateways", "tag:south", "王敏")
    assert listing.group_ids(conn, "south") == ["gw-a", "gw-b"]
    listing.tag(conn, "gateways", "id:gw-c", ["south"], [], "王敏")
    assert [(group.name, group.members) for group in listing.groups(conn)] == [("south", 3)]
    for name, kind, query in (("a b", "gateways", ""), ("x", "streets", ""), ("x", "gateways", "colour:red")):
        with pytest.raises(QueryError):
            listing.save_group(conn, name, kind, query, "王敏")
    assert listing.drop_group(conn, "south", "王敏") and not listing.drop_group(conn, "south", "王敏")
    with pytest.raises(ContractError):
        listing.group_ids(conn, "south")


def test_a_thousand_gateways_with_their_codes_within_a_minute(
    dsn: str, conn: Conn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "core.toml"
    config.write_text(
        f'dsn = "{dsn}"\nstate_dir = "{tmp_path / "state"}"\n[identity]\nbroker_url = "mqtts://broker.example:8883"\n'
        'public_url = "https://core.example"\n',
        encoding="utf-8",
    )
    table = tmp_path / "gateways.csv"
    table.write_text(
        "网关编号,中文名,标签\n" + "".join(f"gw-{n:04},第{n}号网关,批次一\n" for n in range(1000)), encoding="gbk"
    )
    codes = tmp_path / "claims.csv"
    codes.touch(mode=0o644)
    begun = time.monotonic()
    assert main(["cloud", "import", str(table), "--config", str(config), "--claims", str(codes)]) == 0
    assert time.monotonic() - begun < 60
    assert "1000" in capsys.readouterr().out
    assert stat.S_IMODE(codes.stat().st_mode) == 0o600
    with codes.open(encoding="utf-8-sig", newline="") as file:
        made = list(csv.DictReader(file))
    assert len({row["code"] for row in made}) == 1000 and made[0]["gateway_id"] == "gw-0000"
    assert made[0]["label"].startswith("https://core.example") or "core.example" in made[0]["label"]
    per_shard = conn.execute("select shard, count(*) from gateway group by shard").fetchall()
    assert len(per_shard) == 64 and {count for _, count in per_shard} == {15, 16}
    assert main(["cloud", "import", str(table), "--config", str(config), "--claims", str(codes)]) == 0  # again
    assert "same 1000" in capsys.readouterr().out
    assert conn.execute("select count(*) from gateway_claim").fetchone() == (1000,)  # nobody's code was made void


def test_commands(dsn: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text(TABLE, encoding="utf-8")
    by = ["--dsn", dsn]
    assert main(["cloud", "import", str(table), *by, "--dry-run"]) == 0
    assert "试运行" in capfd.readouterr().out
    assert main(["cloud", "import", str(table), *by]) == 0
    table.write_text("gateway_id\nGW\n", encoding="utf-8")
    assert main(["cloud", "import", str(table), *by]) == 1
    assert "第 2 行" in capfd.readouterr().err
    table.write_text("colour\nred\n", encoding="utf-8")
    assert main(["cloud", "import", str(table), *by]) == 1
    assert "未知的列" in capfd.readouterr().err
    assert main(["cloud", "export", "gateways", "tag:winter", *by]) == 0
    out = capfd.readouterr().out
    assert out.startswith("\ufeff网关编号") and "gw-c" in out and "gw-b" not in out
    assert main(["cloud", "export", "gateways", *by, "--json"]) == 0
    assert [json.loads(line)["gateway_id"] for line in capfd.readouterr().out.splitlines()] == ["gw-a", "gw-b", "gw-c"]
    assert main(["cloud", "export", "gateways", "colour:red", *by]) == 2
    assert main(["cloud", "tag", "gateways", "id:gw-b", "--add", "new", *by]) == 0
    assert main(["cloud", "group", "fresh", "tag:new", *by]) == 0
    capfd.readouterr()
    assert main(["cloud", "group", "fresh", *by]) == 0
    assert capfd.readouterr().out == "gw-b\n"
    assert main(["cloud", "group", *by]) == 0
    assert "tag:new" in capfd.readouterr().out
    assert main(["cloud", "group", "none", *by]) == 2
    assert main(["cloud", "import", str(tmp_path / "none.csv"), *by]) == 2
    assert main(["cloud", "import", str(table), *by, "--claims", "x.csv"]) == 2  # needs the core's identity
