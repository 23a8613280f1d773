"""The broker as several nodes: which there are, which of them this is, and what they have in common.

A certificate of our authority is not enough to join: every gateway has one. A node also shows the cluster's password,
and its certificate is one for nodes. Users and the key that signs answers must be the same on all nodes, for any guard
may answer for any node; so all of it is derived from one secret file that the operator copies to each.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.core.errors import ConfigError

#: Copies of each message and session: one node may die, and the rest still agree.
REPLICAS = 3
ROUTE_USER = "cb-route"
_SIZES = (3, 5)  # an even number tolerates no more deaths than one fewer
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SECRET_BYTES = 32


class ClusterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``nodes``: the same table on every node; ``node`` is the one line in which their files differ."""

    node: str  # which of `nodes` this machine is
    nodes: dict[str, str]  # name = "host:port" under which the others reach it
    secret_file: str  # the same file on every node: `openssl rand -hex 32 > cluster.secret`
    name: str = "citybrain"
    # A request that meets a group without a leader (4 to 9 s after a node has died) is lost, and whoever waits for its
    # answer waits for nothing: so it is given up soon and asked again. Longer where disks are too slow for a whole city
    # that connects at once.
    api_timeout_s: Annotated[float, msgspec.Meta(ge=0.5, le=60)] = 2.0
    listen: str = ""  # where this node waits for the others; "": its own address, or its port if that is a name

    def __post_init__(self) -> None:
        if len(self.nodes) not in _SIZES:
            raise ValueError(f"cluster.nodes: three nodes (or five), not {len(self.nodes)}: of fewer none may die")
        for name, address in self.nodes.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"cluster.nodes: {name!r}: lower-case letters, digits and hyphens")
            check_address(f"cluster.nodes.{name}", address)
        if self.node not in self.nodes:
            raise ValueError(f"cluster.node: {self.node!r} is none of the nodes ({', '.join(self.nodes)})")
        names = list(self.nodes)
        for number, name in enumerate(names):
            for other in names[:number]:
                if self.nodes[other].lower() == self.nodes[name].lower():
                    raise ValueError(f"cluster.nodes: {other} and {name} have the same address {self.nodes[name]}")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"cluster.name: {self.name!r}: lower-case letters, digits and hyphens")
        if self.listen:
            check_address("cluster.listen", self.listen)

    @property
    def host(self) -> str:
        """Of this node, as the others know it: stands in its certificate."""
        return self.nodes[self.node].rpartition(":")[0].strip("[]")

    @property
    def listening(self) -> str:
        """A name may stand for the loopback on its own machine, so only an address is bound as it is."""
        own = self.nodes[self.node]
        host, _, port = own.rpartition(":")
        return self.listen or (own if re.fullmatch(r"[0-9.]+|\[[0-9A-Fa-f:.]+\]", host) else f"0.0.0.0:{port}")

    def routes(self, password: str) -> list[str]:
        """To the other nodes."""
        return [
            f"nats-route://{ROUTE_USER}:{password}@{address}"
            for name, address in self.nodes.items()
            if name != self.node
        ]


def check_address(name: str, text: str) -> None:
    """Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", host) or not colon or not port.isdecimal():
        raise ValueError(f"{name}: {text!r} is not host:port")
    if not 0 < int(port) <= 65535:
        raise ValueError(f"{name}: {text!r}: the port is 1 to 65535")


class Shared:
    """What all nodes have in common. Raises ConfigError if the secret is missing, short, or open to others."""

    def __init__(self, secret_file: Path) -> None:
        hint = "make it once (openssl rand -hex 32), readable by the guard alone, and copy it to every node"
        try:
            secret = secret_file.read_bytes().strip()
            mode = secret_file.stat().st_mode
        except OSError as error:
            raise ConfigError(f"cluster.secret_file {secret_file}: {error.strerror}; {hint}") from error
        if len(secret) < _SECRET_BYTES:
            raise ConfigError(f"cluster.secret_file {secret_file}: shorter than {_SECRET_BYTES} characters; {hint}")
        if mode & 0o027:  # a credential of systemd shows its one reader as a group
            raise ConfigError(f"cluster.secret_file {secret_file}: others may read it; chmod 600")
        self._secret = secret

    def key(self, purpose: str) -> bytes:
        info = f"citybrain broker cluster: {purpose}".encode()
        return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(self._secret)

    def passwords(self, *names: str) -> Mapping[str, str]:
        """Of each user, in letters that need no quoting in an address."""
        return {name: base64.urlsafe_b64encode(self.key(f"password of {name}")).rstrip(b"=").decode() for name in names}
