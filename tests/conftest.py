"""Fixtures every folder may use: the real servers of ``tests/fixtures``; and the order in which files are begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.broker import start_broker
from tests.fixtures.postgres import dsn, postgres

__all__ = ["dsn", "postgres", "start_broker"]

_HERE = Path(__file__).parent
#: Files of half a minute and more, the longest first: a file goes to one process, and begun last it would keep all the
#: others waiting.
_LONG = (
    "stories/test_stories.py",
    "console/test_console.py",
    "cloud_ingest/test_ingest_faults.py",
    "protocols/test_every_codec.py",
    "vision/test_vision_lane.py",
    "edge_connectors/test_opcua.py",
    "vision/test_vision_clips.py",
    "cloud_twin/test_there_and_back.py",
    "cloud_api/test_attack.py",
    "uplink/test_uplink_wire.py",
    "cloud_store/test_backup.py",
    "console/test_audit_page.py",
    "updates/test_updates_path.py",
    "chaos/test_chaos_end_to_end.py",
    "console/test_disk_banner.py",
    "identity/test_broker_attacks.py",
    "cloud_store/test_rollup.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if gone := [name for name in _LONG if not (_HERE / name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py orders files that are not there: {', '.join(gone)}")
    rank = {_HERE / name: n for n, name in enumerate(_LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))  # stable: the others stay as they are
