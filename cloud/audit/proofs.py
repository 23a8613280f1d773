"""Checking a proof without the database: for the citizen, the court, the auditor who has only the public key."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.audit import heads, merkle
from cloud.audit.heads import Verifier
from cloud.audit.log import leaf_bytes
from cloud.audit.reads import Proof
from protocols.core.errors import ContractError


def check_proof(text: str, verifiers: Sequence[Verifier]) -> str:
    """What is wrong with a proof written as JSON; "" if it stands."""
    try:
        proof = msgspec.json.decode(text.encode(), type=Proof)
        path = [bytes.fromhex(hash_) for hash_ in proof.path]
    except (msgspec.MsgspecError, ValueError) as error:
        return f"it is no proof: {error}"
    origin = proof.head.partition("\n")[0]
    verifier = next((one for one in verifiers if one.name == origin), None)
    if verifier is None:
        return f"signed by {origin!r}, whose key was not given"
    try:
        head = heads.check(proof.head, verifier)
        leaf = merkle.leaf_hash(
            leaf_bytes(proof.entry_id, proof.at_us, proof.who, proof.action, proof.what, proof.detail)
        )
        root = merkle.root_from_inclusion(proof.leaf_index, head.size, leaf, path)
    except (ContractError, ValueError) as error:
        return str(error)
    return "" if root == head.root else "the entry is not the one that was sealed there"
