"""EMQX: listeners, rights and bans as files. Written after its documentation (client-info authentication needs 5.9, or
5.8 Enterprise); not run here, for there is no EMQX in the test machine.

The gateways' door takes user name and client id from the certificate; rights are two patterns with the user's name in
them, which EMQX keeps in memory however many gateways there are. Rights by name do not know the shard: a gateway that
publishes below another shard under its own name is set aside by the core (``stranger``). Revoked gateways are in the
list of bans, to be loaded with ``emqx ctl data import`` or the REST call ``POST /api/v5/banned`` (one a line).
"""

from __future__ import annotations

import json
from pathlib import Path

from cloud.identity.access import Access
from cloud.identity.broker.config import BrokerConfig
from cloud.identity.names import CORE_USER


def files(config: BrokerConfig, out: Path, access: Access, crl: str) -> dict[str, str]:
    def door(name: str, listen: str, client_id: str) -> str:
        return f"""listeners.ssl.{name} {{
  bind = "{listen}"
  max_connections = 1024000
  mountpoint = ""
  ssl_options {{
    certfile = {json.dumps(str(out / "server.pem"))}
    keyfile = {json.dumps(str(out / "server.key"))}
    cacertfile = {json.dumps(str(out / "chain.pem"))}
    verify = verify_peer
    fail_if_no_peer_cert = true
    versions = ["tlsv1.3", "tlsv1.2"]
  }}
}}
{client_id}"""

    gateways = door("gateways", config.listen, "")
    core = door("core", config.core_listen, "")
    configuration = f"""# Written by `citybrain cloud broker-rules`.
{gateways}
{core}
mqtt {{
  peer_cert_as_username = cn
  max_packet_size = 1MB
  max_mqueue_len = 100000
  exclusive_subscription = false
  shared_subscription = false
  wildcard_subscription = true
}}
# Only the core may choose its client ids; a gateway whose client id is not its certificate's name is turned away.
authentication = [{{
  mechanism = cinfo
  checks = [
    {{ is_match = "str_eq(cert_common_name, '{CORE_USER}')", result = allow }}
    {{ is_match = "str_eq(clientid, cert_common_name)", result = allow }}
    {{ is_match = "str_neq(clientid, cert_common_name)", result = deny }}
  ]
}}]
authorization {{
  no_match = deny
  deny_action = disconnect
  sources = [{{ type = file, enable = true, path = {json.dumps(str(out / "acl.conf"))} }}]
}}
"""
    acl = f"""%% Written by `citybrain cloud broker-rules`.
{{allow, {{user, "{CORE_USER}"}}, all, ["cb/v1/#"]}}.
{{deny, all, all, ["$SYS/#", "$share/#", "$queue/#", "$exclusive/#", "$delayed/#"]}}.
{{allow, all, publish, ["cb/v1/+/${{username}}/up/+"]}}.
{{allow, all, subscribe, ["cb/v1/+/${{username}}/down/+"]}}.
{{deny, all}}.
"""
    bans = "".join(
        json.dumps({"as": "username", "who": gateway, "reason": "revoked", "until": "infinity"}) + "\n"
        for gateway in access.shut_out
    )
    return {"emqx.conf": configuration, "acl.conf": acl, "banned.jsonl": bans, "revoked.crl": crl}
