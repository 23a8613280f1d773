"""Makes the environment in ``.venv`` if it is missing or older than its lock file, then becomes the command line.

Standard library only; nothing of the project is imported here. It copes with a Debian Python that has no ``ensurepip``
(the pip wheel is fetched and used as it is) and with an environment that was left half made (a stamp is written last).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import venv
from pathlib import Path

_UV = "uv==0.13.9"


def main(argv: list[str]) -> None:
    root, arguments = Path(argv[0]), argv[1:]
    lock = "dev" if arguments[:1] in (["test"], ["bench"], ["fuzz"]) else "up"
    environment = Path(os.environ.get("CITYBRAIN_VENV", root / ".venv"))
    python = environment / "bin" / "python"
    started = time.monotonic()
    made = False
    if not _ready(root, environment, python, lock):
        try:
            _make(root, environment, python, lock)
        except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
            sys.exit(f"citybrain: the environment could not be made: {error}")
        made = True
    paths = [str(root), str(root / "firmware-sim"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
    os.environ["CITYBRAIN_SETUP_S"] = f"{time.monotonic() - started:.1f}" if made else "0"
    os.environ["CITYBRAIN_ROOT"] = str(root)
    os.execv(python, [str(python), "-m", "citybrain_cli.main", *arguments])  # noqa: S606


def _stamp(root: Path, lock: str) -> str:
    text = (root / "locks" / f"{lock}.txt").read_bytes()
    return hashlib.sha256(text).hexdigest()[:16]


def _ready(root: Path, environment: Path, python: Path, lock: str) -> bool:
    """Whether the environment holds what this lock asks for. The dev lock holds all of the other."""
    try:
        stamps = json.loads((environment / "citybrain.json").read_text())
    except (OSError, ValueError):
        return False
    if not python.exists():
        return False
    wanted = {lock: _stamp(root, lock)}
    return stamps == wanted or (lock == "up" and stamps == {"dev": _stamp(root, "dev")})


def _make(root: Path, environment: Path, python: Path, lock: str) -> None:
    print(f"citybrain: setting up {environment} (once) ... 正在准备运行环境（仅首次）", file=sys.stderr, flush=True)
    stamp = environment / "citybrain.json"
    stamp.unlink(missing_ok=True)
    if not python.exists() or not _runs(python):
        shutil.rmtree(environment, ignore_errors=True)
        venv.EnvBuilder(with_pip=False, symlinks=True).create(environment)
    pip = _pip(python)
    locked = ["-r", str(root / "locks" / f"{lock}.txt"), "--require-hashes"]
    uv = environment / "bin" / "uv"
    if not uv.exists():
        subprocess.run([*pip, "install", "-q", _UV], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    installed = False
    if uv.exists():  # about ten times faster than pip; pip remains where uv cannot reach the index
        command = [str(uv), "pip", "install", "-q", "--python", str(python), *locked]
        installed = subprocess.run(command, env=_uv_environment(pip), check=False, capture_output=True).returncode == 0
    if not installed:
        subprocess.run([*pip, "install", "-q", *locked], check=True)
    stamp.write_text(json.dumps({lock: _stamp(root, lock)}))


def _runs(python: Path) -> bool:
    return subprocess.run([str(python), "-c", ""], check=False, capture_output=True).returncode == 0


def _pip(python: Path) -> list[str]:
    """A pip for the environment: its own, made by ensurepip, or a fetched wheel run as it is."""
    if subprocess.run([str(python), "-m", "pip", "--version"], check=False, capture_output=True).returncode == 0:
        return [str(python), "-m", "pip"]
    if subprocess.run([str(python), "-m", "ensurepip", "-q"], check=False, capture_output=True).returncode == 0:
        return [str(python), "-m", "pip"]
    with tempfile.TemporaryDirectory(prefix="citybrain-") as folder:
        wheel = _fetch_pip(Path(folder))
        subprocess.run([str(python), f"{wheel}/pip", "install", "-q", "--no-index", str(wheel)], check=True)
    return [str(python), "-m", "pip"]


def _index() -> str:
    """The package index this machine uses: environment, then pip's files, then the public one."""
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if os.environ.get(name):
            return os.environ[name]
    files = [os.environ.get("PIP_CONFIG_FILE", ""), "~/.config/pip/pip.conf", "~/.pip/pip.conf", "/etc/pip.conf"]
    for name in files:
        try:
            text = Path(name).expanduser().read_text()
        except OSError:
            continue
        found = re.search(r"^\s*index-url\s*=\s*(\S+)", text, re.MULTILINE)
        if found:
            return found.group(1)
    return "https://pypi.org/simple"


def _fetch_pip(folder: Path) -> Path:
    page_url = f"{_index().rstrip('/')}/pip/"
    if not page_url.startswith("https://") and "://127.0.0.1" not in page_url:
        raise RuntimeError("this Python has no pip and the configured index is not https; install python3-venv")
    try:
        with urllib.request.urlopen(page_url, timeout=60) as response:  # noqa: S310 - https checked above
            page = response.read().decode()
        links = re.findall(
            r'href="((?:[^"#]*/)?pip-(\d+)\.(\d+)(?:\.(\d+))?-py3-none-any\.whl)#sha256=([0-9a-f]{64})', page
        )
        if not links:
            raise RuntimeError("the index offers no pip wheel")
        link, *_, sha256 = max(links, key=lambda hit: tuple(int(n or 0) for n in hit[1:4]))
        with urllib.request.urlopen(urllib.parse.urljoin(page_url, link), timeout=120) as response:  # noqa: S310
            data = response.read()
    except OSError as error:
        raise RuntimeError(
            f"this Python has no pip and it could not be fetched ({error}); install python3-venv (Debian: apt install"
            " python3-venv)"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RuntimeError("the fetched pip does not match its checksum")
    wheel = folder / str(link).rpartition("/")[2]
    wheel.write_bytes(data)
    return wheel


def _uv_environment(pip: list[str]) -> dict[str, str]:
    """uv does not read pip's configuration; hand it the same index."""
    environment = dict(os.environ)
    if not environment.get("UV_DEFAULT_INDEX") and not environment.get("UV_INDEX_URL"):
        index = _index()
        if "pypi.org" not in index:
            environment["UV_DEFAULT_INDEX"] = index
    return environment


if __name__ == "__main__":
    main(sys.argv[1:])
