"""The tree against a plain recursive reading of RFC 6962 and against the vectors every implementation shares."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.audit import merkle

#: The eight leaves of the known test tree of Certificate Transparency (transparency-dev/merkle, testonly; Apache-2.0).
LEAVES = tuple(bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
))  # fmt: skip
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it stands there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]), section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b), section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


class Kept:
    """What a database keeps: leaves and complete subtrees, each made once."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.frontier = merkle.Frontier()
        self.nodes: dict[tuple[int, int], bytes] = {}
        for number, leaf in enumerate(leaves):
            hash_ = merkle.leaf_hash(leaf)
            self.nodes[0, number] = hash_
            for level, position, made in self.frontier.append(hash_):
                assert (level, position) not in self.nodes
                self.nodes[level, position] = made

    def hashes(self, spans: list[tuple[int, int]]) -> list[bytes]:
        return [merkle.span_hash(span, lambda level, position: self.nodes[level, position]) for span in spans]


def test_the_vectors_everybody_shares() -> None:
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    frontier = merkle.Frontier()
    assert frontier.root() == merkle.EMPTY_ROOT
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        frontier.append(merkle.leaf_hash(leaf))
        assert frontier.root().hex() == root
    kept = Kept(list(LEAVES))
    assert [h.hex() for h in kept.hashes(merkle.inclusion_spans(5, 8))] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [h.hex() for h in kept.hashes(merkle.consistency_spans(6, 8))] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=70), st.data())
def test_roots_and_proofs_are_those_of_the_definition(leaves: list[bytes], data: st.DataObject) -> None:
    kept = Kept(leaves)
    size = len(leaves)
    assert kept.frontier.root() == mth(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = kept.hashes(merkle.inclusion_spans(index, size))
    assert proof == path(index, leaves)
    assert merkle.root_from_inclusion(index, size, merkle.leaf_hash(leaves[index]), proof) == mth(leaves)
    old = data.draw(st.integers(1, size))
    proof = kept.hashes(merkle.consistency_spans(old, size))
    assert proof == subproof(old, leaves, True)
    assert merkle.check_consistency(old, size, mth(leaves[:old]), mth(leaves), proof)
    edge = merkle.edge_nodes(old)
    again = merkle.Frontier(old, [kept.nodes[node] for node in edge])
    assert again.root() == mth(leaves[:old])
    for leaf in leaves[old:]:
        again.append(merkle.leaf_hash(leaf))
    assert again.root() == mth(leaves)


@given(st.integers(2, 40), st.data())
def test_a_proof_of_something_else_is_no_proof(size: int, data: st.DataObject) -> None:
    leaves = [bytes([n]) for n in range(size)]
    kept = Kept(leaves)
    root = kept.frontier.root()
    index = data.draw(st.integers(0, size - 1))
    proof = kept.hashes(merkle.inclusion_spans(index, size))
    leaf = merkle.leaf_hash(leaves[index])
    wrong_index = data.draw(st.integers(0, size - 1).filter(lambda n: n != index))
    assert _root(wrong_index, size, leaf, proof) != root
    assert _root(index, size, merkle.leaf_hash(b"another"), proof) != root
    assert _root(index, size, leaf, proof[:-1]) != root
    assert _root(index, size, leaf, [*proof, leaf]) != root
    at = data.draw(st.integers(0, len(proof) - 1))
    bent = [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
    assert _root(index, size, leaf, bent) != root
    old = data.draw(st.integers(1, size - 1))
    spans = kept.hashes(merkle.consistency_spans(old, size))
    old_root = mth(leaves[:old])
    assert merkle.check_consistency(old, size, old_root, root, spans)
    assert not merkle.check_consistency(old, size, mth([b"x", *leaves[1:old]]), root, spans)
    assert not merkle.check_consistency(old, size, old_root, root, spans[:-1])
    assert not merkle.check_consistency(old, size, old_root, root, [*spans, root])
    assert not merkle.check_consistency(old, size, old_root, leaf, spans)


def _root(index: int, size: int, leaf: bytes, proof: list[bytes]) -> bytes:
    try:
        return merkle.root_from_inclusion(index, size, leaf, proof)
    except ValueError:
        return b""


def test_what_is_outside_the_tree_is_refused() -> None:
    for index, size in ((-1, 4), (4, 4), (0, 0)):
        with pytest.raises(ValueError):
            merkle.inclusion_spans(index, size)
        with pytest.raises(ValueError):
            merkle.root_from_inclusion(index, size, b"", [])
    for old, new in ((0, 4), (5, 4)):
        with pytest.raises(ValueError):
            merkle.consistency_spans(old, new)
