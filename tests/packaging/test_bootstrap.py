"""`./citybrain` on a bare machine: a Python without pip and ensurepip (Debian without python3-venv), a half made
environment, a broken download, no Python at all. The package index is a real one, on this machine, with two packages.
"""

from __future__ import annotations

import ensurepip
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUNDLED = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))

#: As Debian's Python without python3-venv: `import ensurepip` fails, in the new environment too.
_NO_ENSUREPIP = """
import sys
class _Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ensurepip":
            raise ModuleNotFoundError("No module named 'ensurepip'", name="ensurepip")
sys.meta_path.insert(0, _Refuse())
"""


@dataclass
class Index:
    """A package index: files by project, what was asked for, and whether it states wrong checksums."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    wrong: bool = False
    url: str = ""

    def page(self, project: str) -> str | None:
        files = sorted((self.folder / project).glob("*.whl"))
        if not files:
            return None
        return "".join(f'<a href="../../files/{project}/{f.name}#sha256={self._sha256(f)}">{f.name}</a>' for f in files)

    def _sha256(self, file: Path) -> str:
        return "0" * 64 if self.wrong else hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    found = Index(tmp_path / "index")
    (found.folder / "pip").mkdir(parents=True)
    shutil.copy(BUNDLED[-1], found.folder / "pip")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            parts = self.path.strip("/").split("/")
            body: bytes | None = None
            if parts[0] == "simple" and len(parts) == 2:
                page = found.page(parts[1])
                body = page.encode() if page is not None else None
            elif parts[0] == "files":
                body = (found.folder / parts[1] / parts[2]).read_bytes()
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", "text/html" if parts[0] == "simple" else "application/octet-stream")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def _wheel(folder: Path, version: str) -> str:
    """A package of one module; returns its line for a lock."""
    folder.mkdir(exist_ok=True)
    file = folder / f"tiny_sample-{version}-py3-none-any.whl"
    info = f"tiny_sample-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("tiny_sample.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-sample\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tiny_sample.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return f"tiny-sample=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


class Machine:
    """A checkout with a lock of one package, and a Python that cannot make a pip."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.index = index
        self.root = folder / "checkout"
        self.venv = folder / "environment"
        (self.root / "locks").mkdir(parents=True)
        shutil.copy(ROOT / "citybrain", self.root)
        for part in ("citybrain_cli", "protocols"):
            (self.root / part).symlink_to(ROOT / part)
        self.lock("1.0")
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(_NO_ENSUREPIP)
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "CITYBRAIN_PYTHON": sys._base_executable,  # type: ignore[attr-defined]
            "CITYBRAIN_VENV": str(self.venv),
            "PYTHONPATH": str(folder / "site"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index.url,
        }

        (self.root / "locks" / "dev.txt").write_text("# what `citybrain test` installs: not asked for here\n")

    def lock(self, version: str) -> None:
        (self.root / "locks" / "up.txt").write_text(_wheel(self.index.folder / "tiny-sample", version))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.root / "citybrain"), *(arguments or ("--help",))]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def installed(self) -> str:
        command = [str(self.venv / "bin" / "python"), "-c", "import tiny_sample; print(tiny_sample.version)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def machine(tmp_path: Path, index: Index) -> Machine:
    if not BUNDLED:
        pytest.skip("this Python has no bundled pip to serve")
    return Machine(tmp_path, index)


def test_python_without_ensurepip_from_first_run_to_repair(machine: Machine) -> None:
    refused = subprocess.run(
        [machine.environment["CITYBRAIN_PYTHON"], "-c", "import ensurepip"], env=machine.environment, check=False,
        capture_output=True,
    )  # fmt: skip
    assert refused.returncode != 0, "the machine is not bare"
    first = machine.run()
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("usage: citybrain")
    assert machine.installed() == "1.0"
    assert "/simple/pip/" in machine.index.asked
    machine.index.asked.clear()
    again = machine.run()
    assert (again.returncode, again.stderr) == (0, "")
    assert machine.index.asked == [], "a ready environment asks nobody"

    # ... a changed lock is followed,
    machine.lock("1.1")
    assert machine.run().returncode == 0
    assert machine.installed() == "1.1"
    # ... and what was killed half way is completed
    (machine.venv / "citybrain.json").unlink()
    assert machine.run().returncode == 0
    assert machine.installed() == "1.1"
    assert list(json.loads((machine.venv / "citybrain.json").read_text())) == ["up"]


def test_a_download_that_is_not_what_it_should_be(machine: Machine) -> None:
    machine.index.wrong = True
    done = machine.run()
    assert done.returncode != 0
    assert "does not match its checksum" in done.stderr
    assert not (machine.venv / "citybrain.json").exists()


def test_a_package_that_is_not_what_was_locked(machine: Machine) -> None:
    (machine.root / "locks" / "up.txt").write_text("tiny-sample==1.0 --hash=sha256:" + "0" * 64 + "\n")
    assert machine.run().returncode != 0
    assert not (machine.venv / "citybrain.json").exists()


def test_no_index_within_reach_says_what_to_install(machine: Machine) -> None:
    machine.environment["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    done = machine.run()
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_python_at_all(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dirname").symlink_to(str(shutil.which("dirname")))
    machine.environment |= {"PATH": str(tmp_path / "bin"), "CITYBRAIN_PYTHON": ""}
    done = machine.run()
    assert done.returncode == 1
    assert "Python 3.11" in done.stderr


def test_script_is_posix_sh() -> None:
    shell = shutil.which("dash") or "/bin/sh"
    for script in (ROOT / "citybrain", *sorted((ROOT / "deploy").glob("*.sh")), ROOT / "locks" / "make.sh"):
        assert subprocess.run([shell, "-n", script], check=False).returncode == 0, script
        assert os.access(script, os.X_OK), script
