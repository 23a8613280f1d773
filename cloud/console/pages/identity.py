"""Identities: which gateway may come in and how long, claims for new ones, and devices that wait to be accepted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from cloud.auth import policy
from cloud.auth.sight import place
from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable
from cloud.identity import label
from cloud.identity.claims import Made, Wanted
from cloud.identity.codes import label_text
from cloud.identity.desk import IdentityDesk
from cloud.query import identity as query

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LOOK = {"valid": "online", "claimed": "stale", "ended": "stale", "revoked": "offline", "none": "unknown"}


@dataclass(frozen=True)
class _Data:
    gateways: list[query.Identity]
    pending: list[query.Pending]


def build(tab: Tab) -> None:
    words = tab.words
    found = tab.services.identity
    label_box: list[Any] = []  # where a new label is shown; made after the button that fills it
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("identity.title"), words("identity.hint")), sanitize=False)
            if found is not None and found.settings is not None and tab.may("gateway.enrol"):
                desk = found
                with ui.element("div").classes("right"):
                    button = ui.element("button").classes("cb-btn primary").props("data-claim")
                    with button:
                        ui.html(f"＋ {words('identity.claim')}", sanitize=False, tag="span")
                    button.on("click", lambda: _ask_claim(tab, desk, label_box[0]))
        shown = ui.element("section").classes("cb-panel").style("flex:none").props("data-label")
        shown.set_visibility(False)
        label_box.append(shown)
        with ui.element("section").classes("cb-panel").style("flex:none"):
            ui.html(marks.esc(words("identity.pending")), sanitize=False, tag="header")
            waiting = DataTable(
                [
                    {"key": "device", "label": words("identity.device"), "kind": "two"},
                    {"key": "gateway", "label": words("identity.gateway"), "kind": "mono"},
                    {"key": "source", "label": words("identity.source"), "kind": "two"},
                    {"key": "times", "label": words("identity.times"), "align": "r"},
                    {"key": "last", "label": words("identity.last"), "kind": "age", "align": "r"},
                    {"key": "acts", "label": "", "kind": "acts", "align": "r"},
                ],
                empty=words("identity.none_pending"),
                hint=words("identity.none_pending_hint"),
            )
        gateways = (
            DataTable(
                [
                    {"key": "name", "label": words("identity.gateway"), "kind": "two"},
                    {"key": "shard", "label": words("identity.shard"), "align": "r"},
                    {"key": "state", "label": words("identity.state"), "kind": "state"},
                    {"key": "until", "label": words("identity.until"), "kind": "at"},
                    {"key": "admission", "label": words("identity.admission"), "kind": "chip"},
                    {"key": "acts", "label": "", "kind": "acts", "align": "r"},
                ],
                empty=words("identity.empty"),
            )
            .classes("cb-panel")
            .style("flex:none")
        )

    async def load(_: Changes) -> _Data:
        async with tab.services.pool.connection() as conn:
            return _Data(await query.identities(conn, tab.sight), await query.pending(conn, tab.sight))

    def show(data: _Data) -> None:
        waiting.put(rows=[_pending(tab, one) for one in data.pending], loading=False)
        # Who cannot come in any more stands on top: nobody else will say so.
        ordered = sorted(data.gateways, key=lambda one: one.state != "ended")
        gateways.put(rows=[_gateway(tab, one) for one in ordered], loading=False)

    async def decided(args: dict[str, str]) -> None:
        gateway, _, device = args["id"].partition("/")
        if found is None:
            return
        accepted = args["name"] == "accept"

        async def step(who: str) -> None:
            await found.decide(gateway, device, "accepted" if accepted else "rejected", who)

        said = words("identity.accepted" if accepted else "identity.rejected", device=device)
        await tab.act(step, said, action="device.accept", thing=("gateway", gateway))

    async def acted(args: dict[str, str]) -> None:
        if found is None:
            return
        gateway = args["id"]
        if args["name"] == "revoke":
            _ask_revoke(tab, found, gateway)
            return
        mode: Any = args["name"]  # "auto" or "accept", as _gateway wrote it

        async def step(who: str) -> None:
            await found.set_admission(gateway, mode, who)

        await tab.act(step, words("identity.saved"), action="device.accept", thing=("gateway", gateway))

    waiting.listen("act", decided)
    gateways.listen("act", acted)
    tab.set_view(load, show, every_s=5)


def _ask_revoke(tab: Tab, desk: IdentityDesk, gateway: str) -> None:
    words = tab.words

    async def answered(_: str, reason: str) -> None:
        async def step(who: str) -> None:
            await desk.revoke(gateway, who, reason)

        await tab.act(
            step, words("identity.revoked", gateway=gateway), action="gateway.revoke", thing=("gateway", gateway)
        )

    tab.ask(
        words("identity.ask_revoke", gateway=gateway), words("identity.ask_revoke_hint"), answered,
        field=words("identity.reason"), reason=True, confirm=words("identity.revoke"), danger=True,
    )  # fmt: skip


def _ask_claim(tab: Tab, desk: IdentityDesk, shown: Any) -> None:
    words = tab.words

    async def answered(_: str, name: str) -> None:
        if not _ID.fullmatch(name):
            tab.toast(words("identity.bad_name"), bad=True)
            return
        made: list[Made] = []
        where = await _where(tab, name)

        async def step(who: str) -> None:
            made.append(await desk.claim(Wanted(name, place=where), who, None))

        scope = None if where is None else policy.Scope(frozenset({where[1]} - {""}), where[0])
        if await tab.act(step, words("identity.claimed", gateway=name), action="gateway.enrol", where=scope):
            _, fingerprint = await desk.root()
            _show_label(tab, desk, made[0], fingerprint, shown)

    tab.ask(
        words("identity.claim"), words("identity.claim_hint"), answered,
        field=words("identity.gateway_id"), line=True, reason=True,
    )  # fmt: skip


async def _where(tab: Tab, gateway: str) -> tuple[str, str] | None:
    """District and department of the claim: where the gateway lies, else where this operator may enter one. None: he
    may anywhere, and the place is given later."""
    grants = policy.places(tab.operator, "gateway.enrol")
    if not grants or grants[0].city_wide:
        return None
    async with tab.services.pool.connection() as conn:
        there = await place(conn, "gateway", gateway)
    if there is not None:
        return there.district, next(iter(there.departments), "")
    first = grants[0]
    return (
        "" if first.district == policy.ANY else first.district,
        "" if first.department == policy.ANY else first.department,
    )


def _show_label(tab: Tab, desk: IdentityDesk, made: Made, fingerprint: str, shown: Any) -> None:
    """The code is shown this once; it is kept nowhere."""
    if desk.settings is None:
        return
    picture = label.qr_svg(label_text(desk.settings.public_url, made.code, fingerprint))
    words = tab.words
    shown.clear()
    with shown:
        ui.html(
            f"{marks.esc(made.gateway_id)}<small>{marks.esc(words('identity.once'))}</small>",
            sanitize=False,
            tag="header",
        )
        with ui.element("div").classes("body cb-label").style("display:flex;gap:20px;align-items:center"):
            ui.html(picture, sanitize=False).style("background:#fff;padding:6px;border-radius:6px")
            ui.html(
                marks.kv(
                    [
                        (words("identity.code"), made.code.text),
                        (words("identity.shard"), str(made.shard)),
                        (words("identity.until"), marks.at(made.expires_at)),
                        (words("identity.fingerprint"), fingerprint),
                    ]
                ),
                sanitize=False,
            )
    shown.set_visibility(True)


def _gateway(tab: Tab, one: query.Identity) -> dict[str, Any]:
    words = tab.words
    until = one.claim_until if one.state == "claimed" else one.not_after
    other = "auto" if one.admission == "accept" else "accept"
    acts: list[dict[str, str]] = []
    if tab.may("device.accept"):
        acts.append({"name": other, "label": words(f"identity.to_{other}"), "tone": ""})
    if tab.may("gateway.revoke") and one.state in ("valid", "ended", "claimed"):
        acts.append({"name": "revoke", "label": words("identity.revoke"), "tone": "danger"})
    return {
        "id": one.gateway_id,
        "open": False,
        "cells": {
            "name": [words.either(one.name_zh, one.name_en, one.gateway_id), one.gateway_id],
            "shard": str(one.shard),
            "state": [_LOOK[one.state], words(f"identity.state_{one.state}")],
            "until": marks.ms(until),
            "admission": words("identity.auto" if one.admission == "auto" else "identity.asked"),
            "acts": acts,
        },
    }


def _pending(tab: Tab, one: query.Pending) -> dict[str, Any]:
    words = tab.words
    acts = [
        {"name": "accept", "label": words("identity.accept"), "tone": "primary"},
        {"name": "reject", "label": words("identity.reject"), "tone": ""},
    ]
    return {
        "id": f"{one.gateway_id}/{one.device_id}",
        "open": False,
        "cells": {
            "device": [one.device_id, words.device_type(one.device_type)],
            "gateway": one.gateway_id,
            "source": [words(f"identity.from_{one.source}"), one.detail],
            "times": str(one.times),
            "last": marks.ms(one.last_at),
            "acts": acts if tab.may("device.accept") else [],
        },
    }
