"""The configuration document of the twin: tried, proven, kept; or taken back by the gateway itself.

```
 document ─▶ check ─▶ config.trial.json ─▶ the agent's parts start anew with it ─▶ connected and acknowledged?
                │ wrong: refused                                                     │ yes: config.good.json, "applied"
                └─ nothing changes                          no, or it died twice: ◀──┘ taken back, "rolled_back"
```
In force is the installer's file with those tables replaced that the document holds. Who the gateway is and how it
reaches the core (``[gateway]``, ``[mqtt]``) cannot be changed from afar: a mistake there could not be mended from afar.
An empty document goes back to the installer's file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge.config import EdgeConfig, check
from edge.twin import Document, Tell
from protocols.core.errors import ConfigError

log = logging.getLogger("citybrain.edge.config")

#: Tables of the installer's file that a document may replace.
SECTIONS = ("connector", "camera", "scenario", "report", "place", "outbox", "northbound", "interlock")
_TRIES = 2
TRIAL_S = 120.0
_STEADY_S = 5.0


class _Kept(msgspec.Struct):
    version: int
    document: dict[str, Any]
    tries: int = 0
    detail: str = ""


def document_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration document."""
    whole = msgspec.json.schema(EdgeConfig)
    properties = whole["$defs"].pop("EdgeConfig")["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: properties[name] for name in SECTIONS},
        "additionalProperties": False,
        "$defs": whole["$defs"],
    }


class RemoteConfig:
    """``healthy``: whether the running agent reaches the core and is answered; set by whoever runs it."""

    def __init__(self, local: EdgeConfig, folder: Path, *, trial_s: float = TRIAL_S) -> None:
        self._local = local
        self._folder = folder
        self._trial_s = trial_s
        folder.mkdir(parents=True, exist_ok=True)
        self._good = self._read("good")
        self._trial = self._read("trial")
        self._rejected = self._read("rejected")
        self._running = 0  # version the parts now run with, 0: the installer's file
        self.healthy: Callable[[], bool] = lambda: False
        self.reload = asyncio.Event()

    @property
    def version(self) -> int:
        return self._running

    @property
    def on_trial(self) -> bool:
        return self._trial is not None

    def begin(self) -> EdgeConfig:
        """The configuration for the life that begins now. A document that died twice is not tried again."""
        self.reload.clear()
        if self._trial is not None and self._trial.tries >= _TRIES:
            self.reject("the agent stopped twice while it was tried")
        for name, kept in (("trial", self._trial), ("good", self._good)):
            if kept is None:
                continue
            if name == "trial":
                kept.tries += 1
                self._write("trial", kept)
            try:
                config = self._merged(kept.document)
            except ConfigError as error:
                if name == "trial":
                    self.reject(str(error))
                else:  # the installer's file has changed under it: the street must go on
                    log.error("configuration document %d no longer fits: %s", kept.version, error)
                continue
            self._running = kept.version
            return config
        self._running = 0
        return self._local

    def reject(self, detail: str) -> None:
        """What is on trial is not good."""
        if self._trial is not None:
            log.error("configuration document %d taken back: %s", self._trial.version, detail)
            self._trial.detail = detail
            self._rejected = self._trial
            self._write("rejected", self._trial)
            self._trial = None
            self._remove("trial")

    async def handler(self, document: Document, version: int, tell: Tell) -> None:
        """The twin's handler of ``config``. Raises ConfigError for a document that is wrong."""
        if self._rejected is not None and self._rejected.version == version:
            tell("rolled_back", self._rejected.detail, self._in_force())
            return
        if self._trial is not None and self._trial.version == version and self._running == version:
            await self._prove(tell)
            return
        self._merged(document)
        if self._good is not None and self._good.document == document and self._trial is None:
            self._keep(_Kept(version, dict(document)))
            tell("applied", "", document)
            return
        self._trial = _Kept(version, dict(document))
        self._write("trial", self._trial)
        tell("applying")
        self.reload.set()
        await asyncio.Event().wait()  # the parts, this task with them, are taken down now

    async def _prove(self, tell: Tell) -> None:
        trial = self._trial
        assert trial is not None  # noqa: S101 - the caller looked
        loop = asyncio.get_running_loop()
        until, steady_since = loop.time() + self._trial_s, None
        while loop.time() < until:
            if not self.healthy():
                steady_since = None
            elif steady_since is None:
                steady_since = loop.time()
            elif loop.time() - steady_since >= _STEADY_S:
                self._keep(trial)
                tell("applied", "", trial.document)
                return
            await asyncio.sleep(0.25)
        self.reject(f"no answer of the core within {self._trial_s:.0f} s")
        self.reload.set()
        await asyncio.Event().wait()

    def _keep(self, kept: _Kept) -> None:
        self._good = kept
        self._write("good", kept)
        self._trial = None
        self._remove("trial")

    def _in_force(self) -> Document:
        return self._good.document if self._good is not None else {}

    def _merged(self, document: Mapping[str, Any]) -> EdgeConfig:
        """Raises ConfigError."""
        if unknown := sorted(set(document) - set(SECTIONS)):
            raise ConfigError(f"/{unknown[0]}: a document may hold {', '.join(SECTIONS)}, nothing else")
        table = {**msgspec.to_builtins(self._local), **document}
        try:
            config = msgspec.convert(table, EdgeConfig)
        except msgspec.ValidationError as error:
            raise ConfigError(f"configuration document: {error}") from error
        check(config, "configuration document")
        return config

    # -- files: each change is one replacement ----------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self._folder / f"config.{name}.json"

    def _read(self, name: str) -> _Kept | None:
        try:
            return msgspec.json.decode(self._path(name).read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s cannot be read and is left aside: %s", self._path(name), error)
            return None

    def _write(self, name: str, kept: _Kept) -> None:
        path = self._path(name)
        beside = path.with_suffix(".new")
        try:
            with beside.open("wb") as file:
                file.write(json.dumps(msgspec.to_builtins(kept), ensure_ascii=False).encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            descriptor = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error

    def _remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)
