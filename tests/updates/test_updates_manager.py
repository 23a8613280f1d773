"""The document's handler against a real repository and real slots; the launcher is played by its own decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from cloud.updates import bundles
from edge.clock import WallClock
from edge.updates import overlay
from edge.updates.health import judge
from edge.updates.install import init
from edge.updates.manager import Updates
from protocols import devices
from protocols.core.errors import ContractError
from tests.updates.repo import Shop, Web, config
from tests.updates.test_updates_slots import launcher

NOISE = (resources.files("protocols.devices") / "env" / "noise_meter.toml").read_text("utf-8")
Told = list[tuple[str, str, Mapping[str, Any] | None]]


class Fixed(WallClock):
    """Noon in Shanghai on a Monday."""

    def now_ms(self) -> int:
        return 1_772_424_000_000


class Gateway:
    """Slots with agent 1.0; ``restarted`` counts how often the handler wanted this agent to stop."""

    def __init__(self, folder: Path, shop: Shop, web: Web) -> None:
        self.folder, self.web = folder, web
        (folder / "root.json").write_bytes(shop.root)
        first = next((shop.repository.targets / "agent/citybrain/1.0").iterdir())
        init(folder / "slots", first)
        self.newest = 0
        self.restarted = 0
        self.limits: dict[str, int] = {}
        self.health: tuple[dict[str, float], dict[str, str]] = ({"link_up": 1.0}, {"connector_old": "dead since May"})

    @property
    def root(self) -> Path:
        return self.folder / "slots"

    def updates(self) -> Updates:
        return Updates(
            config(self.web.url, **self.limits), self.folder, self.root, Fixed(), health=lambda: self.health,
            superseded=lambda version: self.newest > version, restart=self.restart, again_first_s=0.1,
        )  # fmt: skip

    def restart(self) -> None:
        self.restarted += 1
        raise asyncio.CancelledError  # as the stop of the agent does

    def handle(self, document: Mapping[str, Any], version: int, *, until: str = "") -> Told:
        """What the handler tells, until it ends, stops the agent, or tells ``until``."""
        told: Told = []
        updates = self.updates()

        async def run() -> None:
            seen = asyncio.Event()

            def tell(state: str, detail: str = "", document: Mapping[str, Any] | None = None) -> None:
                told.append((state, detail, document))
                if until and until in detail:
                    seen.set()

            work = asyncio.create_task(updates.handle(document, version, tell))
            watch = asyncio.create_task(seen.wait())
            async with asyncio.timeout(60):
                await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            work.cancel()
            try:
                await work
            except asyncio.CancelledError:
                return

        self.newest = max(self.newest, version)
        asyncio.run(run())
        self.last = updates
        return told

    def bring(self, document: Mapping[str, Any], version: int, *, healthy: bool = True) -> tuple[str, str]:
        """The whole way: stage, stop, trial, and what the next agent tells."""
        self.handle(document, version)
        launcher(self.root, healthy=healthy)
        state, detail, _ = self.handle(document, version)[-1]
        return state, detail


@pytest.fixture
def gateway(tmp_path: Path, shop: Shop, web: Web) -> Gateway:
    (tmp_path / "gw").mkdir()
    return Gateway(tmp_path / "gw", shop, web)


def wanted(version: str) -> dict[str, Any]:
    return {"agent": {"name": "citybrain", "version": version}}


def test_an_agent_by_difference(gateway: Gateway, shop: Shop) -> None:
    ballast = {"site/big.py": b"".join(b"%d: one of many lines\n" % n for n in range(20_000))}
    shop.agent("1.1", more=ballast)
    shop.agent("1.2", more={"site/big.py": ballast["site/big.py"] + b"the end\n"})
    assert gateway.bring(wanted("1.1"), 1) == ("applied", "as told")
    assert gateway.restarted == 1
    assert gateway.handle(wanted("1.1"), 1)[-1][0] == "applied"  # asked again: told again, nothing done
    told = gateway.handle(wanted("1.2"), 2)
    assert [t[1] for t in told] == ["fetching", "1.2 is started on trial"]
    assert gateway.last.counters["update_deltas"] == 1 and gateway.last.counters["update_wholes"] == 0
    whole = next(r for r in shop.repository.releases() if r.version == "1.2").packed_bytes
    assert gateway.last.counters["update_bytes"] < whole / 5
    launcher(gateway.root, healthy=False)
    state, detail, document = gateway.handle(wanted("1.2"), 2)[-1]
    assert (state, detail) == ("rolled_back", "as told")
    assert document is not None and document["agent"]["version"] == "1.1"
    assert gateway.handle(wanted("1.2"), 2)[-1][0] == "rolled_back"  # not tried again by itself
    assert gateway.bring(wanted("1.2"), 3) == ("applied", "as told")  # but when asked anew
    record = gateway.updates().slots.record()
    assert record["previous"]["version"] == "1.1"


def test_device_types_come_into_force_and_go_again(
    gateway: Gateway, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = NOISE.replace("env/noise_meter", "env/noise_meter_new")
    shop.content("templates", "noise", "1", {"env/noise_meter_new.toml": new.encode()})
    shop.content("templates", "other", "1", {"env/other.toml": NOISE.replace("env/noise_meter", "env/other").encode()})
    both = {"templates": [{"name": "noise", "version": "1"}, {"name": "other", "version": "1"}]}
    assert gateway.bring(both, 1) == ("applied", "as told")
    slots = gateway.updates().slots
    content = slots.content(slots.record()["good"])
    assert content is not None
    monkeypatch.setattr(devices, "_more", [])
    overlay.install(content)
    try:
        assert devices.load("env/noise_meter_new").id == "env/noise_meter_new"
        assert "env/other" in {one.id for one in devices.all_types()}
        assert devices.load("env/noise_meter").id == "env/noise_meter"  # the built-in ones are still there
    finally:
        monkeypatch.undo()
        devices.load.cache_clear()
    assert gateway.bring({"templates": [{"name": "other", "version": "1"}]}, 2)[0] == "applied"
    assert [i["name"] for i in gateway.updates().in_force()["templates"]] == ["other"]
    assert gateway.bring({}, 3)[0] == "applied"  # names nothing, changes nothing
    assert [i["name"] for i in gateway.updates().in_force()["templates"]] == ["other"]
    assert gateway.bring({"templates": []}, 4)[0] == "applied"
    assert gateway.updates().in_force()["templates"] == []
    assert len(list((gateway.root / "content").iterdir())) <= 2  # the one in force and the one before


@pytest.mark.parametrize(
    ("kind", "tree", "why"),
    [
        ("templates", {"env/broken.toml": b"[device]\nid = 1"}, "env/broken"),
        ("templates", {"env/x.py": b"import os"}, "env/x.py"),
        ("packs", {"urban_mgmt/x/ops.py": b"import os"}, "not allowed"),
        ("packs", {"urban_mgmt/x/pack.toml": b"id = 7"}, "pack.toml"),
        ("models", {"evil.sh": b"rm"}, "not allowed"),
        ("models", {"facenet.toml": b'id = "facenet"'}, "facenet"),
    ],
)
def test_content_that_cannot_come_into_force_is_refused(
    gateway: Gateway, shop: Shop, kind: bundles.Kind, tree: dict[str, bytes], why: str
) -> None:
    shop.content(kind, "x", "1", tree)
    state, detail, document = gateway.handle({kind: [{"name": "x", "version": "1"}]}, 1)[-1]
    assert state == "failed" and why in detail
    assert document is not None and document["state"] in ("steady", "staging")
    assert gateway.restarted == 0
    assert gateway.updates().slots.record()["state"] == "steady"


def test_what_nobody_signed_is_refused(gateway: Gateway) -> None:
    state, detail, _ = gateway.handle(wanted("9.9"), 1)[-1]
    assert state == "failed" and "not in the repository" in detail


def test_an_agent_for_another_machine_is_refused(gateway: Gateway, shop: Shop) -> None:
    tree = {"site/x.py": b""}
    manifest = bundles.manifest_of("agent", "citybrain", "3.0", tree, python="2.7", entry=["-m", "x"])
    shop.repository.add(shop.keys, manifest, tree, shop.now)
    state, detail, _ = gateway.handle(wanted("3.0"), 1)[-1]
    assert state == "failed" and "made for Python 2.7" in detail


def test_it_waits_for_its_window_and_lets_a_newer_wish_pass(gateway: Gateway, shop: Shop) -> None:
    shop.agent("1.1")
    night = {**wanted("1.1"), "window": {"start": "02:00", "end": "05:00"}}
    told = gateway.handle(night, 1, until="waits for its window")
    assert told[-1][:2] == ("applying", "ready; waits for its window 02:00 to 05:00")
    assert gateway.updates().slots.record()["state"] == "ready" and gateway.restarted == 0
    gateway.newest = 2  # another wish has come meanwhile
    gateway.handle(night, 1)
    assert gateway.updates().slots.record()["state"] == "steady"
    noon = {**wanted("1.1"), "window": {"start": "11:00", "end": "13:00"}}
    asked = len(gateway.web.asked)
    assert gateway.bring(noon, 3)[0] == "applied"
    assert asked < len(gateway.web.asked)


def test_what_was_staged_is_used_after_a_restart(gateway: Gateway, shop: Shop) -> None:
    shop.agent("1.1")
    night = {**wanted("1.1"), "window": {"start": "02:00", "end": "05:00"}}
    gateway.handle(night, 1, until="waits for its window")
    asked = len(gateway.web.asked)
    gateway.handle(night, 1, until="waits for its window")
    assert len(gateway.web.asked) == asked  # nothing is fetched again
    file = gateway.root / "b" / "site" / "stand_in.py"
    file.write_bytes(file.read_bytes()[:10])  # the power cut was not kind
    gateway.handle(night, 1, until="waits for its window")
    assert len(gateway.web.asked) > asked
    assert file.stat().st_size > 10


def test_a_server_that_is_away_is_waited_for(gateway: Gateway, shop: Shop) -> None:
    shop.agent("1.1")
    folder, gateway.web.folder = gateway.web.folder, gateway.folder / "nothing"
    told = gateway.handle(wanted("1.1"), 1, until="waits: ")
    assert told[-1][0] == "applying"
    gateway.web.folder = folder
    assert gateway.bring(wanted("1.1"), 1)[0] == "applied"


def test_a_budget_of_disk_is_kept(gateway: Gateway, shop: Shop) -> None:
    shop.agent("1.1", more={"site/big.bin": bytes(64 << 20)})
    gateway.limits = {"max_disk_mb": 16}
    told = gateway.handle(wanted("1.1"), 1, until="above 16 MB")
    assert told[-1][0] == "applying" and told[-1][1].startswith("waits: 64 MB more")
    assert list((gateway.root / "downloads").glob("*")) == []


def test_a_document_that_is_none_is_refused(gateway: Gateway) -> None:
    with pytest.raises(ContractError):
        asyncio.run(gateway.updates().handle({"agent": 7}, 1, lambda *_: None))


@pytest.mark.parametrize(
    ("values", "texts", "wrong"),
    [
        ({"link_up": 1.0}, {}, ""),
        ({"link_up": 0.0}, {"link": "refused"}, "no way to the core: refused"),
        ({}, {}, "no way to the core: not connected yet"),
        ({"link_up": 1.0}, {"connector_old": "dead"}, ""),
        ({"link_up": 1.0}, {"connector_new": "no answer"}, "connector_new: no answer"),
        ({"link_up": 1.0, "outbox_data_batches": 9.0, "outbox_oldest_s": 300.0}, {}, "the outbox does not drain"),
        ({"link_up": 1.0, "outbox_data_batches": 4.0, "outbox_oldest_s": 300.0}, {}, ""),
        ({"link_up": 1.0, "outbox_data_batches": 9.0, "outbox_oldest_s": 3.0}, {}, ""),
    ],
)
def test_what_healthy_means(values: dict[str, float], texts: dict[str, str], wrong: str) -> None:
    said = judge(values, texts, ["connector_old"], 5.0)
    assert said.startswith(wrong) if wrong else not said
