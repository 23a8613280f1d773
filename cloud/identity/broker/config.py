"""What the broker's guard must be told. Frozen, from TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cloud.identity.broker.cluster import ClusterConfig, check_address
from protocols.core import tomlfile
from protocols.core.errors import ConfigError

Positive = Annotated[float, msgspec.Meta(gt=0)]


class BrokerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``kind``: which broker's files are written into ``out``. Paths are relative to this file."""

    kind: Literal["nats", "mosquitto", "emqx"]
    dsn: str
    ca_dir: str  # root.pem, issuing.pem and issuing.key: signs the broker's certificate and the revocation list
    ca_passphrase_file: str = ""
    out: str
    listen: str = "0.0.0.0:8883"
    core_listen: str = "127.0.0.1:8884"  # Mosquitto and EMQX: the core's own door
    nats_listen: str = "127.0.0.1:4222"  # NATS: where this guard answers; keep it on the loopback
    monitor_listen: str = ""  # NATS: /healthz and figures for whoever watches, without a password; "": none
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")  # names and addresses in the broker's certificate
    store_dir: str = "store"  # where the broker keeps its messages, in `out`
    max_store: str = "20GB"
    max_sessions: Annotated[int, msgspec.Meta(ge=0)] = 100_000  # NATS from 2.15 stops at 1 000; 0: an older server
    reload_pid_file: str = ""  # the broker's process id: it gets SIGHUP when a file changed
    reload_command: tuple[str, ...] = ()  # instead of the signal
    user: str = ""  # Mosquitto started as root: the account it changes to
    poll_s: Positive = 5.0  # the database is asked so often even if it told of no change
    # NATS: end when the broker was away for so long, to be started anew; 0: wait for ever. For containers: a guard that
    # shares the broker's network loses it for good when the broker's container starts again.
    end_when_lost_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    cluster: ClusterConfig | None = None  # NATS: this node and the others; without it the broker is one process

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ValueError("hosts: at least one name")
        for name in ("listen", "core_listen", "nats_listen"):
            check_address(name, getattr(self, name))
        if self.monitor_listen:
            check_address("monitor_listen", self.monitor_listen)
        if self.cluster is not None and self.kind != "nats":
            raise ValueError(f"cluster: several nodes are for NATS; {self.kind} brings its own way")


def load(path: Path) -> BrokerConfig:
    """Raises ConfigError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    config = tomlfile.decode(text, BrokerConfig, str(path))
    base = path.resolve().parent
    absolute = {name: str(base / getattr(config, name)) for name in ("ca_dir", "out")}
    cluster = config.cluster
    if cluster is not None:
        cluster = msgspec.structs.replace(cluster, secret_file=str(base / cluster.secret_file))
    return msgspec.structs.replace(config, cluster=cluster, **absolute)
