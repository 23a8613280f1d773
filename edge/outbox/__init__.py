"""The durable queue between what the gateway has learnt and what the cloud has committed."""

from edge.outbox.outbox import Outbox, OutboxDepth, Pending, Row

__all__ = ["Outbox", "OutboxDepth", "Pending", "Row"]
