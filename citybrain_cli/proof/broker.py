"""What the broker still holds: messages that arrived there and wait for the core. By NATS' monitoring page only."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class BrokerBook:
    """``pending``: not yet delivered to the core's sessions; ``unacknowledged``: delivered, not yet confirmed.
    ``sessions``: of the core. ``looked`` False: nobody looked, ``why`` says it."""

    looked: bool
    why: str = ""
    stored: int = 0
    pending: int = 0
    unacknowledged: int = 0
    sessions: int = 0


def look(url: str) -> BrokerBook:
    """``url``: of the monitoring page, as http://127.0.0.1:8222; empty: do not look."""
    if not url:
        return BrokerBook(False, "no --monitor given")
    if not url.startswith(("http://", "https://")):
        return BrokerBook(False, f"{url!r} is no http address")
    try:
        with urllib.request.urlopen(  # noqa: S310 - the scheme is checked above
            f"{url.rstrip('/')}/jsz?streams=true&consumers=true&config=true", timeout=_TIMEOUT_S
        ) as answer:
            page = json.loads(answer.read(16 << 20))
    except (OSError, ValueError) as error:
        return BrokerBook(False, str(error))
    return _read(page)


def _read(page: Any) -> BrokerBook:
    stored = pending = waiting = sessions = 0
    try:
        for account in page.get("account_details") or []:
            for stream in account.get("stream_detail") or []:
                if stream["name"] == "$MQTT_msgs":
                    stored += int(stream["state"]["messages"])
                    for consumer in stream.get("consumer_detail") or []:
                        if ".up." not in json.dumps((consumer.get("config") or {}).get("filter_subject", "")):
                            continue
                        sessions += 1
                        pending += int(consumer["num_pending"])
                        waiting += int(consumer["num_ack_pending"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return BrokerBook(False, f"the page is not one of NATS' streams: {error!r}")
    return BrokerBook(True, "", stored, pending, waiting, sessions)
