"""nats-server's configuration: mutual TLS for everybody, and every gateway asked for at our authorization call.

It names no gateway, so it never changes when one comes or goes: no reload with ten thousand of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cloud.identity.broker.config import BrokerConfig
from cloud.identity.names import CALLOUT_USER, CORE_USER
from protocols.uplink.batch import MAX_BATCH_BYTES

#: A broker that starts again meets every gateway of the city at once; none may time out behind the others.
_AUTH_TIMEOUT_S = 20


def files(config: BrokerConfig, out: Path, issuer: str, passwords: Mapping[str, str]) -> dict[str, str]:
    """``issuer``: public key of the account that signs our answers. ``passwords``: of the core and of this guard."""

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
    answers = ', permissions: {publish: ["$SYS._INBOX.>"], subscribe: ["$SYS.REQ.USER.AUTH"]}'
    text = f"""# Written by `citybrain cloud broker-rules`. Holds passwords: 0600.
server_name: citybrain
listen: {config.nats_listen}
max_payload: {2 * MAX_BATCH_BYTES}
jetstream {{
  store_dir: {path(config.store_dir)}
  max_file_store: {config.max_store}
{sessions}}}
mqtt {{
  listen: {config.listen}
  ack_wait: "30s"
  max_ack_pending: 2000
{patience}  tls {{
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
