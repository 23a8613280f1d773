"""Ends a gateway's live session at any broker, by MQTT itself.

A second connection with the same client id ends the first (MQTT 3.1.1, 3.1.4-2); the core may use any client id, a
gateway only its own. The session is opened clean, so that what waits in the old one goes too.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from cloud.identity.names import CORE_USER
from protocols.core.errors import LinkDown

_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class CoreDoor:
    """Where and as whom the core connects. ``host``: as the broker's certificate names it."""

    host: str
    port: int
    root: Path
    certificate: Path  # with its key
    password: str = ""


def kick(door: CoreDoor, gateway_id: str) -> None:
    """Back when the broker has taken our connection, so has ended the other. Raises LinkDown."""
    taken = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=gateway_id, clean_session=True, protocol=mqtt.MQTTv311)
    context = ssl.create_default_context(cafile=str(door.root))
    context.load_cert_chain(door.certificate)
    client.tls_set_context(context)
    if door.password:
        client.username_pw_set(CORE_USER, door.password)
    client.connect_timeout = _ANSWER_S / 2
    client.on_connect = lambda _c, _u, _f, code, _p: None if code.is_failure else taken.set()
    try:
        client.connect(door.host, door.port, 10)
        client.loop_start()
        if not taken.wait(_ANSWER_S):
            raise LinkDown(
                f"broker {door.host}:{door.port} does not let the core in to end the session of {gateway_id}"
            )
    except OSError as error:
        raise LinkDown(f"broker {door.host}:{door.port}: {error}") from error
    finally:
        client.disconnect()
        client.loop_stop()
