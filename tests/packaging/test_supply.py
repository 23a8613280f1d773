"""The dependency gate and the bill of materials."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from citybrain_cli.main import main
from citybrain_cli.supply import licences, locked
from citybrain_cli.supply.check import below, check
from citybrain_cli.supply.sbom import make

TODAY = dt.date(2026, 1, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(locked.ROOT / "locks", tmp_path / "locks")
    return tmp_path


def test_the_locks_pass_and_the_gate_says_what_it_did_not_ask() -> None:
    result = check(TODAY)
    assert result.wrong == [] and result.packages > 100
    assert not result.asked and any("NOT ASKED" in line for line in result.said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("h11==0.14.0 --hash=sha256:" + "0" * 64, "CVE-2025-43859"),
        ("idna>=3 --hash=sha256:" + "0" * 64, "not pinned"),
        ("idna==3.10", "no SHA-256"),
        ("idna==3.10 --hash=md5:00", "no SHA-256"),
        ("idna==3.10 --hash=sha256:00", "no SHA-256"),
        ("git+https://example.org/x", "not pinned"),
    ],
)
def test_what_the_gate_stops(root: Path, line: str, said: str) -> None:
    with (root / "locks" / "edge.txt").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert any(said in wrong for wrong in check(TODAY, root).wrong)


def test_an_old_list_is_said_to_be_old() -> None:
    assert any("knows nothing after" in line for line in check(dt.date(2027, 1, 1)).said)
    assert not any("knows nothing after" in line for line in check(TODAY).said)


def test_a_service_that_cannot_be_asked_is_said_to_be_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: not one question leaves this machine
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    (root / "locks" / "dev.txt").write_text("idna==3.10 --hash=sha256:" + "0" * 64 + "\n", encoding="utf-8")
    result = check(TODAY, root, ask=True)
    assert not result.asked and any("COULD NOT BE ASKED" in line for line in result.said)


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("AGPL-3.0-or-later", False), ("MIT OR GPL-2.0-only", True),
        ("MIT AND GPL-2.0-only", False), ("(MIT OR GPL-2.0-only) AND Apache-2.0", True), ("", False),
        ("MIT OR", True),
        ("MIT AND", False), ("Apache-2.0 WITH LLVM-exception", True), ("LicenseRef-Proprietary", False),
        ("MIT )", False),
        ("SSPL-1.0", False), ("(MIT", False),
    ],
)  # fmt: skip
def test_licences(expression: str, good: bool) -> None:
    assert licences.allowed(expression) is good


@pytest.mark.parametrize(
    ("version", "limit", "is_below"),
    [("0.9", "0.10", True), ("0.10", "0.9", False), ("1.0", "1.0.0", False), ("1.0rc1", "1.0", True),
     ("2", "1.9.9", False), ("1.0.post1", "1.0", False)],
)  # fmt: skip
def test_versions_compare_by_their_numbers(version: str, limit: str, is_below: bool) -> None:
    assert below(version, limit) is is_below


@pytest.mark.parametrize("lock", ["edge", "cloud"])
def test_the_bill_of_materials_is_valid_complete_and_the_same_each_time(lock: str) -> None:
    text = make(lock, "1.2.3")
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, str(problem)[:400]
    bill = json.loads(text)
    packages = locked.read(lock)
    assert {(c["name"], c["version"]) for c in bill["components"]} == {(p.name, p.version) for p in packages}
    assert all(c["licenses"] for c in bill["components"] if c["name"] != "colorama")
    refs = {c["bom-ref"] for c in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    for node in bill["dependencies"]:
        assert node["ref"] in refs and set(node["dependsOn"]) <= refs
    reached, todo = set(), [bill["metadata"]["component"]["bom-ref"]]
    needs = {node["ref"]: node["dependsOn"] for node in bill["dependencies"]}
    while todo:
        here = todo.pop()
        if here not in reached:
            reached.add(here)
            todo += needs[here]
    assert reached == refs  # nothing hangs in the air
    assert make(lock, "1.2.3") == text and make(lock, "1.2.4") != text


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CITYBRAIN_ASK_ADVISORIES", raising=False)
    assert main(["deps"]) == 0
    assert "NOT asked" in capsys.readouterr().out
    assert main(["sbom", "edge", "--out", str(tmp_path / "bom.json")]) == 0
    assert json.loads((tmp_path / "bom.json").read_text(encoding="utf-8"))["bomFormat"] == "CycloneDX"
