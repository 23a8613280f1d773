"""The configuration document: tried, proven, kept; or taken back by the gateway itself, at whatever moment it dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge.config import EdgeConfig, load
from edge.remote_config import SECTIONS, RemoteConfig, document_schema
from protocols.core.errors import ConfigError
from tests.edge.gateway import CONFIG
from tests.support.spin import spin

PLACE: dict[str, Any] = {"place": [{"device": "gas-1", "lon": 117.5, "lat": 31.5}]}


def local(folder: Path) -> EdgeConfig:
    file = folder / "gateway.toml"
    file.write_text(CONFIG, encoding="utf-8")
    return load(file)


class Life:
    """One life of the agent's parts: what they run with, and what was told."""

    def __init__(self, remote: RemoteConfig) -> None:
        self.config = remote.begin()
        self.told: list[tuple[str, str]] = []
        self.in_force: list[Mapping[str, Any] | None] = []
        self._remote = remote

    def tell(self, state: str, detail: str = "", document: Mapping[str, Any] | None = None) -> None:
        self.told.append((state, detail))
        self.in_force.append(document)

    async def apply(self, document: Mapping[str, Any], version: int, *, spins: int = 0) -> bool:
        """Whether the handler came to an end, or waits to be taken down (or for time to pass)."""
        task = asyncio.ensure_future(self._remote.handler(document, version, self.tell))
        if spins:
            for _ in range(spins):
                await asyncio.sleep(0)
        else:
            await spin(lambda: task.done() or self._remote.reload.is_set())
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.wait([task])
        return False


def test_a_document_is_tried_then_proven_then_kept(tmp_path: Path) -> None:
    async def body() -> None:
        remote = RemoteConfig(local(tmp_path), tmp_path / "state")
        first = Life(remote)
        assert first.config.place[0].lon == 117.31
        assert not await first.apply(PLACE, 3) and remote.reload.is_set()
        assert first.told == [("applying", "")]

        second = Life(remote)
        assert second.config.place[0].lon == 117.5 and remote.on_trial
        remote.healthy = lambda: True
        assert await asyncio.wait_for(remote.handler(PLACE, 3, second.tell), 30) is None
        assert second.told == [("applied", "")] and second.in_force == [PLACE] and not remote.on_trial

        # After a restart of the process it is in force, and being asked again changes nothing.
        again = RemoteConfig(local(tmp_path), tmp_path / "state")
        third = Life(again)
        assert third.config.place[0].lon == 117.5 and again.version == 3
        assert await third.apply(PLACE, 4)  # the same text under a new number
        assert third.told == [("applied", "")] and not again.reload.is_set()
        # An empty document goes back to the installer's file.
        assert not await third.apply({}, 5)
        assert Life(again).config.place[0].lon == 117.31

    asyncio.run(body())


def test_a_document_with_which_the_core_is_not_reached_is_taken_back(tmp_path: Path) -> None:
    async def body() -> None:
        remote = RemoteConfig(local(tmp_path), tmp_path / "state", trial_s=0.3)
        await Life(remote).apply(PLACE, 1)
        trial = Life(remote)
        task = asyncio.ensure_future(remote.handler(PLACE, 1, trial.tell))
        await asyncio.wait_for(remote.reload.wait(), 20)
        task.cancel()
        after = Life(remote)
        assert after.config.place[0].lon == 117.31 and trial.told == []
        assert await after.apply(PLACE, 1)
        assert after.told == [("rolled_back", "no answer of the core within 0 s")]

    asyncio.run(body())


def test_a_document_that_kills_the_agent_twice_is_not_tried_a_third_time(tmp_path: Path) -> None:
    async def body() -> None:
        await Life(RemoteConfig(local(tmp_path), tmp_path / "state")).apply(PLACE, 1)
        for _ in range(2):  # dies each time before it has proven anything
            assert Life(RemoteConfig(local(tmp_path), tmp_path / "state")).config.place[0].lon == 117.5
        remote = RemoteConfig(local(tmp_path), tmp_path / "state")
        last = Life(remote)
        assert last.config.place[0].lon == 117.31
        assert await last.apply(PLACE, 1)
        assert last.told == [("rolled_back", "the agent stopped twice while it was tried")]

    asyncio.run(body())


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"mqtt": {"url": "mqtt://elsewhere"}}, "/mqtt"),
        ({"gateway": {"id": "other"}}, "/gateway"),
        ({"place": [{"device": "gas-1", "lon": 200, "lat": 31}]}, "lon"),
        ({"place": [{"device": "nobody", "lon": 117, "lat": 31}]}, "no device"),
        ({"connector": [{"kind": "telepathy", "id": "x"}]}, "telepathy"),
        ({"connector": "none"}, "array"),
    ],
)
def test_a_wrong_document_changes_nothing(tmp_path: Path, document: dict[str, Any], why: str) -> None:
    async def body() -> None:
        remote = RemoteConfig(local(tmp_path), tmp_path / "state")
        with pytest.raises(ConfigError, match=why):
            await Life(remote).apply(document, 1)
        assert not remote.reload.is_set() and not list((tmp_path / "state").iterdir())

    asyncio.run(body())


@pytest.mark.parametrize("torn", [b"", b"{", b'{"version": 1, "docu'])
def test_torn_files_do_not_stop_the_street(tmp_path: Path, torn: bytes) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    for name in ("good", "trial", "rejected"):
        (folder / f"config.{name}.json").write_bytes(torn)
    assert RemoteConfig(local(tmp_path), folder).begin().place[0].lon == 117.31


def test_a_document_that_no_longer_fits_the_installers_file_gives_way(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    kept = {"version": 1, "document": {"place": [{"device": "gone", "lon": 117.5, "lat": 31.5}]}}
    (folder / "config.good.json").write_text(json.dumps(kept))
    remote = RemoteConfig(local(tmp_path), folder)
    assert remote.begin().place[0].lon == 117.31 and remote.version == 0


def test_the_schema_names_what_a_document_may_hold() -> None:
    schema = document_schema()
    assert sorted(schema["properties"]) == sorted(SECTIONS) and schema["additionalProperties"] is False
    assert not {"gateway", "mqtt"} & schema["properties"].keys()
