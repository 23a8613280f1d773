"""Updates: what is released, which rollouts are under way, how each gateway stands; pause, go on, abort."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nicegui import ui

from cloud.auth import policy
from cloud.console import marks
from cloud.console.said import said
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable
from cloud.updates import service
from cloud.updates.repository import Release, Repository
from cloud.updates.service import MemberRow, RolloutRow

_MOST = 200
#: How a state looks: as the states of devices do.
LOOK = {
    "running": "online", "paused": "stale", "stopped": "offline", "aborted": "unknown", "done": "online",
    "pending": "unknown", "offered": "unknown", "applying": "stale", "applied": "online", "refused": "offline",
    "failed": "offline", "rolled_back": "offline", "timed_out": "offline", "superseded": "unknown",
    "cancelled": "unknown",
}  # fmt: skip


@dataclass(frozen=True)
class _Data:
    rollouts: list[RolloutRow]
    members: list[MemberRow]
    releases: list[Release]


def build(tab: Tab, id: str = "") -> None:
    words = tab.words
    if not policy.allowed(tab.operator, "update.manage"):
        tab.no_view()
        with ui.element("div").classes("cb-page"):
            ui.html(marks.empty("rollouts", words("rollouts.only_admin"), ""), sanitize=False)
        return
    chosen = {"id": int(id) if id.isascii() and id.isdecimal() else 0}
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("rollouts.title"), words("rollouts.hint")), sanitize=False)
        table = DataTable(
            [
                {"key": "title", "label": words("rollouts.name"), "kind": "two"},
                {"key": "state", "label": words("rollouts.state"), "kind": "state"},
                {"key": "wave", "label": words("rollouts.wave"), "align": "r"},
                {"key": "have", "label": words("rollouts.have"), "align": "r"},
                {"key": "bad", "label": words("rollouts.bad"), "kind": "num", "align": "r"},
                {"key": "reason", "label": words("rollouts.reason")},
                {"key": "at", "label": words("rollouts.at"), "kind": "at", "align": "r"},
                {"key": "acts", "label": "", "kind": "acts", "align": "r"},
            ],
            empty=words("rollouts.none"),
            hint=words("rollouts.none_hint"),
        ).classes("cb-panel")
        with ui.element("div").classes("cb-cols").style("grid-template-columns:minmax(0,2fr) minmax(300px,1fr)"):
            with ui.element("section").classes("cb-panel"):
                member_head = ui.html("", sanitize=False, tag="header")
                members = DataTable(
                    [
                        {"key": "gateway", "label": words("rollouts.gateway"), "kind": "mono"},
                        {"key": "wave", "label": words("rollouts.wave"), "align": "r"},
                        {"key": "state", "label": words("rollouts.state"), "kind": "state"},
                        {"key": "detail", "label": words("rollouts.detail")},
                        {"key": "at", "label": words("rollouts.at"), "kind": "at", "align": "r"},
                    ],
                    empty=words("rollouts.no_member"),
                )
            with ui.element("section").classes("cb-panel"):
                ui.html(marks.esc(words("rollouts.releases")), sanitize=False, tag="header")
                releases = DataTable(
                    [
                        {"key": "what", "label": words("rollouts.release"), "kind": "two"},
                        {"key": "size", "label": words("rollouts.size"), "align": "r"},
                        {"key": "at", "label": words("rollouts.at"), "kind": "at", "align": "r"},
                    ],
                    empty=words("rollouts.no_release"),
                )

    async def load(_: Changes) -> _Data:
        def step(conn: Any) -> tuple[list[RolloutRow], list[MemberRow]]:
            found = service.rollouts(conn)
            known = {row.rollout_id for row in found}
            if found and chosen["id"] not in known:
                chosen["id"] = found[0].rollout_id
            return found, service.members(conn, chosen["id"], limit=_MOST) if chosen["id"] in known | {
                0
            } and found else []

        found, of_it = await tab.services.acts.run(step)
        settings = tab.services.settings.updates
        signed = Repository(Path(settings.folder)).releases() if settings is not None else []
        return _Data(found, of_it, signed[:_MOST])

    def show(data: _Data) -> None:
        table.put(
            rows=[_row(tab, row, row.rollout_id == chosen["id"]) for row in data.rollouts],
            loading=False,
            selected=str(chosen["id"]),
        )
        name = next((r.title for r in data.rollouts if r.rollout_id == chosen["id"]), "")
        member_head.set_content(f"{marks.esc(words('rollouts.members'))}<small>{marks.esc(name)}</small>")
        members.put(rows=[_member(tab, member) for member in data.members], loading=False)
        releases.put(rows=[_release(tab, release) for release in data.releases], loading=False)

    async def acted(args: dict[str, str]) -> None:
        number, what = int(args["id"]), args["name"]
        if what == "show":
            chosen["id"] = number
            tab.reload()
            return

        async def answered(_: str, reason: str) -> None:
            await tab.act(
                lambda who: _do(tab, number, what, who, reason), words("rollouts.said"), action="update.manage"
            )

        title = words(f"rollouts.ask_{what}", number=number)
        tab.ask(
            title, words(f"rollouts.ask_{what}_hint"), answered, field=words("rollouts.ask_reason"),
            reason=what == "abort", confirm=words(f"rollouts.{what}"), danger=what == "abort",
        )  # fmt: skip

    table.listen("act", acted)
    tab.set_view(load, show, every_s=3)


async def _do(tab: Tab, number: int, what: str, who: str, reason: str) -> None:
    def step(conn: Any) -> None:
        if what == "pause":
            service.pause(conn, number, who, reason)
        elif what == "resume":
            service.resume(conn, number, who, reason)
        elif what == "abort":
            service.abort(conn, number, who, datetime.now(UTC), reason)

    await tab.services.acts.run(step)


def _row(tab: Tab, row: RolloutRow, selected: bool) -> dict[str, Any]:
    words = tab.words
    bad = sum(wave[2] for wave in row.waves)
    acts = [] if selected else [{"name": "show", "label": words("rollouts.show"), "tone": ""}]
    if row.state == "running":
        acts.append({"name": "pause", "label": words("rollouts.pause"), "tone": ""})
    if row.state in ("paused", "stopped"):
        acts.append({"name": "resume", "label": words("rollouts.resume"), "tone": ""})
    if row.state in ("running", "paused", "stopped"):
        acts.append({"name": "abort", "label": words("rollouts.abort"), "tone": "danger"})
    have = row.counts["applied"]
    return {
        "id": str(row.rollout_id),
        "open": False,
        "cells": {
            "title": [row.title, f"#{row.rollout_id} · {row.created_by}"],
            "state": [LOOK[row.state], words(f"rollout_state.{row.state}")],
            "wave": f"{row.wave + 1} / {len(row.waves)}",
            "have": f"{have} / {row.gateways} · {100 * have // max(1, row.gateways)} %",
            "bad": [str(bad), "cb-state offline" if bad else "cb-dim"],
            "reason": said(words, row.reason),
            "at": marks.ms(row.created_at),
            "acts": acts,
        },
    }


def _member(tab: Tab, member: MemberRow) -> dict[str, Any]:
    return {
        "id": member.gateway_id,
        "open": False,
        "cells": {
            "gateway": member.gateway_id,
            "wave": str(member.wave + 1),
            "state": [LOOK[member.state], tab.words(f"rollout_state.{member.state}")],
            "detail": said(tab.words, member.detail),
            "at": marks.ms(member.ended_at or member.offered_at),
        },
    }


def _release(tab: Tab, release: Release) -> dict[str, Any]:
    words = tab.words
    fits = words("rollouts.any_platform") if release.platform == "any" else release.platform
    about = [words(f"rollouts.kind_{release.kind}"), fits, release.notes]
    return {
        "id": release.path,
        "open": False,
        "cells": {
            "what": [f"{release.name} {release.version}", " · ".join(part for part in about if part)],
            "size": f"{release.packed_bytes / 1e6:.1f} MB",
            "at": marks.ms(release.added_at),
        },
    }
