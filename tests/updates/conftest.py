"""One repository made once; each test has a copy of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.updates.repo import Shop, Web


@pytest.fixture(scope="session")
def first_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with agent 1.0 in it."""
    folder = tmp_path_factory.mktemp("shop") / "first"
    Shop(folder).agent("1.0")
    return folder


@pytest.fixture
def shop(tmp_path: Path, first_shop: Path) -> Shop:
    return Shop(tmp_path / "shop", first_shop)


@pytest.fixture
def web(shop: Shop) -> Iterator[Web]:
    with Web(shop.repository.folder) as server:
        yield server


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote: flushing every disk of this machine would only cost time."""
    monkeypatch.setattr(os, "sync", lambda: None)
