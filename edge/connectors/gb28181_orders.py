"""What cameras are told to do, and what became of it: PTZ with its stop, controls with their answer, streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge.connectors.base import Command, Outcome
from protocols.core.errors import LinkDown, LocalProtocolError
from protocols.devices import CommandType
from protocols.gb28181 import ids, manscdp, ptz, sdp
from protocols.gb28181.events import Media
from protocols.gb28181.manscdp import Body, Channel
from protocols.gb28181.party import Finished
from protocols.gb28181.platform import Platform

#: The camera's own answer to a control or a question, behind its 200.
ANSWER_S = 8.0
INVITE_S = 20.0
_MOST_SPEED, _MOST_ZOOM = 255, 15


class _Waiting:
    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)


class Orders:
    """Between the platform's state machine and whoever gives an order. ``flush`` puts what it says on the wire."""

    def __init__(self, platform: Platform, now_ms: Callable[[], int], flush: Callable[[], None]) -> None:
        self._platform = platform
        self._now_ms = now_ms
        self._flush = flush
        self._answers: dict[str, tuple[str, _Waiting]] = {}  # by SN: command, who waits
        self._streams: dict[str, _Waiting] = {}  # by dialog, until it is up
        self._live: dict[tuple[str, str], str] = {}  # device, channel -> dialog
        self._moving: set[tuple[str, str]] = set()

    # -- from the connector ---------------------------------------------------------------------------------------
    def happened(self, event: Finished | Media) -> None:
        match event:
            case Finished(context=_Waiting() as waiting):
                waiting.done(event)
            case Media() if event.dialog in self._streams:
                self._streams.pop(event.dialog).done(event)
        if isinstance(event, Media) and event.answer is None:
            for key in [key for key, dialog in self._live.items() if dialog == event.dialog]:
                del self._live[key]

    def answered(self, body: Body) -> bool:
        """Whether somebody waited for this body."""
        if body.root != "Response":
            return False
        known = self._answers.get(body.serial)
        if known is None or known[0] != body.command:
            return False
        known[1].done(body)
        return True

    def stop_all(self) -> None:
        """The agent stops: nothing may go on moving."""
        for device, channel in list(self._moving):
            with contextlib.suppress(LocalProtocolError):
                self._tell(device, channel, ptz.STOP, None)
        self._moving.clear()
        self._flush()

    # -- orders ---------------------------------------------------------------------------------------------------
    async def ask(self, device: str, command: str) -> Body | None:
        """A question; the camera's answer, None if none comes. Raises LinkDown if it is not registered."""
        waiting = _Waiting()
        with self._reachable(device):
            serial = self._platform.ask(device, "Query", command, self._now_ms())
        return await self._answer(serial, command, waiting)

    async def carry_out(self, device: str, channels: Sequence[Channel], what: CommandType, command: Command) -> Outcome:
        """Raises LinkDown if nothing was sent."""
        arguments = command.arguments
        channel = _channel(device, channels, str(arguments.get("channel", "")))
        if channel is None:
            known = ", ".join(one.id for one in channels[:8]) or "none yet"
            return Outcome("refused", "channel", f"no such channel; the catalogue has {known}")
        verb, _, word = what.key.partition(":")
        try:
            match verb:
                case "move":
                    return await self._move(device, channel, arguments)
                case "stop":
                    self._moving.discard((device, channel))
                    return await self._ptz(device, channel, ptz.STOP)
                case "preset" if word in ("goto", "set", "delete"):
                    number = int(arguments.get("preset", 0))
                    op: ptz.PresetOp = "goto" if word == "goto" else "set" if word == "set" else "delete"
                    return await self._ptz(device, channel, ptz.Preset(op, number))
                case "control":
                    return await self._control(device, channel, word)
                case "stream":
                    return await self._stream(device, channel, word, arguments)
        except LocalProtocolError as exc:
            return Outcome("refused", exc.reason, str(exc))
        return Outcome("refused", "not_supported", f"{what.name}: {what.key!r} is nothing a camera can be told")

    async def _move(self, device: str, channel: str, arguments: Mapping[str, float | int | str | bool]) -> Outcome:
        pan, tilt, zoom = (float(arguments.get(name, 0.0)) for name in ("pan", "tilt", "zoom"))
        motion = ptz.Motion(
            _sign(pan), _sign(tilt), _sign(zoom), _speed(pan, _MOST_SPEED), _speed(tilt, _MOST_SPEED),
            _speed(zoom, _MOST_ZOOM),
        )  # fmt: skip
        self._moving.add((device, channel))
        try:
            outcome = await self._ptz(device, channel, motion)
            if outcome.state == "done":
                await asyncio.sleep(float(arguments.get("for_s", 1.0)))
        finally:
            # Whatever happened to the order, also when its giver went away: the camera must not go on turning.
            stopped = self._stop(device, channel)
        end = await stopped.future if stopped is not None else None
        if outcome.state == "done" and not (isinstance(end, Finished) and end.ok):
            return Outcome("unknown", "stop", "it moved; whether the stop arrived is not known")
        return outcome

    def _stop(self, device: str, channel: str) -> _Waiting | None:
        self._moving.discard((device, channel))
        waiting = _Waiting()
        try:
            self._tell(device, channel, ptz.STOP, waiting)
        except LocalProtocolError:
            return None  # no longer registered
        self._flush()
        return waiting

    def _tell(self, device: str, channel: str, order: ptz.Order, context: object) -> None:
        word = ptz.build(order)
        self._platform.ask(device, "Control", "DeviceControl", self._now_ms(), context, target=channel, PTZCmd=word)

    async def _ptz(self, device: str, channel: str, order: ptz.Order) -> Outcome:
        waiting = _Waiting()
        word = ptz.build(order)
        with self._reachable(device):
            self._platform.ask(device, "Control", "DeviceControl", self._now_ms(), waiting, target=channel, PTZCmd=word)
        self._flush()
        return _outcome(await waiting.future, "taken by the camera; the protocol does not show where it looks")

    async def _control(self, device: str, channel: str, word: str) -> Outcome:
        name, _, value = word.partition("=")
        waiting, answer = _Waiting(), _Waiting()
        told = manscdp.body("Control", "DeviceControl", self._platform.next_serial(), channel, **{name: value})
        with self._reachable(device):
            serial = self._platform.ask(device, "Control", "DeviceControl", self._now_ms(), waiting, body=told)
        self._answers[serial] = ("DeviceControl", answer)
        self._flush()
        try:
            outcome = _outcome(await waiting.future, "")
            if outcome.state != "done":
                return outcome
            body = await self._wait(answer)
        finally:
            del self._answers[serial]
        if body is None:
            return Outcome("unknown", "no_answer", "the camera took it and said nothing more")
        result = body.text("Result").upper()
        return Outcome("done") if result == "OK" else Outcome("refused", "result", f"the camera said {result or '?'}")

    async def _answer(self, serial: str, command: str, waiting: _Waiting) -> Body | None:
        self._answers[serial] = (command, waiting)
        self._flush()
        try:
            return await self._wait(waiting)
        finally:
            del self._answers[serial]

    async def _wait(self, waiting: _Waiting) -> Body | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                body: Body = await waiting.future
        except TimeoutError:
            return None
        return body

    async def _stream(
        self, device: str, channel: str, word: str, arguments: Mapping[str, float | int | str | bool]
    ) -> Outcome:
        known = self._live.get((device, channel))
        if word == "stop":
            if known is None:
                return Outcome("done", "no_stream", "there is no stream of this channel")
            self._platform.end(known, self._now_ms())
            self._flush()
            return Outcome("done")
        if known is not None:
            return Outcome("refused", "streaming", "this channel is being sent already; stop it first")
        number = sdp.ssrc(self._platform.realm, int.from_bytes(channel[-4:].encode(), "big") % 10_000)
        offer = sdp.Sdp(
            "Play", self._platform.id, str(arguments["host"]), int(arguments["port"]), direction="recvonly",
            ssrc=number, payloads=(96, 98, 97), rtpmap={96: "PS/90000", 98: "H264/90000", 97: "MPEG4/90000"}, hint="",
        )  # fmt: skip
        waiting = _Waiting()
        with self._reachable(device):
            dialog = self._platform.invite(device, channel, offer, self._now_ms())
        self._streams[dialog], self._live[device, channel] = waiting, dialog
        self._flush()
        try:
            async with asyncio.timeout(INVITE_S):
                media: Media = await waiting.future
        except TimeoutError:
            media = Media(dialog, device, channel, None, "no answer")
        finally:
            self._streams.pop(dialog, None)
        if media.answer is None:
            self._live.pop((device, channel), None)
            self._platform.end(dialog, self._now_ms())
            self._flush()
            return Outcome("unknown" if media.reason == "no answer" else "refused", "stream", media.reason)
        answer = media.answer
        return Outcome("done", "", f"from {answer.ip}:{answer.port}, SSRC {answer.ssrc or number}")

    @contextlib.contextmanager
    def _reachable(self, device: str) -> Any:
        """Not registered means that nothing was sent."""
        if self._platform.peer_of(device) is None:
            raise LinkDown(f"{device} is not registered")
        yield


def _channel(device: str, channels: Sequence[Channel], wanted: str) -> str | None:
    """The channel meant; "" is the device's only one, or the device itself."""
    if not wanted:
        lenses = [one.id for one in channels if ids.kind(one.id) in ("camera", "ip_camera")]
        return lenses[0] if len(lenses) == 1 else device
    return wanted if wanted == device or any(one.id == wanted for one in channels) else None


def _outcome(end: Finished, detail: str) -> Outcome:
    if end.ok:
        return Outcome("done", "", detail)
    if end.status == 0:
        return Outcome("unknown", "no_answer", "the camera did not answer")
    return Outcome("refused", f"sip_{end.status}", f"the camera answered {end.status}")


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _speed(number: float, most: int) -> int:
    """A share of full speed; whatever is not 0 moves."""
    return 0 if number == 0 else max(1, round(abs(number) * most))
