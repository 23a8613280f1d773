"""The proof as text: one block a gateway, the worst last, where the eye ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from citybrain_cli.proof.prove import GatewayProof, LaneProof

_CONTENT = {
    "equal": "equal",
    "differs": "DIFFERS",
    "not_comparable": "not comparable (rows set aside)",
    "not_at_rest": "not at rest",
    "not_compared": "not compared yet",
}
_RANGES = 20


def text(proofs: Sequence[GatewayProof], broker: Mapping[str, Any], sensors: Mapping[str, Any] | None) -> str:
    lines: list[str] = []
    for proof in sorted(proofs, key=lambda one: (not one.sound, one.gateway), reverse=False):
        lines += _gateway(proof)
    if broker["looked"]:
        lines.append(
            f"broker: {broker['stored']} messages stored, {broker['pending']} on their way to the core, "
            f"{broker['unacknowledged']} not yet confirmed by it"
        )
    else:
        lines.append(f"broker: not looked at ({broker['why']})")
    if sensors is not None:
        lines.append(
            f"simulated devices: {sensors['uploads_acknowledged']} uploads acknowledged, "
            f"{sensors['uploads_thinned']} gave way as declared, {sensors['uploads_lost']} are not in the database"
        )
        lines += [f"  not there: {upload}" for upload in sensors.get("lost_uploads", ())]
    bad = [proof.gateway for proof in proofs if not proof.sound]
    if (sensors or {}).get("uploads_lost"):
        bad.append("devices")
    lines.append(
        f"MISSING without a reason 有原因不明的缺失: {', '.join(bad)}"
        if bad
        else "nothing is missing without a reason 账目相符"
    )
    return "\n".join(lines)


def _gateway(proof: GatewayProof) -> list[str]:
    rows = "rows not counted" if proof.rows is None else f"{proof.rows} rows in the table"
    order = "order not looked at" if proof.reordered is None else f"{proof.reordered} reordered"
    lines = [
        f"{proof.gateway}: readings {proof.produced} produced, {proof.committed} committed ({rows}), "
        f"{proof.thinned} thinned, {proof.waiting_rows} rows waiting, {proof.lost} lost, "
        f"{proof.duplicated} duplicated, {order}"
    ]
    for lane in proof.lanes:
        lines += _lane(lane)
    lines += [f"  note: {note}" for note in proof.notes]
    lines += [f"  MISSING: {problem}" for problem in proof.problems]
    return [*lines, ""]


def _lane(lane: LaneProof) -> list[str]:
    produced = "?" if lane.produced is None else str(lane.produced)
    lines = [
        f"  {lane.lane:<9}epoch {lane.epoch}: rows {lane.committed_rows} of {lane.produced_rows}"
        f" ({lane.waiting_rows} waiting, {lane.lost_rows} lost, {lane.repeats_recognised} repeats recognised);"
        f" readings {lane.committed} of {produced}, {lane.thinned} thinned; {lane.events} events;"
        f" content {_CONTENT[lane.content]} (by {lane.source})"
    ]
    lines += [f"    {one}" for one in lane.ranges[:_RANGES]]
    if len(lane.ranges) > _RANGES:
        lines.append(f"    ... and {len(lane.ranges) - _RANGES} ranges more")
    return lines
