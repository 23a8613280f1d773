"""Runs a case through its BPMN drawing. Nothing outside this module knows the engine (SpiffWorkflow).

A case keeps its own run (which task is waiting, what came before) and the hash of the drawing it began with. The
drawings themselves are kept once each in table ``setting``, so a case finishes on the drawing it was opened under
whatever is drawn later, and its row stays small (about 10 KB for a whole life).
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree

import msgspec
from psycopg import Connection
from psycopg.types.json import Jsonb
from SpiffWorkflow.bpmn.parser.BpmnParser import BpmnParser, BpmnValidator
from SpiffWorkflow.bpmn.serializer.workflow import BpmnWorkflowSerializer
from SpiffWorkflow.bpmn.specs.defaults import EndEvent
from SpiffWorkflow.bpmn.workflow import BpmnWorkflow
from SpiffWorkflow.util.task import TaskState

from protocols.core.errors import StoreError

_BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"


class Run(msgspec.Struct, frozen=True):
    """Where a case stands in its drawing; part of ``case_file.workflow``."""

    definition: str  # SHA-256 of the drawing
    bpmn: dict[str, Any]  # the engine's own record, less the drawing


class NoSuchMove(Exception):
    """The drawing has no such action here. The service says it in the operator's words."""


class Definition:
    """One drawing, validated against the BPMN 2.0 schema as it is loaded.

    A user task or end event is a state; a sequence flow whose id is ``<state>.<action>`` is a move, whether it leaves
    the task itself or the gateway behind it.
    """

    def __init__(self, xml: str) -> None:
        self.xml = xml
        self.sha256 = hashlib.sha256(xml.encode()).hexdigest()
        root = ElementTree.fromstring(xml)  # noqa: S314 (drawn by us)
        self.moves: dict[tuple[str, str], str] = {}
        states = {node.get("id") for tag in ("userTask", "endEvent") for node in root.iter(_BPMN + tag)}
        for flow in root.iter(_BPMN + "sequenceFlow"):
            state, _, action = flow.attrib["id"].partition(".")
            if state in states and flow.attrib["targetRef"] in states:
                self.moves[state, action] = flow.attrib["targetRef"]
        parser = BpmnParser(validator=BpmnValidator())
        parser.add_bpmn_str(xml.encode())
        (process,) = parser.get_process_ids()
        self._spec = parser.get_spec(process)
        self._serializer = BpmnWorkflowSerializer()
        self._spec_json = json.dumps(self._serializer.to_dict(self._spec))

    def start(self) -> tuple[str, Run]:
        """A new case: its first state."""
        workflow = BpmnWorkflow(self._spec)
        workflow.do_engine_steps()
        return self._state(workflow), self._run(workflow)

    def step(self, run: Run, action: str) -> tuple[str, Run]:
        """Take one action; returns the state it leads to. Raises NoSuchMove."""
        record = {**json.loads(json.dumps(run.bpmn)), "spec": json.loads(self._spec_json)}  # restoring eats its input
        workflow = self._serializer.from_dict(record)
        state = self._state(workflow)
        target = self.moves.get((state, action))
        if target is None:
            raise NoSuchMove(action)
        (task,) = workflow.get_tasks(state=TaskState.READY, manual=True)
        task.data = {"action": action}
        task.run()
        workflow.do_engine_steps()
        reached = self._state(workflow)
        if reached != target:
            raise AssertionError(f"{state}.{action} is drawn to {target}, but its condition leads to {reached}")
        return reached, self._run(workflow)

    def _state(self, workflow: Any) -> str:
        for task in workflow.get_tasks(state=TaskState.READY, manual=True):
            return str(task.task_spec.name)
        ends = [t for t in workflow.get_tasks(state=TaskState.COMPLETED) if isinstance(t.task_spec, EndEvent)]
        return str(ends[-1].task_spec.name)

    def _run(self, workflow: Any) -> Run:
        record = self._serializer.to_dict(workflow)
        del record["spec"]
        return Run(self.sha256, record)


@cache
def current(flow: str) -> Definition:
    """The drawing new cases of this flow begin with."""
    return Definition(files(__package__).joinpath("bpmn", f"{flow}_flow.bpmn").read_text(encoding="utf-8"))


@cache
def _parsed(xml: str) -> Definition:
    return Definition(xml)


def keep(conn: Connection[Any], definition: Definition) -> None:
    """Store the drawing a new case refers to. Cheap when it is there already."""
    conn.execute(
        "insert into setting (name, value) values (%s, %s) on conflict (name) do nothing",
        (_setting(definition.sha256), Jsonb({"xml": definition.xml})),
    )


def of_run(conn: Connection[Any], flow: str, run: Run) -> Definition:
    """The drawing a case began with."""
    latest = current(flow)
    if latest.sha256 == run.definition:
        return latest
    row = conn.execute("select value ->> 'xml' from setting where name = %s", (_setting(run.definition),)).fetchone()
    if row is None:
        raise StoreError(f"the drawing {run.definition[:12]} of a running case is gone from table setting")
    return _parsed(row[0])


def _setting(sha256: str) -> str:
    return f"bpmn:{sha256}"
