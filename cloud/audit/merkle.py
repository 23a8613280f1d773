"""A Merkle tree after RFC 6962, section 2.1, with SHA-256: hashes, proofs, and how to check them. No I/O.

The tree over n leaves is split at the largest power of two below n. A *complete* subtree (level, position) covers the
leaves [position << level, (position + 1) << level) and never changes once it is full, so its hash may be kept; every
other hash is made from those. Proof checking follows the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()

#: (level, position) of a complete subtree; level 0 is a leaf.
Node = tuple[int, int]
#: A half-open range of leaves whose subtree hash a proof holds.
Span = tuple[int, int]


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below ``size`` (≥ 2)."""
    return 1 << ((size - 1).bit_length() - 1)


class Frontier:
    """The right edge of a growing tree: one hash for each complete subtree of its size. O(log n) memory."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """``hashes``: those of :func:`edge_nodes`, in that order."""
        self.size = size
        self._stack = list(hashes)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf by its hash; the nodes (level ≥ 1, position, hash) that became complete by it."""
        made: list[tuple[int, int, bytes]] = []
        here, position, level = leaf, self.size, 0
        while position & 1:
            here = node_hash(self._stack.pop(), here)
            position >>= 1
            level += 1
            made.append((level, position, here))
        self._stack.append(here)
        self.size += 1
        return made

    def root(self) -> bytes:
        """MTH of RFC 6962 over all leaves so far."""
        if not self._stack:
            return EMPTY_ROOT
        root = self._stack[-1]
        for left in reversed(self._stack[:-1]):
            root = node_hash(left, root)
        return root


def edge_nodes(size: int) -> list[Node]:
    """The complete subtrees a tree of this size is made of, the largest first."""
    return [(level, (size >> level) - 1) for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Whose hashes prove that leaf ``index`` is in the tree of ``size``: PATH(m, D[n]), from the leaf upwards."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    begin, end, out = 0, size, []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            out.append((middle, end))
            end = middle
        else:
            out.append((begin, middle))
            begin = middle
    return out[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """Whose hashes prove that the tree of ``old`` leaves is the beginning of that of ``new``: PROOF(m, D[n])."""
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof from {old} to {new}")
    begin, end, whole, out = 0, new, True, []
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            out.append((middle, end))
            end = middle
        else:
            out.append((begin, middle))
            begin, whole = middle, False
    if not whole:
        out.append((begin, end))
    return out[::-1]


def nodes_of(span: Span) -> list[Node]:
    """The complete subtrees a span of a proof is made of, from left to right."""
    begin, end = span
    size = end - begin
    return [(level, (begin >> level) + position) for level, position in edge_nodes(size)]


def span_hash(span: Span, get: Callable[[int, int], bytes]) -> bytes:
    """The hash of a span out of kept nodes, ``get(level, position)``."""
    hashes = [get(level, position) for level, position in nodes_of(span)]
    here = hashes[-1]
    for left in reversed(hashes[:-1]):
        here = node_hash(left, here)
    return here


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that the proof leads to (RFC 9162, 2.1.3.2). Raises ValueError where it cannot be one."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    first, last, here = index, size - 1, leaf
    for hash_ in proof:
        if last == 0:
            raise ValueError("the proof is too long")
        if first & 1 or first == last:
            here = node_hash(hash_, here)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            here = node_hash(here, hash_)
        first >>= 1
        last >>= 1
    if last:
        raise ValueError("the proof is too short")
    return here


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that nothing of the old tree was changed (RFC 9162, 2.1.4.2)."""
    if old == new:
        return not proof and old_root == new_root
    if not 0 < old < new or not proof:
        return False
    hashes: Iterator[bytes] = iter(proof)
    here = old_here = old_root if old & (old - 1) == 0 else next(hashes)
    first, last = old - 1, new - 1
    while first & 1:
        first >>= 1
        last >>= 1
    for hash_ in hashes:
        if last == 0:
            return False
        if first & 1 or first == last:
            old_here = node_hash(hash_, old_here)
            here = node_hash(hash_, here)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            here = node_hash(here, hash_)
        first >>= 1
        last >>= 1
    return last == 0 and old_here == old_root and here == new_root
