"""The case desk: on the left what is open, the tightest first; on the right one case, its clocks and its buttons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nicegui import ui

from cloud.auth import policy, sight
from cloud.cases.flows import FLOWS, Action
from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import CaseList, Clocks, FilterBar
from cloud.query import cases
from cloud.query.cursor import Page
from cloud.query.rows import Alarm, Case, CaseDetail, Transition
from protocols.core.errors import CityBrainError
from protocols.core.model import LEVEL_RANK
from protocols.vocabulary import departments, event_types

_PAGE = 50
#: The straight way through a flow, as the steps are drawn; states beside it are drawn at the step they interrupt.
_WAY = {
    "event": ("reported", "accepted", "filed", "dispatched", "in_progress", "fed_back", "checked", "closed"),
    "emergency": ("candidate", "confirmed", "responding_1", "controlled", "recovering", "reviewed", "closed"),
}
_BESIDE = {"returned": "dispatched", "mediated": "dispatched", "reopened": "dispatched", "suspended": "in_progress",
           "not_filed": "accepted", "merged": "accepted", "void": "accepted", "false_alarm": "confirmed",
           "responding_2": "responding_1", "responding_3": "responding_1", "responding_4": "responding_1"}  # fmt: skip
_BACKWARD = frozenset({"return", "not_file", "merge", "send_back", "false_alarm", "suspend", "reopen", "mediate"})


@dataclass(frozen=True)
class _Data:
    page: Page[Case]
    chosen: CaseDetail | None
    actions: list[Action]
    may_act: bool


def build(tab: Tab, id: str = "") -> None:
    words = tab.words
    wanted: dict[str, Any] = {
        "id": int(id) if id.isdecimal() else None, "scope": "open", "text": "", "department": "",
    }  # fmt: skip
    size = {"limit": _PAGE}
    with ui.element("div").classes("cb-page").style("overflow:hidden"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("cases.title"), words("cases.hint")), sanitize=False)
            with ui.element("div").classes("right"):
                bar = FilterBar(
                    [
                        {"key": "text", "kind": "search", "placeholder": words("cases.search")},
                        {
                            "key": "scope",
                            "kind": "seg",
                            "value": "open",
                            "options": [
                                {"value": "open", "label": words("cases.open")},
                                {"value": "all", "label": words("cases.all")},
                            ],
                        },
                        {
                            "key": "department",
                            "kind": "select",
                            "placeholder": words("cases.all_departments"),
                            "options": [{"value": d, "label": words.department(d)} for d in departments()],
                        },
                    ]
                )
        with ui.element("div").classes("cb-desk"):
            listing = CaseList().classes("cb-panel cb-scroll")
            panel = ui.element("section").classes("cb-panel cb-scroll")
    listing.put(
        cases=[], loading=True, selected=wanted["id"], empty_title=words("cases.empty"),
        empty_hint=words("cases.empty_hint"), more="",
    )  # fmt: skip
    drawn: dict[str, Any] = {"data": "nothing"}

    async def load(_: Changes) -> _Data:
        async with tab.services.pool.connection() as conn:
            page = await cases.cases(
                conn, open_only=wanted["scope"] == "open", text=wanted["text"], department=wanted["department"],
                sight=tab.sight, limit=size["limit"],
            )  # fmt: skip
            if wanted["id"] is None and page.items:
                wanted["id"] = page.items[0].case_id
            chosen = await cases.case(conn, wanted["id"], sight=tab.sight) if wanted["id"] is not None else None
            scope = await sight.place(conn, "case", str(wanted["id"])) if chosen is not None else None
        actions: list[Action] = []
        may_act = scope is not None and policy.allowed(tab.operator, "case.act", scope)
        if chosen is not None and may_act:
            try:
                actions = await tab.services.acts.offers(chosen.case.case_id, tab.operator.name)
            except CityBrainError as error:
                tab.toast(str(error), bad=True)
        return _Data(page, chosen, actions, may_act)

    def show(data: _Data) -> None:
        listing.put(
            cases=[_card(tab, c) for c in data.page.items],
            loading=False,
            selected=wanted["id"],
            more=words("common.more") if data.page.next_cursor else "",
        )
        key = (data.chosen, data.actions)
        if key != drawn["data"]:
            drawn["data"] = key
            panel.clear()
            with panel:
                if data.chosen is None:
                    hint = marks.empty("cases", words("cases.pick"), words("cases.pick_hint"))
                    ui.html(hint, sanitize=False).style("height:100%")
                else:
                    _detail(tab, data.chosen, data.actions, data.may_act)

    async def open_case(case_id: int) -> None:
        wanted["id"] = int(case_id)
        listing.put(selected=wanted["id"])
        tab.client.run_javascript(f"history.replaceState(history.state, '', '/cases?id={int(case_id)}')")
        tab.reload()

    async def changed(values: dict[str, str]) -> None:
        wanted["text"] = str(values.get("text", ""))[:80]
        wanted["scope"] = "all" if values.get("scope") == "all" else "open"
        wanted["department"] = str(values.get("department", ""))
        size["limit"] = _PAGE
        tab.reload()

    async def more(_: Any) -> None:
        size["limit"] = min(size["limit"] + _PAGE, 500)
        tab.reload()

    listing.listen("open", open_case)
    listing.listen("more", more)
    bar.listen("change", changed)
    tab.set_view(load, show, every_s=15)


def _paused(case: Case) -> bool:
    found = FLOWS[case.flow].states.get(case.state) if case.flow in FLOWS else None
    return found.stopped if found else False


def _card(tab: Tab, case: Case) -> dict[str, Any]:
    words = tab.words
    clock = next(
        (
            {"label": words(f"cases.{name}"), "start": marks.ms(case.opened_at), "due": marks.ms(due)}
            for name, due, done in _clocks(case)
            if done is None
        ),
        None,
    )
    ended = case.state in cases.DONE
    return {
        "id": case.case_id,
        "number": case.number,
        "level": case.level,
        "title": words.either(case.title_zh, case.title_en),
        "state": words.case_state(case.flow, case.state),
        "department": words.department(case.department),
        "clock": None if ended else clock,
        "ended": words.case_state(case.flow, case.state),
        "paused": _paused(case),
    }


def _clocks(case: Case) -> list[tuple[str, Any, Any]]:
    return [
        ("accept", case.accept_due, case.accepted_at),
        ("onsite", case.onsite_due, case.onsite_at),
        ("close", case.close_due, case.closed_at),
    ]


def _detail(tab: Tab, found: CaseDetail, actions: list[Action], may_act: bool) -> None:
    words, case = tab.words, found.case
    with (
        ui.element("div").classes("body cb-stack").style("padding:18px 20px").props(f'data-case-open="{case.case_id}"')
    ):
        ui.html(
            f'<div class="cb-bar" style="margin-bottom:6px">{marks.level(words, case.level)}'
            f'<span class="cb-chip" data-state="{marks.esc(case.state)}">'
            f"{marks.esc(words.case_state(case.flow, case.state))}</span>"
            f"{marks.chip(words.case_type(case.type))}"
            f'<span class="cb-mono cb-dim" style="margin-left:auto">{marks.esc(case.number)}</span></div>'
            f'<div class="cb-cardhead"><h2 style="font-size:19px">'
            f"{marks.esc(words.either(case.title_zh, case.title_en))}</h2></div>",
            sanitize=False,
        )
        ui.html(_way(tab, found), sanitize=False)
        clocks = Clocks()
        clocks.put(
            paused=words("cases.paused") if _paused(case) else "",
            clocks=[
                {
                    "name": name,
                    "label": words(f"cases.{name}"),
                    "dueLabel": words("cases.due"),
                    "start": marks.ms(case.opened_at),
                    "due": marks.ms(due),
                    "done": marks.ms(done),
                    "void": words("cases.no_clock") if done is None and case.state in cases.DONE else "",
                    "kept": words("cases.in_time"),
                    "late": words("cases.late"),
                }
                for name, due, done in _clocks(case)
            ],
        )
        _buttons(tab, case, actions, may_act)
        with ui.element("div").classes("cb-cols").style("grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:24px"):
            with ui.element("div").classes("cb-stack"):
                ui.html(_title(words("cases.timeline")) + _timeline(tab, case, found.transitions), sanitize=False)
            with ui.element("div").classes("cb-stack"):
                ui.html(_evidence(tab, found.alarms), sanitize=False)
                ui.html(marks.kv(_facts(tab, case)), sanitize=False)
                ui.html(_title(words("cases.alarms")) + _alarms(tab, found.alarms), sanitize=False)


def _title(text: str) -> str:
    return f'<h3 style="font-size:13px;color:var(--text-3);font-weight:550;margin-bottom:8px">{marks.esc(text)}</h3>'


def _way(tab: Tab, found: CaseDetail) -> str:
    """Where the case stands on its way."""
    case = found.case
    way = _WAY.get(case.flow, ())
    here = _BESIDE.get(case.state, case.state)
    if here not in way:
        return ""
    index = way.index(here)
    parts = []
    for number, name in enumerate(way):
        step = (
            "past"
            if number < index or (number == index and case.state == way[-1])
            else "now"
            if number == index
            else ""
        )
        shown = case.state if number == index else name
        label = tab.words.case_state(case.flow, shown)
        if name == "responding_1" and number != index:
            label = tab.words.either("响应", "Responding")
        line = f'<b class="{"past" if number <= index else ""}"></b>' if number else ""
        parts.append(f'{line}<span class="{step}">{marks.esc(label)}</span>')
    return f'<div class="cb-flow">{"".join(parts)}</div>'


def _buttons(tab: Tab, case: Case, actions: list[Action], may_act: bool) -> None:
    words = tab.words
    if not may_act:
        ui.label(words("cases.not_yours" if tab.may("case.act") else "cases.read_only")).classes("cb-sub")
        return
    if not actions:
        ui.label(words("cases.ended")).classes("cb-sub")
        return
    with ui.element("div").classes("cb-bar").props('data-actions="1"'):
        for action in actions:
            forward = action.id not in _BACKWARD
            button = ui.element("button").classes("cb-btn primary" if forward else "cb-btn")
            with button.props(f'data-action="{action.id}"'):
                ui.html(marks.esc(words.either(action.zh, action.en)), sanitize=False, tag="span")
            button.on("click", lambda action=action: _ask(tab, case, action))


def _ask(tab: Tab, case: Case, action: Action) -> None:
    words = tab.words
    label = words.either(action.zh, action.en)

    async def answered(_: str, reason: str) -> None:
        async def step(who: str) -> None:
            await tab.services.acts.act(case.case_id, action.id, who, reason, case.version)

        await tab.act(step, words("cases.done", action=label), thing=("case", str(case.case_id)))

    tab.ask(
        words("cases.ask_title", action=label, number=case.number),
        words("cases.ask_hint", to=words.case_state(case.flow, action.to_state)),
        answered,
        name=action.id,
        field=words("cases.reason" if action.reason else "cases.remark"),
        reason=action.reason,
        confirm=label,
    )


def _timeline(tab: Tab, case: Case, transitions: list[Transition]) -> str:
    """Newest first: who, when, from where to where, why."""
    words = tab.words
    lines = []
    for t in reversed(transitions):
        who = t.who
        if who.startswith("rule:"):
            who = f"{words('cases.by_rule')} {words.scenario(who.removeprefix('rule:'))}"
        target = words.case_state(case.flow, t.to_state)
        said = _said(tab, t.reason) if t.who.startswith("rule:") else t.reason
        reason = f"<q>{marks.esc(said)}</q>" if said else ""
        action = words.action(t.action, case.flow, t.from_state)
        lines.append(
            f'<li data-transition="{marks.esc(t.action)}"><b>{marks.esc(action)}</b>'
            f" → {marks.esc(target)}<br><small>{marks.esc(who)} · {marks.at(t.at)}</small>{reason}</li>"
        )
    return f'<ul class="cb-time">{"".join(lines)}</ul>'


def _said(tab: Tab, reason: str) -> str:
    """What a rule noted, with its identifiers said in words: ``crane.overload orange`` and the like."""
    words, out = tab.words, []
    for token in reason.split():
        bare = token.rstrip(":")
        if bare in event_types():
            out.append(words.event(bare))
        elif bare in LEVEL_RANK:
            out.append(words.level(bare))
        elif len(bare) < 36:  # an alarm's id says nothing to a person; the alarm itself is listed beside
            out.append({"->": "→"}.get(bare, bare))
    return " ".join(out)


def _evidence(tab: Tab, alarms: list[Alarm]) -> str:
    words = tab.words
    stills = list(dict.fromkeys(address for alarm in alarms if (address := marks.still(alarm))))
    if not stills:
        return ""
    pictures = "".join(f'<img class="cb-still" src="{marks.esc(a)}" alt="" loading="lazy">' for a in stills[:3])
    note = f'<div class="cb-sub" style="margin-top:4px">{words("alarms.still")}</div>'
    return f'{_title(words("cases.evidence"))}<div class="cb-stack">{pictures}</div>{note}'


def _facts(tab: Tab, case: Case) -> list[tuple[str, str]]:
    words = tab.words
    facts = [
        (words("cases.department"), marks.esc(words.department(case.department))),
        (words("alarms.scenario"), marks.esc(words.scenario(case.scenario))),
        (words("cases.opened"), marks.at(case.opened_at)),
        (
            words("devices.name"),
            f'<a class="cb-link" href="/device?id={marks.esc(case.device_id)}">{marks.esc(case.device_id)}</a>',
        ),
    ]
    if case.support:
        facts.insert(1, (words("cases.support"), marks.esc("、".join(words.department(s) for s in case.support))))
    if case.lon is not None and case.lat is not None:
        facts.append((words("cases.place"), f'<span class="cb-mono">{case.lon:.5f}, {case.lat:.5f}</span>'))
    return facts


def _alarms(tab: Tab, alarms: list[Alarm]) -> str:
    words = tab.words
    lines = "".join(
        f'<a class="lv {marks.esc(a.level)}" href="/alarms?id={marks.esc(a.alarm_id)}"><div class="t">'
        f"<span>{marks.esc(words.event(a.type))}</span>{marks.age(a.onset_at)}</div>"
        f'<div class="m"><span>{marks.esc(marks.values_text(words, a.values))}</span>'
        f"<span>{marks.esc(words(f'alarm_state.{a.state}'))}</span></div></a>"
        for a in alarms
    )
    return f'<div class="cb-feed" style="padding:0">{lines}</div>'
