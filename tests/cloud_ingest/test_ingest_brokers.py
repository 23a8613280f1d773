"""The same delivery, whatever the broker: three nodes of which one is killed, and one Mosquitto that is killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from citybrain_cli.proof import broker as broker_book
from cloud.ingest.config import BrokerConfig
from protocols.core.errors import ConfigError
from tests.cloud_ingest.site import Core, Feeder, enrol, query, reconcile
from tests.cloud_ingest.test_ingest_faults import _committed, feeding
from tests.fixtures.cluster import NODES, StartCluster, start_cluster
from tests.fixtures.mosquitto import StartMosquitto, start_mosquitto
from tests.fixtures.wait import until

__all__ = ["start_cluster", "start_mosquitto"]

GATEWAY, SHARD = "gw-t-01", 9
RESUME_S = 15.0


def _resumed(dsn: str) -> float:
    """Seconds until something more than now is committed."""
    begun = time.monotonic()
    _committed(dsn, int(query(dsn, "select coalesce(sum(readings), 0) from lane_cursor")[0][0]), RESUME_S)
    return time.monotonic() - begun


def test_a_node_of_three_is_killed_and_the_others_go_on(tmp_path: Path, dsn: str, start_cluster: StartCluster) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    cluster = start_cluster([(GATEWAY, SHARD)])
    with Core(dsn, cluster) as core, Feeder(cluster, GATEWAY, SHARD, tmp_path) as feeder:
        with feeding(feeder, pause_s=0.05):
            _committed(dsn, 400)
            seen = broker_book.look(cluster.monitor)
            assert seen.looked and seen.sessions == 1
            for node in (SHARD % NODES, (SHARD + 1) % NODES):  # where our session is, and where it goes then
                until(cluster.whole, "all copies are up to date", timeout_s=60)
                cluster.kill(node)
                assert _resumed(dsn) < RESUME_S
                cluster.spawn(node)
        feeder.drained()
        assert reconcile(dsn, feeder) > 500
        assert not feeder.rejected
        core.check()


def test_one_mosquitto_carries_the_same_and_may_be_killed(
    tmp_path: Path, dsn: str, start_mosquitto: StartMosquitto
) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    mosquitto = start_mosquitto([(GATEWAY, SHARD)])
    with Core(dsn, mosquitto) as core, Feeder(mosquitto, GATEWAY, SHARD, tmp_path) as feeder:
        with feeding(feeder, pause_s=0.05):
            for _ in range(2):
                _committed(dsn, 400)
                mosquitto.kill()
                mosquitto.start()
                assert _resumed(dsn) < RESUME_S
        feeder.drained()
        assert reconcile(dsn, feeder) > 500
        assert not feeder.rejected
        core.check()


@pytest.mark.parametrize("url", ["", "http://x", "mqtt://", "mqtt://a:1,mqtts://b:2", ("mqtt://a", "nonsense"), ()])
def test_a_broker_that_cannot_be_one_is_refused(url: str | tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        BrokerConfig(url).nodes()


def test_nodes_may_be_a_list_or_parted_by_commas() -> None:
    wanted = ((False, "a", 1883), (False, "b", 1884))
    assert BrokerConfig("mqtt://a, mqtt://b:1884").nodes() == wanted
    assert BrokerConfig(("mqtt://a", "mqtt://b:1884")).nodes() == wanted
