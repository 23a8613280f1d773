"""Mosquitto's configuration: two doors, both with mutual TLS.

```
 gateways ─▶ listen       user name AND client id are the certificate's name; only what the list says is allowed
 core     ─▶ core_listen  many sessions (cb-core-5 ...), so client ids are its own; the certificate must say "core"
```
A revoked certificate is in the revocation list; the broker reads list and rights anew on SIGHUP.
"""

from __future__ import annotations

from pathlib import Path

from cloud.identity.access import Access
from cloud.identity.broker.config import BrokerConfig
from cloud.identity.names import CORE_USER
from protocols.uplink.batch import MAX_BATCH_BYTES


def configuration(config: BrokerConfig, out: Path) -> str:
    def door(listen: str, *more: str) -> str:
        host, _, port = listen.rpartition(":")
        lines = [
            f"listener {port} {host.strip('[]')}",
            f"cafile {out / 'chain.pem'}",
            f"certfile {out / 'server.pem'}",
            f"keyfile {out / 'server.key'}",
            f"crlfile {out / 'revoked.crl'}",
            "require_certificate true",
            "use_identity_as_username true",
            "allow_anonymous false",
            f"acl_file {out / name}" if (name := more[0]) else "",
            "tls_version tlsv1.2",
            *more[1:],
        ]
        return "\n".join(line for line in lines if line)

    return f"""# Written by `citybrain cloud broker-rules`.
per_listener_settings true
persistence true
persistence_location {out / config.store_dir}/
autosave_interval 60
max_queued_messages 100000
max_inflight_messages 1000
message_size_limit {MAX_BATCH_BYTES + 4096}
max_packet_size {MAX_BATCH_BYTES + 8192}
{f"pid_file {config.reload_pid_file}" if config.reload_pid_file else ""}
{f"user {config.user}" if config.user else ""}

{door(config.listen, "gateways.acl", "use_username_as_clientid true")}

{door(config.core_listen, "core.acl")}
"""


def acl(access: Access) -> str:
    """Who may do what at the gateways' door. A user who is not in it may do nothing."""
    lines = ["# Written by `citybrain cloud broker-rules`."]
    for gateway, shard in access.gateways.items():
        prefix = f"cb/v1/{shard}/{gateway}"
        lines += [f"user {gateway}", f"topic write {prefix}/up/+", f"topic read {prefix}/down/+"]
    return "\n".join(lines) + "\n"


def files(config: BrokerConfig, out: Path, access: Access, crl: str) -> dict[str, str]:
    return {
        "mosquitto.conf": configuration(config, out),
        "gateways.acl": acl(access),
        "core.acl": f"# Written by `citybrain cloud broker-rules`.\nuser {CORE_USER}\ntopic readwrite cb/v1/#\n",
        "revoked.crl": crl,
    }
