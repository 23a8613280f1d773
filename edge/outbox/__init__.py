"""The durable queue between what the gateway has learnt and what the cloud has committed."""

from edge.outbox.model import Lost, NeverWritten, Opening, OutboxDamaged, OutboxDepth, Pending, Row
from edge.outbox.outbox import MOST_ON_THEIR_WAY, Outbox

__all__ = [
    "MOST_ON_THEIR_WAY", "Lost", "NeverWritten", "Opening", "Outbox", "OutboxDamaged", "OutboxDepth", "Pending", "Row",
]  # fmt: skip
