"""nats-server's configuration: mutual TLS for everybody, and every gateway asked for at our authorization call.

It names no gateway, so it never changes when one comes or goes: no reload with ten thousand of them. In a cluster each
node has such a file; they differ in name, addresses and folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cloud.identity.broker.cluster import REPLICAS, ROUTE_USER, ClusterConfig
from cloud.identity.broker.config import BrokerConfig
from cloud.identity.names import CALLOUT_USER, CORE_USER
from protocols.uplink.batch import MAX_BATCH_BYTES

#: A broker that starts again meets every gateway of the city at once; none may time out behind the others.
_AUTH_TIMEOUT_S = 20


def files(config: BrokerConfig, out: Path, issuer: str, passwords: Mapping[str, str]) -> dict[str, str]:
    """``issuer``: public key of the account that signs our answers. ``passwords``: of the core, of this guard, and in a
    cluster of its nodes among each other."""

    def path(name: str) -> str:
        return json.dumps(str(out / name))

    def user(name: str, kind: str, rights: str = "") -> str:
        return (
            f"    {{user: {name}, password: {json.dumps(passwords[name])},"
            f' allowed_connection_types: ["{kind}"]{rights}}}'
        )

    # Each subscription of QoS 1 is a consumer of one stream, and 2.15 began to stop at 1 000 of them.
    sessions = f"  limits {{ default_max_consumers: {config.max_sessions} }}\n" if config.max_sessions else ""
    # When a whole city connects at once, the disk behind the sessions may need longer than the usual 5 s.
    patience = '  js_api_timeout: "30s"\n' if config.max_sessions else ""
    others, copies = "", ""
    if config.cluster is not None:
        others = _cluster(config.cluster, path("route.pem"), path("route.key"), path("root.pem"), passwords[ROUTE_USER])
        copies = f"  stream_replicas: {REPLICAS}\n"
        patience = f'  js_api_timeout: "{config.cluster.api_timeout_s:g}s"\n' if config.max_sessions else ""
    watched = f"http: {config.monitor_listen}\n" if config.monitor_listen else ""
    named = config.cluster.node if config.cluster is not None else "citybrain"
    answers = ', permissions: {publish: ["$SYS._INBOX.>"], subscribe: ["$SYS.REQ.USER.AUTH"]}'
    text = f"""# Written by `citybrain cloud broker-rules`. Holds passwords: 0600.
server_name: {named}
listen: {config.nats_listen}
{watched}max_payload: {2 * MAX_BATCH_BYTES}
jetstream {{
  store_dir: {path(config.store_dir)}
  max_file_store: {config.max_store}
{sessions}}}
{others}mqtt {{
  listen: {config.listen}
  ack_wait: "30s"
  max_ack_pending: 2000
{copies}{patience}  tls {{
    cert_file: {path("server.pem")}
    key_file: {path("server.key")}
    ca_file: {path("root.pem")}
    verify: true
    timeout: {_AUTH_TIMEOUT_S}
  }}
}}
authorization {{
  timeout: {_AUTH_TIMEOUT_S}
  users: [
{user(CORE_USER, "MQTT")}
{user(CALLOUT_USER, "STANDARD", answers)}
  ]
  # Whoever is not one of these two is asked for: certificate, client id and revocation decide together.
  auth_callout {{ issuer: {issuer}, auth_users: [{CORE_USER}, {CALLOUT_USER}] }}
}}
"""
    return {"nats.conf": text}


def _cluster(cluster: ClusterConfig, cert: str, key: str, root: str, password: str) -> str:
    """Certificates of our authority both ways, and the password that no gateway knows."""
    routes = "\n".join(f"    {json.dumps(route)}" for route in cluster.routes(password))
    return f"""cluster {{
  name: {cluster.name}
  listen: {json.dumps(cluster.listening)}
  no_advertise: true
  routes: [
{routes}
  ]
  authorization {{ user: {ROUTE_USER}, password: {json.dumps(password)}, timeout: {_AUTH_TIMEOUT_S} }}
  tls {{
    cert_file: {cert}
    key_file: {key}
    ca_file: {root}
    verify: true
    timeout: {_AUTH_TIMEOUT_S}
  }}
}}
lame_duck_duration: "30s"
lame_duck_grace_period: "5s"
"""
