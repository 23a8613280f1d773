"""The audit log: what was done by whom, kept so that a change to it shows."""

from cloud.audit.log import Entry, arecord, record

__all__ = ["Entry", "arecord", "record"]
