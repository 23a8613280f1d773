"""The drawings, the table and the catalogue's text say the same, and the engine does what is drawn."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from SpiffWorkflow.bpmn.parser.BpmnParser import BpmnValidator

from cloud.cases.flows import ENDED, FLOWS, GRADE_OF_LEVEL, Flow
from cloud.cases.process import Definition, NoSuchMove, Run, current
from tests.cloud_cases.make import next_states, path_to, reachable

EVENTS_MD = Path(__file__).parents[3] / "shared" / "scenarios" / "events.md"
BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"

each_flow = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())


def drawing(flow: Flow) -> str:
    return files("cloud.cases").joinpath("bpmn", f"{flow.id}_flow.bpmn").read_text(encoding="utf-8")


@each_flow
def test_drawing_is_valid_bpmn_2(flow: Flow) -> None:
    BpmnValidator().validate(etree.fromstring(drawing(flow).encode()))
    broken = drawing(flow).replace("bpmn:userTask", "bpmn:userTusk")
    with pytest.raises(Exception, match="userTusk"):
        BpmnValidator().validate(etree.fromstring(broken.encode()))


def _followed(root: Any) -> set[tuple[str, str, str]]:
    """Moves as the drawing's own graph gives them: task, through a gateway if there is one, by the flow's condition."""
    flows = list(root.iter(f"{BPMN}sequenceFlow"))
    gateways = {node.attrib["id"] for node in root.iter(f"{BPMN}exclusiveGateway")}
    moves = set()
    for task in root.iter(f"{BPMN}userTask"):
        for out in (flow for flow in flows if flow.attrib["sourceRef"] == task.attrib["id"]):
            if out.attrib["targetRef"] not in gateways:
                moves.add((task.attrib["id"], out.attrib["id"].partition(".")[2], out.attrib["targetRef"]))
            for branch in (flow for flow in flows if flow.attrib["sourceRef"] == out.attrib["targetRef"]):
                if out.attrib["targetRef"] in gateways:
                    condition = branch.findtext(f"{BPMN}conditionExpression") or ""
                    (action,) = re.fullmatch(r"action == '(\w+)'", condition).groups()  # type: ignore[union-attr]
                    moves.add((task.attrib["id"], action, branch.attrib["targetRef"]))
    return moves


@each_flow
def test_drawing_and_table_allow_the_same_moves(flow: Flow) -> None:
    table = {(source, action, move.to_state) for (source, action), move in flow.moves.items()}
    assert _followed(etree.fromstring(drawing(flow).encode())) == table
    assert {(source, action, target) for (source, action), target in current(flow.id).moves.items()} == table


@each_flow
def test_drawing_names_states_and_moves_in_both_languages(flow: Flow) -> None:
    root = etree.fromstring(drawing(flow).encode())
    for tag in ("userTask", "endEvent"):
        for node in root.iter(BPMN + tag):
            state = flow.states[node.attrib["id"]]
            assert node.attrib["name"] == f"{state.zh} {state.en}"
            assert (tag == "endEvent") == (not flow.actions(state.id))
    for edge in root.iter(f"{BPMN}sequenceFlow"):
        state, _, action = edge.attrib["id"].partition(".")
        if (state, action) in flow.moves:
            move = flow.moves[state, action]
            assert edge.attrib["name"] == f"{move.zh} {move.en}"


@each_flow
def test_every_move_of_the_table_runs_on_the_engine_and_no_other(flow: Flow) -> None:
    """Exhaustive: each state, each action of either flow. Between steps the run goes through JSON, as it is stored."""
    definition = current(flow.id)
    actions = {action for other in FLOWS.values() for _, action in other.moves} | {"open", "decide", "", "void"}
    for state in reachable(flow):
        at, run = definition.start()
        for action in path_to(flow, state):
            at, run = definition.step(Run(run.definition, json.loads(json.dumps(run.bpmn))), action)
        assert at == state
        for action in actions:
            move = flow.moves.get((state, action))
            if move is None:
                with pytest.raises(NoSuchMove):
                    definition.step(run, action)
            else:
                assert definition.step(run, action)[0] == move.to_state


@each_flow
def test_table_is_sound(flow: Flow) -> None:
    assert set(flow.states) - reachable(flow) == ({"void"} if flow.id == "event" else set())
    for state in flow.states.values():
        assert state.zh and state.en
        if state.ended and state.id != "closed":
            assert flow.actions(state.id) == [] and state.id in ENDED
        if not state.ended:
            assert flow.actions(state.id), f"{state.id} is a dead end"
    for move in flow.moves.values():
        assert move.zh and move.en and move.from_state in flow.states and move.to_state in flow.states


def test_what_undoes_somebodys_work_or_stops_a_clock_needs_a_reason() -> None:
    event, emergency = FLOWS["event"], FLOWS["emergency"]
    needs = {action for (_, action), move in event.moves.items() if move.reason}
    assert needs == {"not_file", "merge", "return", "mediate", "suspend", "send_back", "reopen"}
    for (state, action), move in emergency.moves.items():
        if action.startswith("respond_"):
            lowers = state.startswith("responding_") and int(action[-1]) > int(state[-1])
            assert move.reason == lowers
        else:
            assert move.reason == (action == "false_alarm")
    assert [GRADE_OF_LEVEL[level] for level in ("red", "orange", "yellow", "blue")] == [1, 2, 3, 4]


def test_a_drawing_whose_words_and_conditions_disagree_is_found_out() -> None:
    """The name of a flow promises one state, its condition leads to another."""
    swapped = drawing(FLOWS["event"]).replace("action == 'not_file'", "action == 'x'")
    swapped = swapped.replace("action == 'accept'", "action == 'not_file'").replace(
        "action == 'x'", "action == 'accept'"
    )
    definition = Definition(swapped)
    _, run = definition.start()
    with pytest.raises(AssertionError, match=r"reported\.accept is drawn to accepted"):
        definition.step(run, "accept")


@pytest.mark.skipif(not EVENTS_MD.exists(), reason="../shared is not beside the project")
def test_event_flow_equals_the_catalogues_table() -> None:
    text = EVENTS_MD.read_text(encoding="utf-8").partition("**event flow**")[2].partition("**emergency flow**")[0]
    flow = FLOWS["event"]
    named = set()
    for row in re.findall(r"^\| ([a-z_, ]+) \| .*? \| (.*?) \| (.*?) \|$", text, re.MULTILINE):
        for state in row[0].split(", "):
            if state in ("state",):
                continue
            named.add(state)
            allowed = set(re.findall(r"[a-z_]+", re.sub(r"\(.*\)", "", row[2])))
            assert next_states(flow, state) == allowed, state
            if "reason needed" in row[1] and state != "void":
                into = [move for move in flow.moves.values() if move.to_state == state]
                assert into and all(move.reason for move in into), state
    # The table lets a case be reopened and does not say how it goes on: it is dispatched again.
    assert set(flow.states) - named == {"reopened"}
    assert next_states(flow, "reopened") == {"dispatched"}


@pytest.mark.skipif(not EVENTS_MD.exists(), reason="../shared is not beside the project")
def test_emergency_flow_equals_the_catalogues_chain() -> None:
    text = EVENTS_MD.read_text(encoding="utf-8")
    chain = re.search(r"\*\*emergency flow\*\*: `(.*?)`", text)
    assert chain is not None
    steps = chain.group(1).replace("(I|II|III|IV)", "").split(" -> ")
    assert steps == ["candidate", "confirmed", "responding", "controlled", "recovering", "reviewed", "closed"]
    flow = FLOWS["emergency"]

    def family(state: str) -> str:
        return re.sub(r"_[1-4]$", "", state)

    drawn = {(family(m.from_state), family(m.to_state)) for m in flow.moves.values()}
    expected = set(pairwise(steps)) | {("responding", "responding")}
    expected |= {("candidate", "false_alarm"), ("confirmed", "false_alarm")}
    assert drawn == expected
