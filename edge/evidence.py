"""Evidence stills: masked pictures that go up in their own lane, in chunks, after everything else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from protocols.core.model import Event, EvidenceRef
from protocols.uplink.batch import EvidenceChunk

_CHUNK_BYTES = 128 << 10


@dataclass(frozen=True, slots=True)
class Still:
    """A JPEG in which faces and plates are masked, and its SHA-256."""

    jpeg: bytes
    sha256: str

    @property
    def ref(self) -> EvidenceRef:
        return EvidenceRef(self.sha256)

    def attach(self, event: Event) -> Event:
        return replace(event, evidence=(*event.evidence, self.ref))


def chunks(event: Event, still: Still) -> Iterator[EvidenceChunk]:
    """The still cut into pieces that each fit a batch."""
    device = event.source.partition("/")[0]
    for at in range(0, len(still.jpeg), _CHUNK_BYTES):
        yield EvidenceChunk(still.ref, device, event.ts_ms, len(still.jpeg), at, still.jpeg[at : at + _CHUNK_BYTES])
