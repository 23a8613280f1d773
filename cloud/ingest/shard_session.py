"""The persistent MQTT session of one shard, ``cb-core-{shard}``: messages in, acknowledged by hand after the commit.

The broker keeps what we have not acknowledged, so a worker that dies loses nothing and the next one gets it. An
acknowledgement of a message that came over an earlier connection is not sent: its number may mean another one by now.
"""

from __future__ import annotations

import logging
import queue
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from cloud.ingest.config import BrokerConfig
from cloud.ingest.group import Inbound
from protocols.core.errors import ConfigError
from protocols.uplink import topics
from protocols.uplink import uplink_pb2 as pb

log = logging.getLogger("citybrain.cloud.ingest")


class ShardSession:
    """``inbox`` is bounded: when the database is slow, paho's thread waits, and so does the broker."""

    def __init__(
        self,
        config: BrokerConfig,
        base: Path,
        shard: int,
        inbox: queue.Queue[Inbound],
        gateways: Callable[[], Sequence[str]],
    ) -> None:
        parts = urlsplit(config.url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ConfigError(f"broker.url {config.url!r}: mqtt://host:port or mqtts://host:port")
        self.shard = shard
        self._inbox = inbox
        self._gateways = gateways
        self._generation = 0
        self._closing = threading.Event()
        self.connected = False
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"cb-core-{shard}",
            clean_session=False,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
        )
        client.reconnect_delay_set(1, 10)
        client.max_inflight_messages_set(1000)
        if config.username:
            password = (base / config.password_file).read_text(encoding="utf-8").strip() if config.password_file else ""
            client.username_pw_set(config.username, password)
        if parts.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context(cafile=config.ca_file or None))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: self._greet()
        client.connect_async(
            parts.hostname, parts.port or (8883 if parts.scheme == "mqtts" else 1883), config.keepalive_s
        )
        client.loop_start()

    def acknowledge_gateway(self, gateway: str, ack: pb.Ack) -> None:
        self._client.publish(topics.down(self.shard, gateway, "ack"), ack.SerializeToString(), qos=1)

    def _greet(self) -> None:
        """Tell the shard's gateways that somebody listens: what was published before has found no subscriber."""
        for gateway in self._gateways():
            self._client.publish(topics.down(self.shard, gateway, "hello"), b"", qos=1)

    def send_down(self, gateway: str, channel: str, payload: bytes) -> Callable[[], bool]:
        """Publish an order or a document; the result says whether the broker has confirmed it."""
        info = self._client.publish(topics.down(self.shard, gateway, channel), payload, qos=1)

        def confirmed() -> bool:
            try:
                return info.is_published()
            except (RuntimeError, ValueError):  # paho: not connected, or its queue was full
                return False

        return confirmed

    def close(self) -> None:
        self._closing.set()
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        if code.is_failure:
            log.error("shard %d: the broker refuses us: %s", self.shard, code)
            return
        self._generation += 1
        self.connected = True
        client.subscribe(topics.up_filter(self.shard), qos=1)
        log.info("shard %d: session up", self.shard)

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        if self.connected and not self._closing.is_set():
            log.warning("shard %d: broker lost: %s", self.shard, code)
        self.connected = False

    def _on_message(self, client: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        generation, number, qos = self._generation, message.mid, message.qos

        def done() -> None:
            if qos and generation == self._generation:
                client.ack(number, qos)

        item = Inbound(message.topic, bytes(message.payload), done)
        while not self._closing.is_set():
            try:
                self._inbox.put(item, timeout=0.5)
                return
            except queue.Full:
                continue
