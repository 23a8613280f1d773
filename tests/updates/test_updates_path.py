"""All of it at once: broker, worker, database, web process, and two gateways that are real agents under the launcher.

A good release goes to both in waves; a bad one (it starts, but never reaches the core) fails its trial on the first
gateway, is taken back there, and the rollout stops by itself before the second gateway hears of it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest

from cloud.app import create_app
from cloud.auth.service import ensure_first_operator
from cloud.config import Settings
from cloud.updates.config import UpdatesSettings
from edge.updates import record as boot
from edge.updates.install import init
from tests.cloud_api.conftest import serving
from tests.cloud_ingest.site import Core, enrol
from tests.fixtures.broker import Broker, StartBroker
from tests.fixtures.process import Server
from tests.fixtures.wait import until
from tests.updates.repo import Shop

REPOSITORY = Path(__file__).parents[2]
GATEWAYS = (("gw-up-1", 3), ("gw-up-2", 4))
START = f"""
import asyncio, sys
sys.path += [{str(REPOSITORY)!r}]
from agent_data import MOOD
if MOOD == "deaf":
    from edge.uplink.uplink import Uplink
    async def run(self):
        await asyncio.Event().wait()
    Uplink.run = run
from citybrain_cli.main import main
sys.exit(main(["edge", "run", *sys.argv[1:]]))
"""
BALLAST = b"".join(f"{number}: lines of a module that does not change\n".encode() for number in range(3000))


def agent(version: str, mood: str = "well") -> dict[str, bytes]:
    """The working tree as a release: what is started lies in the bundle, the packages beside it."""
    papers = f"Metadata-Version: 2.1\nName: citybrain\nVersion: {version}\n"
    return {
        "site/start.py": START.encode(),
        "site/agent_data.py": f"MOOD = {mood!r}\n".encode(),
        "site/ballast.py": BALLAST + version.encode(),
        f"site/citybrain-{version}.dist-info/METADATA": papers.encode(),
    }


def release(shop: Shop, version: str, mood: str = "well") -> None:
    from cloud.updates import bundles

    tree = agent(version, mood)
    manifest = bundles.manifest_of("agent", "citybrain", version, tree, entry=["-m", "start"])
    shop.repository.add(shop.keys, manifest, tree, datetime.now(UTC))


class Gateway:
    def __init__(self, folder: Path, broker: Broker, name: str, shard: int, url: str, shop: Shop, bundle: Path) -> None:
        folder.mkdir()
        self.name = name
        self.root = folder / "slots"
        (folder / "root.json").write_bytes(shop.root)
        config = folder / "agent.toml"
        config.write_text(
            f'[gateway]\nid = "{name}"\nshard = {shard}\nstatus_listen = ""\n'
            f'[mqtt]\nurl = "{broker.url}"\nusername = "{name}"\n'
            f"password_file = {json.dumps(str(broker.password_file(name)))}\nkeepalive_s = 2\nack_timeout_s = 2\n"
            f'[updates]\nurl = "{url}/updates/"\nroot_file = "root.json"\nkeep_free_mb = 0\n'
        )
        init(self.root, bundle)
        argv = [sys.executable, str(self.root / "launcher.pyz"), str(self.root), str(config)]
        self.process = Server(argv, folder / "log")

    def version(self) -> str:
        record = boot.read(self.root)
        assert record is not None
        return str(record["good"]["version"])


class Site:
    def __init__(self, url: str, dsn: str, shop: Shop, gateways: list[Gateway], token: str) -> None:
        self.url, self.dsn, self.shop, self.gateways = url, dsn, shop, gateways
        self.client = httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=20)

    def begin(self, version: str, within_s: float) -> int:
        body = {
            "title": f"agent {version}",
            "change": {
                "agent": {"name": "citybrain", "version": version},
                "health": {"within_s": within_s, "steady_s": 0.5},
            },
            "gateways": [g.name for g in self.gateways],
            "plan": {"waves": ["1", "100%"], "error_pct": 0, "success_pct": 100},
        }
        answer = self.client.post("/rollouts", json=body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["rollout_id"])

    def rollout(self, number: int) -> dict[str, object]:
        answer = self.client.get(f"/rollouts/{number}")
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    def ended(self, number: int, state: str) -> dict[str, object]:
        def there() -> dict[str, object] | None:
            found = self.rollout(number)
            row = found["rollout"]
            assert isinstance(row, dict)
            return found if row["state"] != "running" else None

        try:
            found = until(there, f"rollout {number} is {state}", timeout_s=150)
        except AssertionError as error:
            words = [g.process.words() for g in self.gateways]
            raise AssertionError(f"{error}: {self.rollout(number)}; {words}") from error
        assert found is not None
        row = found["rollout"]
        assert isinstance(row, dict) and row["state"] == state, (found, [g.process.words() for g in self.gateways])
        return found

    def versions(self) -> dict[str, str]:
        """As the gateways tell the core themselves."""
        with psycopg.connect(self.dsn) as conn:
            return dict(conn.execute("select gateway_id, version from gateway where online").fetchall())


def first_token(url: str, password: str) -> str:
    with httpx.Client(base_url=f"{url}/api/v1", timeout=20) as client:
        token = client.post("/login", json={"name": "admin", "password": password}).json()["token"]
        changed = client.post(
            "/password",
            json={"old": password, "new": "Chaohu-wave-4417"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert changed.status_code < 300, changed.text
        found: str = changed.json().get("token", token) if changed.content else token
        return found


@pytest.fixture
def core(dsn: str, tmp_path: Path) -> Iterator[Site]:
    """The web process with release 1.0 and two enrolled gateways that do not run."""
    shop = Shop(tmp_path / "shop")
    release(shop, "1.0")
    enrol(dsn, *GATEWAYS)
    with psycopg.connect(dsn, autocommit=True) as conn:
        password = ensure_first_operator(conn)
    assert password is not None
    settings = Settings(
        dsn=dsn,
        state_dir=str(tmp_path / "state"),
        console=False,
        updates=UpdatesSettings(
            folder=str(shop.repository.folder), online_key_dir=str(tmp_path / "shop" / "keys"), tick_s=0.2
        ),
    )
    with serving(create_app(settings)) as url:
        made = Site(url, dsn, shop, [], first_token(url, password))
        yield made
        made.client.close()


@pytest.fixture
def site(core: Site, tmp_path: Path, start_broker: StartBroker) -> Iterator[Site]:
    bundle = next((core.shop.repository.targets / "agent/citybrain/1.0").iterdir())
    broker = start_broker(GATEWAYS)
    with Core(core.dsn, broker):
        core.gateways = [
            Gateway(tmp_path / name, broker, name, shard, core.url, core.shop, bundle) for name, shard in GATEWAYS
        ]
        try:
            for gateway in core.gateways:
                gateway.process.spawn()
            until(lambda: core.versions() == dict.fromkeys(dict(GATEWAYS), "1.0"), "both are there", timeout_s=150)
            yield core
        finally:
            for gateway in core.gateways:
                gateway.process.kill()


def test_a_good_release_arrives_and_a_bad_one_is_stopped(site: Site) -> None:
    release(site.shop, "1.1")
    done = site.ended(site.begin("1.1", 120), "done")
    assert [m["state"] for m in done["gateways"]] == ["applied", "applied"]  # type: ignore[attr-defined]
    assert [g.version() for g in site.gateways] == ["1.1", "1.1"]
    until(lambda: site.versions() == dict.fromkeys(dict(GATEWAYS), "1.1"), "they say so themselves", timeout_s=60)

    release(site.shop, "1.2", "deaf")
    number = site.begin("1.2", 12)
    stopped = site.ended(number, "stopped")
    row, members = stopped["rollout"], stopped["gateways"]
    assert isinstance(row, dict) and isinstance(members, list)
    assert "1 of 1 in error" in row["reason"]
    assert sorted(m["state"] for m in members) == ["pending", "rolled_back"]
    bad = next(m for m in members if m["state"] == "rolled_back")
    # On a busy machine an agent may not even have spoken in that time.
    assert re.fullmatch("not healthy in 12 s: (no way to the core: .*|it said nothing)", bad["detail"])
    assert [g.version() for g in site.gateways] == ["1.1", "1.1"]
    until(lambda: site.versions() == dict.fromkeys(dict(GATEWAYS), "1.1"), "the old one is back", timeout_s=60)
    aborted = site.client.post(f"/rollouts/{number}/abort", json={"reason": "bad"})
    assert aborted.status_code == 200 and aborted.json()["counts"]["cancelled"] == 1
    with psycopg.connect(site.dsn) as conn:
        actions = [
            r[0] for r in conn.execute("select action from audit_entry where what like 'rollout/%' order by entry_id")
        ]
    assert actions == ["rollout.create", "rollout.done", "rollout.create", "rollout.stopped", "rollout.abort"]


def test_the_web_process_gives_out_signed_files_alone(core: Site) -> None:
    name = next((core.shop.repository.targets / "agent/citybrain/1.0").iterdir()).name
    path = f"{core.url}/updates/targets/agent/citybrain/1.0/{name}"
    whole = httpx.get(path)
    assert whole.status_code == 200 and len(whole.content) > 100
    part = httpx.get(path, headers={"Range": "bytes=100-"})
    assert part.status_code == 206 and part.content == whole.content[100:]
    assert part.headers["content-range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
    for wrong in (
        ".lock", "targets/", "metadata/1.root.json.bak", "metadata/%2e%2e/%2e%2e/keys/online.pem", "metadata",
        "..%2f..%2fkeys%2fonline.pem", "x" * 400, "metadata/0x1.root.json", "targets/agent/a/b/%00",
    ):  # fmt: skip
        answer = httpx.get(f"{core.url}/updates/{wrong}")
        assert answer.status_code in (303, 404) and b"PRIVATE" not in answer.content, wrong


def test_the_api_refuses_nonsense_and_strangers(core: Site) -> None:
    good = {"agent": {"name": "citybrain", "version": "1.0"}}
    for body in (
        {},
        {"title": "x", "change": {}, "gateways": ["gw-up-1"]},
        {"title": "x", "change": {"agent": 1}, "gateways": ["gw-up-1"]},
        {"title": "x", "change": good, "gateways": []},
        {"title": "x", "change": good, "gateways": ["gw-nobody"]},
        {"title": "x", "change": good, "gateways": ["gw-up-1"], "plan": {"waves": ["0"]}},
        {"title": "x", "change": {"agent": {"name": "citybrain", "version": "7.7"}}, "gateways": ["gw-up-1"]},
    ):
        assert core.client.post("/rollouts", json=body).status_code == 422, body
    assert core.client.get("/rollouts/999").status_code == 404
    assert core.client.post("/rollouts/999/pause", json={}).status_code == 404
    assert [r["version"] for r in core.client.get("/releases").json()] == ["1.0"]
    assert httpx.get(f"{core.url}/api/v1/rollouts").status_code == 401
    assert httpx.post(f"{core.url}/api/v1/rollouts/1/abort", json={}).status_code == 401
    answer = core.client.post("/rollouts", json={"title": "x", "change": good, "gateways": ["gw-up-1"]})
    number = answer.json()["rollout_id"]
    assert core.client.post(f"/rollouts/{number}/resume", json={}).status_code == 409
    assert core.client.post(f"/rollouts/{number}/pause", json={"reason": "later"}).json()["state"] == "paused"
    assert core.client.post(f"/rollouts/{number}/resume", json={}).json()["state"] == "running"
    assert core.client.post(f"/rollouts/{number}/abort", json={}).json()["state"] == "aborted"
