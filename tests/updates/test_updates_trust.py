"""Attacks on the update repository (TUF specification 1.0.34, section 1.5.2), against the real client over HTTP.

The attacker holds the web server, and in some cases the online key; never the offline keys.
"""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from cloud.updates import bundles
from edge.updates.config import UpdatesConfig, check
from edge.updates.fetch import Http, download
from protocols.core.errors import ConfigError, ContractError, LinkDown, LinkRefused
from tests.updates.repo import Shop, Web, agent, config, trust


def find(web: Web, folder: Path, root: bytes, version: str = "1.0") -> str:
    return trust(web, folder, root).find("agent", "citybrain", version, "linux-x86_64").sha256


def test_what_was_released_is_found_and_what_was_not_is_not(shop: Shop, web: Web, tmp_path: Path) -> None:
    looked = trust(web, tmp_path, shop.root)
    found = looked.find("agent", "citybrain", "1.0", "linux-x86_64")
    file = download(
        Http(config(web.url), tmp_path), found.url, tmp_path / "d" / found.sha256, found.bytes, found.sha256
    )
    with file.open("rb") as opened:
        manifest, tree = bundles.unpack(opened)
    assert (manifest.version, tree) == ("1.0", agent("1.0"))
    for kind, name, version in (
        ("agent", "citybrain", "2.0"),
        ("agent", "other", "1.0"),
        ("packs", "citybrain", "1.0"),
    ):
        with pytest.raises(LinkRefused, match="not in the repository"):
            looked.find(kind, name, version, "linux-x86_64")  # type: ignore[arg-type]


def test_an_older_state_is_refused(shop: Shop, web: Web, tmp_path: Path) -> None:
    """Rollback: the gateway has seen a newer timestamp; the server goes back to the state before."""
    old = tmp_path / "old"
    shutil.copytree(shop.repository.folder, old)
    shop.agent("1.1")
    assert find(web, tmp_path, shop.root, "1.1")
    web.folder = old
    with pytest.raises(ContractError, match="not believed") as refused:
        find(web, tmp_path, shop.root)
    assert refused.value.reason == "signature"


def test_an_expired_state_is_refused(shop: Shop, web: Web, tmp_path: Path) -> None:
    """Freeze: the server gives what was true once. The core signs the timestamp anew while it is itself."""
    shop.repository.refresh(shop.keys, shop.now - timedelta(days=3))  # not due: nothing happens
    assert find(web, tmp_path, shop.root)
    past = Shop(tmp_path / "past")
    for path in past.repository.metadata.iterdir():
        path.unlink()
    shutil.rmtree(past.repository.folder)
    shutil.rmtree(tmp_path / "past" / "keys")
    past.repository.create(past.keys, past.now - timedelta(days=3))
    web.folder = past.repository.folder
    with pytest.raises(ContractError) as refused:
        trust(web, tmp_path / "other", past.root)
    assert refused.value.reason == "expired"
    assert past.repository.refresh(past.keys, past.now)
    trust(web, tmp_path / "other", past.root)


def test_a_state_mixed_from_two_is_refused(shop: Shop, web: Web, tmp_path: Path) -> None:
    """Mix and match: today's timestamp and snapshot, yesterday's role under today's name."""
    yesterday = (shop.repository.metadata / "2.agent.json").read_bytes()
    shop.agent("1.1")
    web.temper = lambda path, data: yesterday if path == "metadata/3.agent.json" else data
    with pytest.raises(ContractError, match="not believed"):
        find(web, tmp_path, shop.root)


def test_another_key_is_refused(shop: Shop, web: Web, tmp_path: Path) -> None:
    """Wrong key: a whole repository of somebody else's."""
    stranger = Shop(tmp_path / "stranger")
    stranger.agent("1.0", "dies")
    web.folder = stranger.repository.folder
    with pytest.raises(ContractError, match="not believed"):
        find(web, tmp_path, shop.root)


def test_the_key_of_templates_cannot_sign_an_agent(shop: Shop, web: Web, tmp_path: Path) -> None:
    """Arbitrary package: the thief of one delegated key signs an agent with it, under the path of an agent."""
    repository = shop.repository
    role: Metadata[Targets] = Metadata.from_bytes((repository.metadata / "1.templates.json").read_bytes())
    tree = agent("6.6", "dies")
    evil = bundles.manifest_of("agent", "citybrain", "6.6", tree, entry=["-m", "stand_in"])
    path = "agent/citybrain/6.6/any.tar.zst"
    role.signed.targets[path] = repository._store(path, bundles.pack(evil, tree), {"content": "0" * 64, "bytes": 1})
    role.signed.version = 2
    repository._write(role, repository._signer(shop.keys, "templates"), name="templates")
    repository._publish(repository._signer(shop.keys, "online"), shop.now)
    with pytest.raises(LinkRefused):
        find(web, tmp_path, shop.root, "6.6")
    assert find(web, tmp_path, shop.root)


def test_the_online_key_alone_releases_nothing(shop: Shop, web: Web, tmp_path: Path) -> None:
    """Who takes the core signs a snapshot of a role he changed, with the only key he has."""
    repository = shop.repository
    role: Metadata[Targets] = Metadata.from_bytes((repository.metadata / "2.agent.json").read_bytes())
    path = "agent/citybrain/6.6/any.tar.zst"
    role.signed.targets[path] = repository._store(path, b"evil", {"content": "0" * 64, "bytes": 4})
    role.signed.version = 3
    repository._write(role, repository._signer(shop.keys, "online"), name="agent")
    repository._publish(repository._signer(shop.keys, "online"), shop.now)
    with pytest.raises(ContractError, match="not believed"):
        find(web, tmp_path, shop.root, "6.6")


def test_a_changed_file_is_thrown_away(shop: Shop, web: Web, tmp_path: Path) -> None:
    found = trust(web, tmp_path, shop.root).find("agent", "citybrain", "1.0", "any")
    web.temper = lambda path, data: data[:-1] + bytes([data[-1] ^ 1]) if path.startswith("targets/") else data
    http, target = Http(config(web.url), tmp_path), tmp_path / "d" / found.sha256
    with pytest.raises(ContractError) as refused:
        download(http, found.url, target, found.bytes, found.sha256)
    assert refused.value.reason == "hash"
    assert list(target.parent.iterdir()) == []
    web.temper = lambda _path, data: data
    assert download(http, found.url, target, found.bytes, found.sha256) == target


@pytest.mark.parametrize("what", ["metadata/timestamp.json", "targets/"])
def test_endless_data_ends(shop: Shop, web: Web, tmp_path: Path, what: str) -> None:
    found = trust(web, tmp_path, shop.root).find("agent", "citybrain", "1.0", "any")
    web.endless = True
    if what.startswith("metadata"):
        with pytest.raises(LinkDown):
            trust(web, tmp_path, shop.root)
    else:
        target = tmp_path / "d" / found.sha256
        with pytest.raises((LinkDown, ContractError)):
            download(Http(config(web.url), tmp_path), found.url, target, found.bytes, found.sha256)
        assert sum(p.stat().st_size for p in target.parent.iterdir()) <= found.bytes


def test_torn_metadata_of_our_own_is_fetched_again(shop: Shop, web: Web, tmp_path: Path) -> None:
    """A power cut while the client stored what it had heard."""
    first = find(web, tmp_path, shop.root)
    for path in (tmp_path / "trust").rglob("*.json"):
        path.write_bytes(path.read_bytes()[:40])
    assert find(web, tmp_path, shop.root) == first


def test_rubbish_for_metadata_is_refused(shop: Shop, web: Web, tmp_path: Path) -> None:
    good = shop.root
    for rubbish in (b"", b"{}", b"\xff" * 100, b'{"signed": {}, "signatures": []}', json.dumps([1]).encode()):
        web.temper = lambda path, data, say=rubbish: say if path.endswith("timestamp.json") else data
        with pytest.raises(ContractError, match="not believed"):
            find(web, tmp_path, good)


def test_every_key_can_be_changed_and_gateways_follow(shop: Shop, web: Web, tmp_path: Path) -> None:
    born_with = shop.root
    for role in ("agent", "online", "targets", "root", "root", "agent"):
        shop.repository.rotate(shop.keys, role, shop.now)
        assert find(web, tmp_path, born_with)
    shop.agent("1.1")
    assert find(web, tmp_path, born_with, "1.1")
    assert find(web, tmp_path / "new", shop.root, "1.1")


def test_a_change_of_key_that_was_cut_can_be_made_again(
    shop: Shop, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata is out, the key file not yet renamed: signing finds the key that the metadata trusts."""
    for role in ("agent", "root", "online"):
        with monkeypatch.context() as cut:
            cut.setattr(shop.keys, "promote", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                shop.repository.rotate(shop.keys, role, shop.now)
    shop.agent("1.1")
    assert find(web, tmp_path, shop.root, "1.1")
    shop.repository.rotate(shop.keys, "root", shop.now)
    assert find(web, tmp_path, shop.root, "1.1")


def test_a_version_is_signed_once(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="released already"):
        shop.agent("1.0")
    with pytest.raises(ConfigError, match="other content"):
        shop.agent("1.0", "dies")


def test_a_withdrawn_version_is_gone(shop: Shop, web: Web, tmp_path: Path) -> None:
    shop.agent("1.1")
    assert shop.repository.withdraw(shop.keys, "agent", "citybrain", "1.1", shop.now) >= 1
    with pytest.raises(LinkRefused):
        find(web, tmp_path, shop.root, "1.1")


def test_keys_are_private_and_locked(shop: Shop, tmp_path: Path) -> None:
    from cloud.updates.keys import Keys

    for path in (tmp_path / "shop" / "keys").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert (b"ENCRYPTED" in path.read_bytes()) == (path.stem != "online")
    wrong = Keys(tmp_path / "shop" / "keys", b"wrong")
    with pytest.raises(ConfigError, match="does not open"):
        shop.repository.rotate(wrong, "root", shop.now)


def test_plain_http_is_for_loopback() -> None:
    check(UpdatesConfig("http://127.0.0.1:8600/updates/"))
    check(UpdatesConfig("https://core.example/updates/"))
    for url in ("http://core.example/updates/", "ftp://127.0.0.1/", "https:///x", "file:///etc/passwd"):
        with pytest.raises(ConfigError):
            check(UpdatesConfig(url))
