"""A repository on the disk, a web server that can be told to misbehave, and bundles of a small stand-in agent."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cloud.updates import bundles
from cloud.updates.keys import Keys
from cloud.updates.repository import Release, Repository
from edge.updates.config import UpdatesConfig
from edge.updates.fetch import Http
from edge.updates.trust import Trust

#: An agent of a few lines: says how it is, as often as it is asked to, and does as its ``mood`` says.
AGENT = """
import json, os, signal, sys, time
from pathlib import Path
from agent_data import MOOD, VERSION
root = Path(os.environ["CITYBRAIN_SLOTS"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with (root / "starts").open("a") as log:
    log.write(f"{VERSION} {os.environ['CITYBRAIN_SLOT']} {bool(os.environ['CITYBRAIN_TRIAL'])} {os.getpid()}\\n")
if MOOD == "dies":
    sys.exit(3)
while True:
    if os.environ["CITYBRAIN_TRIAL"] and MOOD != "mute":
        word = {"run": os.environ["CITYBRAIN_TRIAL"], "healthy": MOOD == "well", "detail": MOOD}
        part = root / "health.part"
        part.write_text(json.dumps(word))
        part.replace(root / "health.json")
    time.sleep(0.02)
"""


def agent(version: str, mood: str = "well", more: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    data = f"VERSION = {version!r}\nMOOD = {mood!r}\n"
    return {"site/stand_in.py": AGENT.encode(), "site/agent_data.py": data.encode(), **(more or {})}


class Shop:
    """A repository and its keys; ``now`` moves when a test says so."""

    def __init__(self, folder: Path, like: Path | None = None) -> None:
        """``like``: the folder of another one, whose keys and releases it begins with."""
        self.now = datetime.now(UTC)
        self.repository = Repository(folder / "repo")
        self.keys = Keys(folder / "keys", b"correct horse")
        if like is not None:
            shutil.copytree(like, folder)
        else:
            self.repository.create(self.keys, self.now)

    @property
    def root(self) -> bytes:
        return self.repository.trusted_root()

    def agent(self, version: str, mood: str = "well", more: Mapping[str, bytes] | None = None) -> Release:
        tree = agent(version, mood, more)
        manifest = bundles.manifest_of("agent", "citybrain", version, tree, entry=["-m", "stand_in"])
        self.now += timedelta(seconds=1)
        return self.repository.add(self.keys, manifest, tree, self.now)

    def content(self, kind: bundles.Kind, name: str, version: str, tree: Mapping[str, bytes]) -> Release:
        self.now += timedelta(seconds=1)
        return self.repository.add(self.keys, bundles.manifest_of(kind, name, version, tree), tree, self.now)


class Web:
    """Gives out a folder, with byte ranges. ``temper(path, data)`` may change what is sent; ``stop_after`` cuts each
    answer after so many bytes; ``endless`` sends zeros for ever behind the file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temper: Callable[[str, bytes], bytes] = lambda _path, data: data
        self.stop_after: int | None = None
        self.endless = False
        self.ranges = True
        self.pace_s = 0.0
        self.asked: list[tuple[str, str]] = []  # path, range
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/updates/"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.removeprefix("/updates/")
                web.asked.append((path, self.headers.get("Range", "")))
                file = web.folder / path
                if ".." in path or not file.is_file():
                    self.send_error(404)
                    return
                data = web.temper(path, file.read_bytes())
                start = 0
                if web.ranges and (wanted := self.headers.get("Range")):
                    start = int(wanted.removeprefix("bytes=").rstrip("-"))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                else:
                    self.send_response(200)
                if not web.endless:
                    self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                body = data[start:]
                if web.stop_after is not None:
                    body = body[: web.stop_after]
                try:
                    for at in range(0, len(body), 16 << 10):
                        self.wfile.write(body[at : at + (16 << 10)])
                        time.sleep(web.pace_s)
                    while web.endless:
                        self.wfile.write(b"\0" * 65536)
                except OSError:
                    pass  # the other side has seen enough
                self.close_connection = True

        return Handler


def config(url: str, **more: int) -> UpdatesConfig:
    return UpdatesConfig(url, "root.json", timeout_s=5.0, keep_free_mb=0, **more)


def trust(web: Web, folder: Path, root: bytes) -> Trust:
    return Trust(folder / "trust", web.url, root, Http(config(web.url), folder))
