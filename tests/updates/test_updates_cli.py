"""The commands a release manager, an operator and an installer type, one after another."""

from __future__ import annotations

import zipfile
from pathlib import Path

import psycopg
import pytest

from citybrain_cli.main import main
from cloud.registry.enrol import enrol_gateway


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main([str(one) for one in arguments]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_from_wheels_to_a_rollout(tmp_path: Path, dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = tmp_path / "app-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("app.py", "print('here')")
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    where = ("--repo", tmp_path / "repo", "--keys", tmp_path / "keys", "--passphrase-file", secret)
    bundle = tmp_path / "agent.tar.zst"
    release = ("cloud", "release")
    assert "离线" in said(capsys, *release, "init", *where)
    assert "is a repository already" in said(capsys, *release, "init", *where, code=2)
    made = said(capsys, *release, "pack-agent", "1.0", wheel, "--out", bundle, "--python", "", "--entry", "-m app")
    assert "1 files" in made
    assert "content" in said(capsys, *release, "add", *where, "agent", "citybrain", "1.0", bundle)
    assert "released already" in said(capsys, *release, "add", *where, "agent", "citybrain", "1.0", bundle, code=2)
    assert "is agent citybrain 1.0" in said(capsys, *release, "add", *where, "agent", "x", "1.0", bundle, code=2)
    bad = tmp_path / "env"
    (bad / "env").mkdir(parents=True)
    (bad / "env" / "x.toml").write_text("nonsense")
    assert "env/x" in said(capsys, *release, "add", *where, "templates", "x", "1", bad, code=1)
    assert "citybrain" in said(capsys, *release, "list", "--repo", tmp_path / "repo")
    for role in ("agent", "root", "online"):
        assert "new key" in said(capsys, *release, "rotate", *where, role)
    assert "another year" in said(capsys, *release, "renew", *where)
    assert "not yet time" in said(capsys, *release, "refresh", *where)
    said(capsys, *release, "root", "--repo", tmp_path / "repo", "--out", tmp_path / "root.json")
    assert b'"_type":"root"' in (tmp_path / "root.json").read_bytes()
    secret.write_text("wrong")
    assert "does not open" in said(capsys, *release, "rotate", *where, "agent", code=2)

    assert "slot a" in said(capsys, "edge", "slots", "init", tmp_path / "slots", bundle)
    assert "文件校验一致" in said(capsys, "edge", "slots", "show", tmp_path / "slots", "--verify")
    (tmp_path / "slots" / "a" / "site" / "app.py").write_text("changed")
    assert "another hash" in said(capsys, "edge", "slots", "show", tmp_path / "slots", "--verify", code=1)

    with psycopg.connect(dsn, autocommit=True) as conn:
        enrol_gateway(conn, "gw-1", 3, zh="一", en="one", lon=117.2, lat=31.8)
    rollout = ("cloud", "rollout")
    repo = ("--repo", tmp_path / "repo")
    unknown = said(capsys, *rollout, "create", dsn, "x", "--agent", "citybrain=9", "--all", *repo, code=1)
    assert "not released" in unknown
    create = (*rollout, "create", dsn, "first", "--agent", "citybrain=1.0", "--all", "--window", "02:00-05:00", *repo)
    assert "rollout 1: 1 gateways" in said(capsys, *create)
    assert "first" in said(capsys, *rollout, "list", dsn)
    assert "paused 已暂停  later" in said(capsys, *rollout, "pause", dsn, 1, "--reason", "later")
    assert "running" in said(capsys, *rollout, "resume", dsn, 1)
    assert "gw-1" in said(capsys, *rollout, "show", dsn, 1)
    assert "cancelled" in said(capsys, *rollout, "abort", dsn, 1)
    assert "is aborted" in said(capsys, *rollout, "pause", dsn, 1, code=1)
    assert "1 files" in said(capsys, *release, "withdraw", *_keys(where, secret), "agent", "citybrain", "1.0")


def _keys(where: tuple[object, ...], secret: Path) -> tuple[object, ...]:
    secret.write_text("correct horse")
    return where
