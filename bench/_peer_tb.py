"""thingsboard-gateway's storage, driven as ours is: put at a rate, killed, read back. In an environment of its own.

The bench makes that environment on demand (``environment()``), outside the repository; the package never comes near
ours. Its storage classes are used as released, with the settings they ship with but for the folder.

    python bench/_peer_tb.py put   {sqlite|file} FOLDER RATE [COUNT]   a line for each message, once put() said yes
    python bench/_peer_tb.py drain {sqlite|file} FOLDER                a line for each message that comes out
    python bench/_peer_tb.py hole  HOST PORT SECONDS                   publish to a broker that went silent, and wait
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

PACKAGE, VERSION = "thingsboard-gateway", "3.8.5"
#: A message of the size of our events (148 bytes as JSON with its number).
_FILL = "x" * 80


def environment() -> Path:
    """The peer's interpreter; made and filled at the first call. Raises RuntimeError with the last words of pip."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "citybrain-bench"
    folder = cache / f"{PACKAGE}-{VERSION}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        argv = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{PACKAGE}=={VERSION}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{PACKAGE} {VERSION} cannot be installed: {done.stderr.strip()[-300:]}")
        (folder / "ready").write_text("")
    return python


def command(*arguments: str) -> list[str]:
    """How to run this file with the peer's interpreter."""
    return [str(environment()), __file__, *arguments]


# -- below: in the peer's interpreter


class _Quiet:
    """Its logger has a level of its own (trace); we want none of it."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: None


def _storage(kind: str, folder: Path) -> tuple[Any, Any]:
    from threading import Event

    stop = Event()
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        from thingsboard_gateway.storage.sqlite.sqlite_event_storage import SQLiteEventStorage

        # As in its tb_gateway.json; the slash at the end is asked for by its own check.
        return SQLiteEventStorage({"type": "sqlite", "data_file_path": f"{folder}/"}, _Quiet(), stop), stop
    from thingsboard_gateway.storage.file.file_event_storage import FileEventStorage

    config = {  # as in the tb_gateway.json that it ships
        "type": "file",
        "data_folder_path": f"{folder}/",
        "max_file_count": 10,
        "max_records_per_file": 10_000,
        "max_records_between_fsync": 1,
        "max_read_records_count": 10,
    }
    return FileEventStorage(config, _Quiet(), stop), stop


def _put(kind: str, folder: Path, rate: float, count: int | None = None) -> None:
    """Until killed; with a ``count``, until so many are in and the store has been told to stop."""
    storage, stop = _storage(kind, folder)
    begun_s, number = time.monotonic(), 0
    out = sys.stdout.fileno()
    while count is None or number < count:
        due = min(int((time.monotonic() - begun_s) * rate), count or 1 << 62)
        while number < due:
            message = json.dumps({"deviceName": "meter-1", "n": number, "fill": _FILL})
            if storage.put(message):
                os.write(out, b"%d\n" % number)
            number += 1
        time.sleep(0.002)
    storage.stop()
    stop.set()
    os._exit(0)  # its threads do not end by themselves


def _drain(kind: str, folder: Path) -> None:
    storage, stop = _storage(kind, folder)
    until_s = time.monotonic() + 60
    idle_s = time.monotonic()
    while time.monotonic() < until_s and time.monotonic() - idle_s < 1.5:
        pack = storage.get_event_pack()
        for message in pack or ():
            text = message if isinstance(message, str) else json.dumps(message)
            print(json.loads(text)["n"])
        if pack:
            idle_s = time.monotonic()
            storage.event_pack_processing_done()
        else:
            time.sleep(0.05)
    sys.stdout.flush()
    stop.set()
    os._exit(0)  # its threads do not end by themselves


def _hole(host: str, port: int, watch_s: float) -> None:
    """Publish with its client after the broker has gone silent; tell what it calls a success, and when."""
    from tb_device_mqtt import TBDeviceMqttClient

    client = TBDeviceMqttClient(host, port=port, username="token")
    client.connect(timeout=10)
    until_s = time.monotonic() + 10
    while not client.is_connected() and time.monotonic() < until_s:
        time.sleep(0.02)
    print(json.dumps({"connected": client.is_connected()}), flush=True)
    sys.stdin.readline()  # the bench has made it silent
    begun_s = time.monotonic()
    handle = client.send_telemetry({"ts": int(time.time() * 1000), "values": {"n": 1}})
    code = handle.get()
    infos = handle.message_info if isinstance(handle.message_info, list) else [handle.message_info]
    said: dict[str, Any] = {
        "said_success": code == 0,
        "said_after_s": round(time.monotonic() - begun_s, 2),
        "broker_has_it": all(info.is_published() for info in infos),
        "noticed_s": None,
    }
    while client.is_connected() and time.monotonic() - begun_s < watch_s:
        time.sleep(0.05)
    if not client.is_connected():
        said["noticed_s"] = round(time.monotonic() - begun_s, 1)
    print(json.dumps(said), flush=True)
    os._exit(0)  # its threads do not end by themselves


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "put":
        _put(arguments[0], Path(arguments[1]), float(arguments[2]), *map(int, arguments[3:]))
    elif what == "drain":
        _drain(arguments[0], Path(arguments[1]))
    elif what == "hole":
        _hole(arguments[0], int(arguments[1]), float(arguments[2]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
