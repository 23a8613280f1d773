"""Answers the broker's question "may this one come in, and what may it do?" (NATS authorization callout, ADR-26).

A list of users in the broker's file could not bind an MQTT client id to a certificate: whoever is let in could take
over the session of any other gateway, and of the core, by using its client id. Here each connection is asked for:
certificate, client id and revocation are looked at together, and no file is read again for ten thousand gateways.
The broker has verified chain and dates of the certificate before it asks.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from cloud.identity.access import Access
from cloud.identity.broker.nkeys import AccountKey, claims_of
from cloud.identity.ca import serial_of
from cloud.identity.names import CALLOUT_USER, gateway_of
from protocols.core.errors import ConfigError, LinkDown, LinkRefused

log = logging.getLogger("citybrain.cloud.identity")

_ASK = "$SYS.REQ.USER.AUTH"
_LINE_BYTES = 1 << 16
_MESSAGE_BYTES = 1 << 20
_ANSWER_S = 5.0


def permissions(gateway: str, shard: int) -> dict[str, Any]:
    """Rights in NATS subjects: publish below its own up, hear its own down; ``$MQTT.sub.>`` delivers QoS 1."""
    prefix = f"cb.v1.{shard}.{gateway}"
    return {
        "pub": {"allow": [f"{prefix}.up.*", "$MQTT.sub.>", "$MQTT.deliver.pubrel.>"]},
        "sub": {"allow": [f"{prefix}.down.*", "$MQTT.sub.>"]},
    }


class Decider:
    """``access`` gives the newest table. ``counts``: admitted, and refused by reason."""

    def __init__(self, key: AccountKey, access: Callable[[], Access], account: str = "$G") -> None:
        self._key = key
        self._access = access
        self._account = account
        self.counts: Counter[str] = Counter()

    def answer(self, token: str, now_s: float) -> str:
        """The broker's request token to our answer token. Raises ValueError for what is no request."""
        ask = claims_of(token)
        asked = ask.get("nats")
        if not isinstance(asked, dict):
            raise ValueError("not an authorization request")
        user = str(asked["user_nkey"])
        server = str(asked["server_id"]["id"])
        said: dict[str, Any] = {"type": "authorization_response", "version": 2}
        gateway, shard, until_s, refusal = self._decide(asked)
        if refusal:
            self.counts[f"refused_{refusal}"] += 1
            log.warning("refused at the broker: %s (%s)", gateway[:64], refusal)
            said["error"] = refusal
        else:
            self.counts["admitted"] += 1
            said["jwt"] = self._key.sign(
                {
                    "jti": user,
                    "iat": int(now_s),
                    "exp": int(until_s),  # the broker ends the session when the certificate does
                    "sub": user,
                    "aud": self._account,
                    "name": gateway,
                    "nats": {
                        **permissions(gateway, shard),
                        "subs": -1,
                        "data": -1,
                        "payload": -1,
                        "allowed_connection_types": ["MQTT"],
                        "type": "user",
                        "version": 2,
                    },
                }
            )
        return self._key.sign({"jti": user, "iat": int(now_s), "sub": user, "aud": server, "nats": said})

    def _decide(self, asked: Mapping[str, Any]) -> tuple[str, int, float, str]:
        """(gateway, shard, end of its certificate, why not)."""
        info = asked.get("client_info") or {}
        client_id = str(info.get("mqtt_id", ""))
        chains = (asked.get("client_tls") or {}).get("verified_chains") or []
        if not chains or not chains[0]:
            return client_id, 0, 0.0, "certificate"
        certificate = x509.load_pem_x509_certificate(str(chains[0][0]).encode())
        gateway = gateway_of(certificate)
        if gateway is None:
            return client_id, 0, 0.0, "name"
        access = self._access()
        shard = access.gateways.get(gateway)
        if serial_of(certificate) in access.revoked:
            return gateway, 0, 0.0, "revoked"
        if shard is None:
            return gateway, 0, 0.0, "stranger"
        if client_id != gateway:
            return gateway, 0, 0.0, "client_id"
        return gateway, shard, certificate.not_valid_after_utc.timestamp(), ""


class Callout:
    """One connection to the broker's own port, serving until it is lost. Several may serve together."""

    def __init__(self, url: str, password: str, decider: Decider, now_s: Callable[[], float]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "nats" or not parts.hostname:
            raise ConfigError(f"callout url {url!r} is not nats://host:port")
        self._host, self._port = parts.hostname, parts.port or 4222
        self._password = password
        self._decider = decider
        self._now_s = now_s
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Raises LinkDown when the connection is gone, LinkRefused when the broker does not know us."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=_LINE_BYTES)
        except (OSError, TimeoutError) as error:
            raise LinkDown(f"broker {self._host}:{self._port}: {error or 'no answer'}") from error
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            raise LinkDown(f"broker {self._host}:{self._port}: {error}") from error
        finally:
            self.ready.clear()
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")  # INFO
        login = {
            "user": CALLOUT_USER, "pass": self._password, "verbose": False, "pedantic": False, "lang": "python",
            "version": "1", "protocol": 1, "headers": True, "name": CALLOUT_USER,
        }  # fmt: skip
        writer.write(f"CONNECT {json.dumps(login)}\r\nSUB {_ASK} {CALLOUT_USER} 1\r\nPING\r\n".encode())
        while True:
            line = (await reader.readuntil(b"\r\n"))[:-2].decode("utf-8", "replace")
            word, _, rest = line.partition(" ")
            if word == "PING":
                writer.write(b"PONG\r\n")
            elif word == "PONG":
                self.ready.set()
            elif word in ("MSG", "HMSG"):
                await self._message(reader, writer, word, rest.split())
            elif word == "-ERR":
                if "Authorization" in rest:
                    raise LinkRefused(f"broker {self._host}:{self._port} does not know {CALLOUT_USER}: {rest}")
                raise LinkDown(f"broker {self._host}:{self._port}: {rest}")
            await writer.drain()

    async def _message(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: str, fields: list[str]
    ) -> None:
        """``MSG subject sid [reply] bytes`` or ``HMSG subject sid [reply] header-bytes bytes``."""
        lengths = 2 if word == "HMSG" else 1
        if len(fields) < 2 + lengths or not all(text.isdecimal() for text in fields[-lengths:]):
            raise ValueError(f"unreadable line of the broker: {word} {' '.join(fields)[:120]}")
        total = int(fields[-1])
        if total > _MESSAGE_BYTES:
            raise ValueError(f"a request of {total} bytes")
        payload = (await reader.readexactly(total + 2))[:-2]
        reply = fields[2] if len(fields) == 3 + lengths else ""
        body = payload[int(fields[-2]) :] if word == "HMSG" else payload
        if not reply:
            return
        try:
            answer = self._decider.answer(body.decode(), self._now_s()).encode()
        except (ValueError, KeyError, TypeError) as error:
            self._decider.counts["unreadable"] += 1
            log.warning("the broker asked what we cannot read: %s", error)
            return
        writer.write(b"PUB %s %d\r\n%s\r\n" % (reply.encode(), len(answer), answer))
