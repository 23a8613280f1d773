"""The camera's side (SLAVE): registers, keeps alive, tells its channels, obeys; used by the simulator and the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.gb28181 import digest, headers, manscdp, ptz, sdp
from protocols.gb28181.frame import SipMessage
from protocols.gb28181.manscdp import Body, Channel
from protocols.gb28181.party import Finished, Party, Peer, time_ms, time_text

#: No new try to register before this (the standard's least).
RETRY_MS = 60_000
MISSED_BEFORE_LOGIN = 3
MOST_STREAMS = 64


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """``date_ms``: the platform's time, to set the clock by."""

    date_ms: int | None


@dataclass(frozen=True, slots=True)
class LoginFailed:
    status: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """Something to do: a PTZ order, or a named control (``RecordCmd``, ``TeleBoot`` ...) with its word."""

    channel: str
    order: ptz.Order | None
    control: str = ""
    word: str = ""


@dataclass(frozen=True, slots=True)
class Streaming:
    """A stream is wanted at ``offer.ip:offer.port`` (``on``), or no longer."""

    channel: str
    on: bool
    offer: sdp.Sdp | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A keep-alive of ours."""


class Camera(Party):
    """``server``: the platform's id; ``peer``: where it listens. ``encoding``: of the bodies. ``part``: channels in one
    catalogue message."""

    def __init__(
        self, id: str, password: str, server: str, peer: Peer, host: str, port: int, *, token: Callable[[], str],
        channels: Sequence[Channel] = (), expires_s: int = 3_600, keepalive_s: int = 60, part: int = 4,
        encoding: str = "gb18030", agent: str = "IP Camera", model: str = "SIM-CAM",
    ) -> None:  # fmt: skip
        super().__init__(id, server[:10], host, port, token, agent)
        self.password = password
        self.channels = list(channels)
        self.recording = False
        self.guarded = False
        self.registered = False
        self.status = "OK"  # its own word in the keep-alive
        self.keeps_alive = True
        self.clock_ms = 0  # what its own clock is ahead of the caller's
        self._server, self._peer = server, peer
        self._expires_s, self._keepalive_ms = expires_s, keepalive_s * 1000
        self._part, self._encoding, self._model = part, encoding, model
        self._call_id, self._from_tag = f"{token()}@{host}", token()
        self._register_at_ms: int | None = 0
        self._keepalive_at_ms: int | None = None
        self._missed = 0
        self._sn = 0
        self._streams: dict[str, str] = {}  # Call-ID -> channel

    # -- out

    def restart(self, now_ms: int) -> None:
        """Power came back: nothing is remembered, register at once."""
        self.registered, self._register_at_ms, self._keepalive_at_ms = False, now_ms, None
        self._open.clear()
        self._answered.clear()
        self._streams.clear()

    def _register(self, now_ms: int, login: str = "", expires_s: int | None = None) -> None:
        wanted_s = self._expires_s if expires_s is None else expires_s
        more = [("Contact", f"<sip:{self.id}@{self.host}:{self.port}>"), ("Expires", str(wanted_s))]
        if login:
            more.append(("Authorization", login))
        uri = f"sip:{self._server}@{self.realm}"
        self._send("REGISTER", uri, f"<sip:{self.id}@{self.realm}>", self._peer, now_ms, "login" if login else "hello",
                   call_id=self._call_id, from_tag=self._from_tag, more=more)  # fmt: skip
        self._register_at_ms = None

    def log_off(self, now_ms: int) -> None:
        self._expires_s = 0
        self._register(now_ms)

    def tell(self, body: Body, now_ms: int, context: Any = None) -> None:
        """A MESSAGE of our own."""
        data = manscdp.build(_encoded(body, self._encoding))
        self._send("MESSAGE", f"sip:{self._server}@{self.realm}", f"<sip:{self._server}@{self.realm}>", self._peer,
                   now_ms, context, more=(("Content-Type", manscdp.CONTENT_TYPE),), body=data)  # fmt: skip

    def alarm(self, channel: str, now_ms: int, *, method: int = 2, priority: int = 1, kind: int = 1) -> None:
        self._sn += 1
        self.tell(
            manscdp.body("Notify", "Alarm", self._sn, channel, AlarmPriority=str(priority), AlarmMethod=str(method),
                         AlarmTime=time_text(now_ms + self.clock_ms), AlarmType=str(kind)), now_ms,
        )  # fmt: skip

    # -- answers to our requests

    def _finished(self, end: Finished, request: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        if isinstance(end.context, _Kept):
            self._missed = 0 if end.ok else self._missed + 1
            if end.status in (401, 403) or self._missed >= MISSED_BEFORE_LOGIN:
                self.registered, self._keepalive_at_ms, self._register_at_ms, self._missed = False, None, now_ms, 0
            return []
        if end.context not in ("hello", "login"):
            return []
        message = end.message
        if message is not None and end.status == 401:
            asked = headers.digest(message.get("WWW-Authenticate"))
            if end.context == "hello" or asked.get("stale", "").lower() == "true":
                self._register(now_ms, self._login(asked, request.uri))
                return []
        if message is None or not end.ok:
            self._register_at_ms = now_ms + RETRY_MS
            return [LoginFailed(end.status)]
        granted = message.get("Expires")
        if granted == "0" or self._expires_s == 0:
            self.registered, self._keepalive_at_ms = False, None
            return []
        self.registered = True
        self._register_at_ms = now_ms + int(granted or self._expires_s) * 800
        self._keepalive_at_ms = now_ms + self._keepalive_ms
        return [LoggedIn(time_ms(message.get("Date")))]

    def _login(self, asked: dict[str, str], uri: str) -> str:
        given = {"username": self.id, "realm": asked.get("realm", ""), "nonce": asked.get("nonce", ""), "uri": uri}
        algorithm = asked.get("algorithm", "MD5")
        given["algorithm"] = algorithm
        if "auth" in asked.get("qop", ""):
            given |= {"qop": "auth", "nc": "00000001", "cnonce": self._token()}
        given["response"] = digest.response("REGISTER", self.password, given) or ""
        bare = ("algorithm", "qop", "nc")
        return "Digest " + ", ".join(f"{k}={v}" if k in bare else f'{k}="{v}"' for k, v in given.items())

    # -- requests of the platform

    def _request(self, message: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        match message.method:
            case "MESSAGE":
                try:
                    body = manscdp.parse(message.body)
                except RemoteProtocolError:
                    self._answer(message, peer, 400)
                    return []
                self._answer(message, peer, 200)
                return self._told(body, now_ms)
            case "INVITE":
                return self._invited(message, peer)
            case "BYE":
                channel = self._streams.pop(message.get("Call-ID"), "")
                self._answer(message, peer, 200 if channel else 481)
                return [Streaming(channel, False)] if channel else []
            case "INFO" | "OPTIONS":
                self._answer(message, peer, 200)
            case "ACK" | "CANCEL":
                pass
            case _:
                self._answer(message, peer, 405)
        return []

    def _told(self, body: Body, now_ms: int) -> list[Any]:
        answer = manscdp.body("Response", body.command, body.serial, body.device or self.id)
        match body.root, body.command:
            case "Query", "Catalog":
                for part in manscdp.catalogue_parts(self.channels, body.serial, self.id, size=self._part):
                    self.tell(part, now_ms)
            case "Query", "DeviceInfo":
                more = {"Result": "OK", "DeviceName": "模拟摄像机", "Manufacturer": "citybrain", "Model": self._model,
                        "Firmware": "1.0", "Channel": str(len(self.channels))}  # fmt: skip
                self.tell(_more(answer, more), now_ms)
            case "Query", "DeviceStatus":
                more = {"Result": "OK", "Online": "ONLINE", "Status": "OK", "Encode": "ON",
                        "Record": "ON" if self.recording else "OFF",
                        "DeviceTime": time_text(now_ms + self.clock_ms)}  # fmt: skip
                self.tell(_more(answer, more), now_ms)
            case "Control", "DeviceControl":
                return self._controlled(body, answer, now_ms)
            case "Query", _:
                self.tell(_more(answer, {"Result": "ERROR"}), now_ms)
        return []

    def _controlled(self, body: Body, answer: Body, now_ms: int) -> list[Any]:
        if order := body.text("PTZCmd"):
            try:
                return [Ordered(body.device, ptz.parse(order).order)]
            except RemoteProtocolError:
                return []
        for control in ("RecordCmd", "GuardCmd", "AlarmCmd", "TeleBoot", "IFameCmd", "HomePosition"):
            if word := body.text(control):
                if control == "RecordCmd":
                    self.recording = word == "Record"
                elif control == "GuardCmd":
                    self.guarded = word == "SetGuard"
                if control in ("RecordCmd", "GuardCmd", "AlarmCmd"):
                    self.tell(_more(answer, {"Result": "OK"}), now_ms)
                return [Ordered(body.device, None, control, word)]
        return []

    def _invited(self, message: SipMessage, peer: Peer) -> list[Any]:
        wanted = headers.uri(message.uri)
        channel = wanted.user if wanted else ""
        try:
            offer = sdp.parse(message.body)
        except RemoteProtocolError:
            self._answer(message, peer, 488)
            return []
        if channel != self.id and channel not in {one.id for one in self.channels}:
            self._answer(message, peer, 404)
            return []
        if len(self._streams) >= MOST_STREAMS:
            self._answer(message, peer, 486)
            return []
        self._answer(message, peer, 100)
        self._streams[message.get("Call-ID")] = channel
        reply = sdp.Sdp(offer.session, channel, self.host, 15_060, offer.proto, direction="sendonly", ssrc=offer.ssrc)
        more = (("Contact", f"<sip:{self.id}@{self.host}:{self.port}>"), ("Content-Type", "application/sdp"))
        self._answer(message, peer, 200, more, sdp.build(reply))
        return [Streaming(channel, True, offer)]

    # -- time

    def deadline(self) -> int | None:
        times = [at for at in (super().deadline(), self._register_at_ms, self._keepalive_at_ms) if at is not None]
        return min(times, default=None)

    def tick(self, now_ms: int) -> list[Any]:
        out = super().tick(now_ms)
        if self._register_at_ms is not None and now_ms >= self._register_at_ms:
            self._register(now_ms)
        if self._keepalive_at_ms is not None and now_ms >= self._keepalive_at_ms:
            self._keepalive_at_ms = now_ms + self._keepalive_ms
            self._sn += 1
            if self.keeps_alive:
                body = manscdp.body("Notify", "Keepalive", self._sn, self.id, Status=self.status)
                self.tell(body, now_ms, _Kept())
        return out


def _more(body: Body, more: dict[str, str]) -> Body:
    return Body(body.root, {**body.fields, **more})


def _encoded(body: Body, encoding: str) -> Body:
    return Body(body.root, body.fields, body.items, body.parts, body.list_name, encoding)
