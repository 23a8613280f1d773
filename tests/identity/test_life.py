"""A gateway's identity in use: the agent's parts renew and reconnect; clones are noticed; strangers' devices wait."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud.identity import admission, clones, revocation
from cloud.ingest.config import BrokerConfig, WorkerConfig
from cloud.ingest.worker import Worker
from edge.clock import WallClock
from edge.config import load
from edge.identity import rotate
from edge.identity.config import IdentityConfig
from edge.identity.core_client import CoreRefused
from edge.identity.rotate import EVENT, Rotation
from edge.outbox import Outbox
from edge.uplink.uplink import Uplink
from protocols.core.errors import LinkDown
from tests.cloud_ingest.site import T0_MS, declare, encode, event
from tests.fixtures.postgres import Postgres, new_database
from tests.fixtures.wait import until
from tests.identity.city import Guarded, Web, files_of, utc_now


@pytest.fixture(scope="module")
def web(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with Web(new_database(postgres), tmp_path_factory.mktemp("web")) as web:
        yield web


class Settable(WallClock):
    """A clock that says what it is told."""

    def __init__(self, now_s: float) -> None:
        super().__init__()
        self.now_s = now_s

    def now_ms(self) -> int:
        return round(self.now_s * 1000)


def rotation(web: Web, folder: Path, clock: WallClock, said: list[tuple[str, ...]], renewed: list[int]) -> Rotation:
    return Rotation(
        IdentityConfig(web.url, str(files_of(folder).folder)),
        folder,
        clock,
        gateway=folder.name,
        report=lambda *words: said.append(words),
        renewed=lambda: renewed.append(1),
    )


async def run_until(task: asyncio.Task[None], done: Callable[[], object]) -> None:
    try:
        await asyncio.to_thread(until, lambda: done() or task.done(), "it is done")
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_it_asks_after_two_thirds_of_a_life_and_at_once_with_a_wrong_clock(web: Web, tmp_path: Path) -> None:
    folder = tmp_path / "gw-due"
    web.enrol("gw-due", folder)
    leaf = files_of(folder).certificate()
    begin_s, end_s = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    clock = Settable(begin_s + 10)
    subject = rotation(web, folder, clock, [], [])
    third_s = (end_s - begin_s) / 3
    assert subject.wait_s(-1.0, 0.0) == pytest.approx(2 * third_s - 10, abs=1)
    clock.now_s = end_s - third_s + 1
    assert subject.wait_s(-1.0, 0.0) == 0
    clock.now_s = 1000.0  # 1970
    assert subject.wait_s(-1.0, 5.0) == 0
    assert subject.wait_s(5.0, 6.0) == pytest.approx(third_s / 4 - 1, abs=1)  # it looks again, and then:
    assert subject.wait_s(5.0, 6.0 + third_s / 2) == pytest.approx(third_s / 2 - 1, abs=1)


@pytest.mark.parametrize("year", ["due", "1970"])
def test_it_renews_by_itself(web: Web, tmp_path: Path, year: str) -> None:
    folder = tmp_path / f"gw-{year}"
    web.enrol(folder.name, folder)
    files = files_of(folder)
    before = files.certificate()
    said: list[tuple[str, ...]] = []
    renewed: list[int] = []

    async def body() -> None:
        clock = Settable(1000.0 if year == "1970" else before.not_valid_after_utc.timestamp() - 3600)
        subject = rotation(web, folder, clock, said, renewed)
        await run_until(asyncio.create_task(subject.run()), lambda: renewed)
        assert subject.renewals >= 1

    asyncio.run(body())
    after = files.certificate()
    assert after.serial_number != before.serial_number
    assert said == []
    assert sorted(path.name for path in files.folder.iterdir()) == ["ca.pem", "identity.pem"]
    assert files.identity.stat().st_mode & 0o077 == 0


def test_a_power_cut_between_request_and_answer(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core has issued, the answer never came: the same request again, the same certificate."""
    folder = tmp_path / "gw-cut"
    web.enrol("gw-cut", folder)
    files = files_of(folder)
    config = IdentityConfig(web.url, str(files.folder))
    real = rotate.ask
    answers: list[str] = []

    def lost(*arguments: object) -> dict[str, object]:
        answers.append(str(real(*arguments)["certificate"]))  # type: ignore[arg-type]
        raise LinkDown("the power went")

    monkeypatch.setattr(rotate, "ask", lost)
    with pytest.raises(LinkDown):
        rotate.renew(files, config, utc_now().timestamp())
    monkeypatch.setattr(rotate, "ask", real)
    rotate.renew(files, config, utc_now().timestamp())
    assert files.identity.read_text().endswith(answers[0])


def test_a_refused_renewal_is_said_once_and_the_agent_lives_on(web: Web, tmp_path: Path) -> None:
    folder = tmp_path / "gw-refused"
    web.enrol("gw-refused", folder)
    with web.db() as conn:
        revocation.revoke(conn, "gw-refused", "tester", "x", utc_now())
    said: list[tuple[str, ...]] = []

    async def body() -> None:
        leaf = files_of(folder).certificate()
        subject = rotation(web, folder, Settable(leaf.not_valid_after_utc.timestamp() - 60), said, [])
        await run_until(asyncio.create_task(subject.run()), lambda: said)
        values, texts = subject.health()
        assert values["certificate_left_s"] == pytest.approx(60, abs=1)
        assert "refuses" in texts["certificate"]

    asyncio.run(body())
    assert [words[:3] for words in said] == [(EVENT, "gw-refused", "identity.revoked")]


def test_a_certificate_that_ended_long_ago_needs_a_claim(postgres: Postgres, tmp_path: Path) -> None:
    with Web(new_database(postgres), tmp_path / "web", certificate_days=0.01, renew_grace_days=0.0) as web:
        web.enrol("gw-late", tmp_path / "gw-late")
        files = files_of(tmp_path / "gw-late")
        desk = web.app.state.identity
        desk._now = lambda: utc_now() + dt.timedelta(days=1)
        with pytest.raises(CoreRefused, match="too long ago"):
            rotate.renew(files, IdentityConfig(web.url, str(files.folder)), utc_now().timestamp())


# -- with a real broker, a real worker, a real uplink -----------------------------------------------------------------


class Site:
    """Worker and broker over mutual TLS, as configured in the field."""

    def __init__(self, web: Web, broker: Guarded) -> None:
        self.web, self.broker = web, broker
        out = broker.out
        config = WorkerConfig(
            web.dsn,
            BrokerConfig(
                f"mqtts://localhost:{broker.core_port}", "core", str(out / "core-password"), str(out / "root.pem"),
                str(out / "core.pem"),
            ),
        )  # fmt: skip
        self.worker = Worker(config, Path("/"))
        self._thread = threading.Thread(target=self.worker.run, daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self._thread.join(10)


@pytest.fixture(scope="module")
def site(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (
        Guarded("nats", web.dsn, web.root / "ca", tmp_path_factory.mktemp("life")) as broker,
        Site(web, broker) as site,
    ):
        yield site


def enrolled(site: Site, folder: Path) -> None:
    site.web.enrol(folder.name, folder, 9)
    path = folder / "gateway.toml"
    path.write_text(path.read_text().replace(":8883", f":{site.broker.port}"))
    until(lambda: folder.name in site.broker.guard.access.gateways, "the broker's guard knows it")


class Box:
    """Outbox and uplink of one box, configured by the file that enrolment wrote. ``disk``: whose files it uses."""

    def __init__(self, disk: Path, outbox: Path) -> None:
        self.config = load(disk / "gateway.toml")
        self.outbox = Outbox(outbox, now_ms=T0_MS)
        self.uplink = Uplink(
            self.config.mqtt, self.outbox, WallClock(), gateway=self.config.gateway.id,
            shard=self.config.gateway.shard, password="", version="test", health=lambda: ({}, {}),
            rejected=lambda *_: None,
        )  # fmt: skip


def one(web: Web, statement: str) -> object:
    with web.db() as conn:
        row = conn.execute(statement.encode()).fetchone()
    return row[0] if row else None


def test_a_renewed_certificate_is_used_at_once(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "gw-life"
    enrolled(site, folder)

    async def body() -> None:
        box = Box(folder, tmp_path / "box.db")
        serving = asyncio.create_task(box.uplink.run())
        renewed: list[int] = []
        subject = Rotation(
            box.config.identity or pytest.fail("no identity"), folder,
            Settable(files_of(folder).certificate().not_valid_after_utc.timestamp() - 60), gateway="gw-life",
            report=lambda *_: None, renewed=lambda: (renewed.append(1), box.uplink.reconnect()),
        )  # fmt: skip
        try:
            await asyncio.to_thread(until, lambda: box.uplink.connected, "it is connected")
            rotating = asyncio.create_task(subject.run())
            await asyncio.to_thread(until, lambda: box.uplink.counters["connects"] == 2, "it connects anew")
            await asyncio.to_thread(until, lambda: box.uplink.connected, "it is connected again")
            rotating.cancel()
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            box.outbox.close()
        assert renewed == [1]  # its clock is far ahead of the new certificate too, and still it asks once

    asyncio.run(body())
    until(lambda: one(site.web, "select online from gateway where gateway_id = 'gw-life'") is False, "its farewell")


def test_two_boxes_with_one_identity_raise_an_alarm(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "gw-twin"
    enrolled(site, folder)

    async def body() -> None:
        first, second = Box(folder, tmp_path / "first.db"), Box(folder, tmp_path / "second.db")
        tasks = [asyncio.create_task(box.uplink.run()) for box in (first, second)]
        found: object = None
        try:
            async with asyncio.timeout(60):
                while not found:
                    await asyncio.sleep(0.1)
                    found = await asyncio.to_thread(
                        one, site.web, "select state from alarm where key = 'gw-twin:cloned'"
                    )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            first.outbox.close()
            second.outbox.close()

    asyncio.run(body())
    assert one(site.web, "select level from alarm where key = 'gw-twin:cloned'") == "orange"


def test_restarts_and_repeats_are_no_clones(web: Web, tmp_path: Path) -> None:
    web.enrol("gw-calm", tmp_path / "gw-calm")
    with web.db() as conn:
        heard = [("a", 1), ("a", 2), ("b", 3), ("a", 2), ("a", 1), ("b", 3), ("b", 4), ("c", 1), ("", 9), ("x" * 65, 9)]
        for session, at_ms in heard:
            assert clones.seen(conn, "gw-calm", session, at_ms, 1000) == [], (session, at_ms)
        raised = clones.seen(conn, "gw-calm", "b", 5, 1000)
        assert [(e.type, e.state, e.key) for e in raised] == [("sec.identity.cloned", "raise", "gw-calm:cloned")]
        for n in range(60):
            clones.seen(conn, "gw-calm", f"s{n}", n, 1000)
        kept = conn.execute("select count(*) from gateway_session where gateway_id = 'gw-calm'").fetchone()
    assert kept == (50,)


def test_a_devices_wait_for_somebody(site: Site, tmp_path: Path) -> None:
    """Unknown series: left out, listed; accepted: stored from then on, by the same gateway without a new epoch."""
    folder = tmp_path / "gw-list"
    site.web.enrol("gw-list", folder, 9)
    with site.web.db() as conn:
        assert admission.set_mode(conn, "gw-list", "accept", "tester")
        assert not admission.set_mode(conn, "gw-none", "accept", "tester")
    until(lambda: "gw-list" in site.broker.guard.access.gateways, "the broker's guard knows it")
    from tests.identity.city import Link

    files = files_of(folder)
    with Link(site.broker.port, "gw-list", files.ca, files.identity) as link:
        link.subscribe("cb/v1/9/gw-list/down/+")

        def send(seq: int, **parts: object) -> None:
            link.publish("cb/v1/9/gw-list/up/data", encode(seq, [(0, T0_MS + seq, seq)], **parts))

        def committed(seq: int) -> bool:
            said = one(site.web, "select max(seq) from lane_cursor where gateway_id = 'gw-list'")
            return said == seq

        said = (declare(0, "new-meter", kind="meter/x"),)
        unlisted = event(1, type="device.unlisted", source="gw-list", values={"code": "MN-9", "detail": "dust"})
        send(1, declarations=said, events=(unlisted,))
        until(lambda: committed(1), "the row is taken")
        with site.web.db() as conn:
            waiting = conn.execute(
                "select device_id, device_type, source, state from device_pending"
                " where gateway_id = 'gw-list' order by 1"
            ).fetchall()
            assert waiting == [("MN-9", "", "unlisted", "pending"), ("new-meter", "meter/x", "series", "pending")]
            assert conn.execute("select from device where gateway_id = 'gw-list'").fetchone() is None
            assert admission.decide(conn, "gw-list", "new-meter", "accepted", "王敏")
            assert admission.decide(conn, "gw-list", "MN-9", "rejected", "王敏")
            assert not admission.decide(conn, "gw-list", "nothing", "accepted", "王敏")
        send(2, declarations=said)
        until(lambda: committed(2), "the next row is taken")
        until(
            lambda: (
                one(
                    site.web,
                    "select count(*) from reading r join series s using (series_id) where s.device_id = 'new-meter'",
                )
                == 1
            ),
            "the accepted device's reading is stored",
        )
    with site.web.db() as conn:
        audited = conn.execute(
            "select who, action, what from audit_entry where action like 'device.%' order by entry_id"
        ).fetchall()
    assert audited == [
        ("王敏", "device.accepted", "device/new-meter"),
        ("王敏", "device.rejected", "device/MN-9"),
    ]


def test_a_thousand_strangers_fill_no_table(web: Web, tmp_path: Path) -> None:
    web.enrol("gw-flood", tmp_path / "gw-flood")
    with web.db() as conn, conn.transaction():
        for n in range(1100):
            admission.wait_for(conn, "gw-flood", f"s-{n}", source="unlisted")
        admission.wait_for(conn, "gw-flood", "s-5", source="unlisted")
        rows = conn.execute("select count(*), max(times) from device_pending where gateway_id = 'gw-flood'").fetchone()
    assert rows == (1000, 2)


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    from cloud.config import load as load_core
    from protocols.core.errors import ConfigError

    core = tmp_path / "core.toml"
    for line in ('broker_url = "x"', "certificate_days = 0", 'public_url = "http://x"', 'sign_command = ["x"]'):
        wanted = {"broker_url": '"mqtts://x:1"', "public_url": '"https://x"'}
        name, _, value = line.partition(" = ")
        wanted[name] = value
        body = "".join(f"{key} = {text}\n" for key, text in wanted.items())
        core.write_text(f"dsn = {json.dumps('x')}\n[identity]\n{body}")
        with pytest.raises(ConfigError, match="identity"):
            load_core(core)
