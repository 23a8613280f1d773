"""The persistent MQTT session of one shard, ``cb-core-{shard}``: messages in, acknowledged by hand after the commit.

The broker keeps what we have not acknowledged, so a worker that dies loses nothing and the next one gets it. An
acknowledgement of a message that came over an earlier connection is not sent: its number may mean another one by now.
"""

from __future__ import annotations

import itertools
import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from cloud.ingest.config import BrokerConfig
from cloud.ingest.group import Inbound
from cloud.ingest.inbox import Inbox
from protocols.uplink import topics
from protocols.uplink import uplink_pb2 as pb

log = logging.getLogger("citybrain.cloud.ingest")

_CONNECT_TIMEOUT_S = 3.0
_PUT_S = 0.5


class ShardSession:
    """``inbox`` is bounded: when the database is slow, paho's thread waits, and so does the broker."""

    def __init__(
        self,
        config: BrokerConfig,
        base: Path,
        shard: int,
        inbox: Inbox,
        gateways: Callable[[], Sequence[str]],
    ) -> None:
        nodes = config.nodes()
        # Not all workers, and not all shards of one, at the same node of a cluster.
        self._nodes = itertools.cycle(nodes[shard % len(nodes) :] + nodes[: shard % len(nodes)])
        self._keepalive_s = config.keepalive_s
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
        client.reconnect_delay_set(1, 2 if len(nodes) > 1 else 5)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(1000)
        if config.username:
            password = (base / config.password_file).read_text(encoding="utf-8").strip() if config.password_file else ""
            client.username_pw_set(config.username, password)
        if nodes[0][0]:
            context = ssl.create_default_context(cafile=config.ca_file or None)
            client.tls_set_context(context)
            if config.cert_file:
                own = base / config.cert_file
                client.on_pre_connect = lambda *_: context.load_cert_chain(own)  # anew: it may have been renewed
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._next_node()
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: self._greet()
        self._next_node()
        client.loop_start()

    def _next_node(self) -> None:
        if not self._closing.is_set():
            _, host, port = next(self._nodes)
            self._client.connect_async(host, port, self._keepalive_s)

    def acknowledge_gateway(self, gateway: str, ack: pb.Ack) -> None:
        self._client.publish(topics.down(self.shard, gateway, "ack"), ack.SerializeToString(), qos=0)

    def _greet(self) -> None:
        """Tell the shard's gateways that somebody listens: what was published before has found no subscriber."""
        for gateway in self._gateways():
            self._client.publish(topics.down(self.shard, gateway, "hello"), b"", qos=0)

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
        self._next_node()

    def _on_message(self, client: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        generation, number, qos = self._generation, message.mid, message.qos

        def done() -> None:
            if qos and generation == self._generation:
                client.ack(number, qos)

        item = Inbound(message.topic, bytes(message.payload), done, self.shard)
        while not self._closing.is_set():
            if self._inbox.put(item, _PUT_S):
                return
