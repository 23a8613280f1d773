"""The platform's side (MASTER): who is registered, what they said, what they are asked and told.

A device is believed as long as its registration lasts and it speaks from the host it registered from; nothing else in
GB/T 28181-2016 says who sends a MESSAGE. SN and CSeq of cameras often never change and are used for nothing but to
match answers to our own questions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.gb28181 import digest, headers, manscdp, sdp
from protocols.gb28181.events import Catalogue, Event, Garbled, Gone, Media, Refused, Registered, Said
from protocols.gb28181.frame import SipMessage
from protocols.gb28181.manscdp import Body, Channel
from protocols.gb28181.party import Finished, Party, Peer, date_text

#: Registrations shorter than this are refreshed too often, longer ones hide a dead camera.
LEAST_EXPIRES_S, MOST_EXPIRES_S = 60, 86_400
#: Cameras that refresh at the last moment are not off line meanwhile.
GRACE_MS = 30_000
#: Wrong passwords from one host for one device, and for how long it then gets 403 (a camera that was set up wrongly
#: must not be able to lock out the right one behind another address).
MOST_FAILURES, FAILURE_MS = 5, 600_000
#: A catalogue is published with what came after this silence.
CATALOGUE_SILENCE_MS = 10_000
MOST_CHANNELS = 10_000
_MOST_CATALOGUES = 256
_MOST_DIALOGS = 1_024
INVITE_MS = 15_000


class _Registration:
    def __init__(self, peer: Peer, until_ms: int) -> None:
        self.peer = peer
        self.until_ms = until_ms


class _Collecting:
    def __init__(self, now_ms: int) -> None:
        self.channels: dict[str, Channel] = {}
        self.total = 0
        self.due_ms = now_ms + CATALOGUE_SILENCE_MS


@dataclass(slots=True)
class _Dialog:
    device: str
    channel: str
    peer: Peer
    call_id: str
    from_tag: str
    to: str
    cseq: int = 1
    up: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Inviting:
    dialog: str


@dataclass(frozen=True, slots=True)
class _Ending:
    dialog: str


class Platform(Party):
    """``accounts``: password by device id; a device that is not in it is a stranger. ``secret``: random bytes of this
    run. ``md5`` False: only SHA-256 (the 2022 edition)."""

    def __init__(
        self, id: str, realm: str, host: str, port: int, accounts: Mapping[str, str], *, secret: bytes,
        token: Callable[[], str], md5: bool = True, nonce_ms: int = 60_000, agent: str = "citybrain",
    ) -> None:  # fmt: skip
        super().__init__(id, realm, host, port, token, agent)
        self._accounts = dict(accounts)
        self._nonces = digest.Nonces(secret, life_ms=nonce_ms)
        self._algorithm = "MD5" if md5 else "SHA-256"
        self._registered: dict[str, _Registration] = {}
        self._failures: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._collecting: OrderedDict[tuple[str, str], _Collecting] = OrderedDict()
        self._dialogs: OrderedDict[str, _Dialog] = OrderedDict()
        self._sn = 0
        self.utc_ahead_ms = 0  # for a caller whose now_ms is not UTC: what UTC is ahead of it

    def peer_of(self, device: str) -> Peer | None:
        """Where a registered device is, None if it is not registered."""
        one = self._registered.get(device)
        return one.peer if one else None

    def link_lost(self, link: int) -> list[Event]:
        """A TCP connection ended: who was on it is to be reached again only after it registers anew."""
        lost = [device for device, one in self._registered.items() if one.peer.link == link and link]
        return [self._end(device, "link") for device in lost]

    # -- what we ask and tell

    def ask(self, device: str, root: str, command: str, now_ms: int, context: Any = None, *, target: str = "",
            body: Body | None = None, **more: str) -> str:  # fmt: skip
        """Send a MESSAGE to a registered device; its SN. ``target``: the channel meant (DeviceID), else the device.
        ``body`` replaces the built one. Raises LocalProtocolError if the device is not registered."""
        peer = self._reach(device)
        told = body or manscdp.body(root, command, self.next_serial(), target or device, **more)
        uri = f"sip:{target or device}@{peer}"
        kind = (("Content-Type", manscdp.CONTENT_TYPE),)
        to = f"<sip:{target or device}@{self.realm}>"
        self._send("MESSAGE", uri, to, peer, now_ms, context, more=kind, body=manscdp.build(told))
        return told.serial

    def next_serial(self) -> int:
        """A fresh SN for a body of the caller's own."""
        self._sn = self._sn % 99_999_999 + 1
        return self._sn

    def query_catalogue(self, device: str, now_ms: int) -> None:
        serial = self.ask(device, "Query", "Catalog", now_ms)
        self._collecting[device, serial] = _Collecting(now_ms)
        while len(self._collecting) > _MOST_CATALOGUES:
            self._collecting.popitem(last=False)

    def invite(self, device: str, channel: str, offer: sdp.Sdp, now_ms: int) -> str:
        """Ask for a stream to ``offer.ip:offer.port``; the media go there, not here. Returns the dialog's name."""
        peer = self._reach(device)
        from_tag, to = self._token(), f"<sip:{channel}@{self.realm}>"
        number = offer.ssrc or sdp.ssrc(self.realm, self._sn)
        more = (
            ("Contact", f"<sip:{self.id}@{self.host}:{self.port}>"), ("Content-Type", "application/sdp"),
            ("Subject", f"{channel}:{number},{self.id}:0"),
        )  # fmt: skip
        call_id = f"{self._token()}@{self.host}"
        self._dialogs[call_id] = _Dialog(device, channel, peer, call_id, from_tag, to)
        while len(self._dialogs) > _MOST_DIALOGS:
            self._dialogs.popitem(last=False)
        self._send(
            "INVITE", f"sip:{channel}@{peer}", to, peer, now_ms, _Inviting(call_id), call_id=call_id,
            from_tag=from_tag, cseq=1, more=more, body=sdp.build(offer), answer_ms=INVITE_MS,
        )  # fmt: skip
        return call_id

    def end(self, dialog: str, now_ms: int) -> None:
        """BYE. A dialog that is not up yet ends as soon as it is; an unknown one has ended already."""
        one = self._dialogs.get(dialog)
        if one is None or one.ended:
            return
        one.ended = True
        if one.up:
            self._bye(one, now_ms)

    def _bye(self, one: _Dialog, now_ms: int) -> None:
        one.cseq += 1
        self._send("BYE", f"sip:{one.channel}@{one.peer}", one.to, one.peer, now_ms, _Ending(one.call_id),
                   call_id=one.call_id, from_tag=one.from_tag, cseq=one.cseq)  # fmt: skip

    def steer(self, dialog: str, body: bytes, now_ms: int) -> None:
        """INFO with a MANSRTSP body: pace and place of a playback. Raises LocalProtocolError if there is none."""
        one = self._dialogs.get(dialog)
        if one is None or not one.up:
            raise LocalProtocolError(f"no stream {dialog[:40]!r}", reason="dialog")
        one.cseq += 1
        self._send("INFO", f"sip:{one.channel}@{one.peer}", one.to, one.peer, now_ms, None, call_id=one.call_id,
                   from_tag=one.from_tag, cseq=one.cseq, more=(("Content-Type", "Application/MANSRTSP"),),
                   body=body)  # fmt: skip

    def _reach(self, device: str) -> Peer:
        peer = self.peer_of(device)
        if peer is None:
            raise LocalProtocolError(f"device {device} is not registered", reason="unregistered")
        return peer

    # -- requests of devices

    def _request(self, message: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        sender = headers.uri(message.get("From"))
        device = sender.user if sender is not None else ""
        match message.method:
            case "REGISTER":
                return self._register(message, device, peer, now_ms)
            case "MESSAGE" | "NOTIFY":
                return self._message(message, device, peer, now_ms)
            case "BYE":
                return self._bye_from(message, peer)
            case "OPTIONS":
                self._answer(message, peer, 200)
            case "ACK" | "CANCEL":
                pass
            case _:
                self._answer(message, peer, 405)
        return []

    def _register(self, message: SipMessage, device: str, peer: Peer, now_ms: int) -> list[Any]:
        password = self._accounts.get(device)
        if password is None:
            self._answer(message, peer, 403)
            return [Refused(device, peer, "stranger")]
        failures, since_ms = self._failures.get((device, peer.host), (0, now_ms))
        if now_ms - since_ms > FAILURE_MS:
            failures, since_ms = 0, now_ms
        if failures >= MOST_FAILURES:
            self._answer(message, peer, 403)
            return [Refused(device, peer, "locked")]
        given = headers.digest(message.get("Authorization"))
        if not given:
            self._challenge(message, peer, device, now_ms)
            return []
        reason = self._login(message, device, password, given, now_ms)
        if reason:
            # An old nonce is no attack: cameras refresh with the one they have and log in again when told.
            if reason == "password":
                self._failures[device, peer.host] = (failures + 1, since_ms)
                if len(self._failures) > 4_096:
                    self._failures.popitem(last=False)
            self._challenge(message, peer, device, now_ms, stale=reason == "replay")
            return [Refused(device, peer, reason)]
        self._failures.pop((device, peer.host), None)
        return self._admit(message, device, peer, now_ms)

    def _login(self, message: SipMessage, device: str, password: str, given: Mapping[str, str], now_ms: int) -> str:
        """Why not, "" if it is right."""
        algorithm = (given.get("algorithm") or "MD5").upper().removesuffix("-SESS")
        if algorithm != self._algorithm:
            return "algorithm"
        if given.get("username") != device or not digest.fits(message.method, password, given):
            return "password"
        # Only a right answer uses a nonce up: nobody else can spend the camera's.
        return {"ok": "", "stale": "replay", "wrong": "replay"}[
            self._nonces.use(given.get("nonce", ""), device, now_ms)
        ]

    def _challenge(self, message: SipMessage, peer: Peer, device: str, now_ms: int, *, stale: bool = False) -> None:
        text = f'Digest realm="{self.realm}",nonce="{self._nonces.issue(device, now_ms)}",algorithm={self._algorithm}'
        self._answer(message, peer, 401, (("WWW-Authenticate", text + (",stale=true" if stale else "")),))

    def _admit(self, message: SipMessage, device: str, peer: Peer, now_ms: int) -> list[Any]:
        text = message.get("Expires") or headers.parameters(message.get("Contact")).get("expires", "")
        asked_s = int(text) if text.isdecimal() and len(text) < 10 else 3_600
        contact = (("Contact", message.get("Contact")),) if message.get("Contact") else ()
        if asked_s == 0:
            self._answer(
                message, peer, 200, (*contact, ("Expires", "0"), ("Date", date_text(now_ms + self.utc_ahead_ms)))
            )
            return [self._end(device, "logoff")] if device in self._registered else []
        expires_s = min(max(asked_s, LEAST_EXPIRES_S), MOST_EXPIRES_S)
        before = self._registered.get(device)
        self._registered[device] = _Registration(peer, now_ms + expires_s * 1000 + GRACE_MS)
        self._answer(
            message, peer, 200, (*contact, ("Expires", str(expires_s)), ("Date", date_text(now_ms + self.utc_ahead_ms)))
        )
        first = before is None or before.peer.host != peer.host
        agent, version = message.get("User-Agent"), message.get("X-GB-Ver")
        return [Registered(device, peer, expires_s, agent, version, first)]

    def _end(self, device: str, reason: str) -> Gone:
        self._registered.pop(device, None)
        for name in [name for name, one in self._dialogs.items() if one.device == device]:
            del self._dialogs[name]
        return Gone(device, reason)

    def _message(self, message: SipMessage, device: str, peer: Peer, now_ms: int) -> list[Any]:
        one = self._registered.get(device)
        if one is None or one.peer.host != peer.host:
            # 403 makes a camera register anew, e.g. after this gateway was restarted.
            self._answer(message, peer, 403)
            known = device in self._accounts
            return [Refused(device, peer, ("moved" if one else "unregistered") if known else "stranger")]
        one.peer = peer  # its port behind NAT, or its TCP connection, may be a new one
        try:
            body = manscdp.parse(message.body)
        except RemoteProtocolError as error:
            self._answer(message, peer, 400)
            return [Garbled(device, error)]
        self._answer(message, peer, 200)
        if body.root == "Notify" and body.command == "Alarm":
            self.ask(device, "", "", now_ms, body=manscdp.body("Response", "Alarm", body.serial or "0",
                                                               body.device or device, Result="OK"))  # fmt: skip
        if body.root == "Response" and body.command == "Catalog":
            return self._catalogue(device, body, now_ms)
        return [Said(device, body)]

    def _catalogue(self, device: str, body: Body, now_ms: int) -> list[Any]:
        key = (device, body.serial)
        one = self._collecting.get(key)
        if one is None:
            return [Said(device, body)]
        one.due_ms = now_ms + CATALOGUE_SILENCE_MS
        one.total = min(body.total or 0, MOST_CHANNELS)
        for item in body.items:
            found = manscdp.channel(item)
            if found is not None and len(one.channels) < MOST_CHANNELS:
                one.channels[found.id] = found
        if len(one.channels) < one.total:
            return []
        del self._collecting[key]
        return [Catalogue(device, tuple(one.channels.values()), one.total, complete=True)]

    # -- streams

    def _finished(self, end: Finished, request: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        match end.context:
            case _Inviting(name):
                return self._invited(name, end, peer, now_ms)
            case _Ending(name):
                one = self._dialogs.pop(name, None)
                return [Media(name, one.device, one.channel, None, "ended")] if one is not None else []
        return [end] if end.context is not None else []

    def _invited(self, name: str, end: Finished, peer: Peer, now_ms: int) -> list[Any]:
        one = self._dialogs.get(name)
        if one is None:
            return []
        if end.message is None or not end.ok:
            del self._dialogs[name]
            if end.message is not None:
                self._ack(one, end.message, now_ms)
            return [Media(name, one.device, one.channel, None, f"status {end.status}" if end.status else "no answer")]
        one.to = end.message.get("To")
        one.up = True
        self._ack(one, end.message, now_ms)
        try:
            answer = sdp.parse(end.message.body)
        except RemoteProtocolError:
            answer = None
        if answer is None or one.ended:
            one.ended = True
            self._bye(one, now_ms)
            return [] if answer else [Media(name, one.device, one.channel, None, "no SDP")]
        return [Media(name, one.device, one.channel, answer)]

    def _ack(self, one: _Dialog, answer: SipMessage, now_ms: int) -> None:
        self._send("ACK", f"sip:{one.channel}@{one.peer}", answer.get("To"), one.peer, now_ms, call_id=one.call_id,
                   from_tag=one.from_tag, cseq=1)  # fmt: skip

    def _late(self, message: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        one = self._dialogs.get(message.get("Call-ID"))
        if one is not None and message.cseq[1] == "INVITE" and 200 <= message.status < 300:
            self._ack(one, message, now_ms)  # the camera did not get our ACK
        return []

    def _bye_from(self, message: SipMessage, peer: Peer) -> list[Any]:
        one = self._dialogs.pop(message.get("Call-ID"), None)
        if one is None or one.peer.host != peer.host:
            self._answer(message, peer, 481)
            return []
        self._answer(message, peer, 200)
        return [Media(one.call_id, one.device, one.channel, None, "ended by the camera")]

    # -- time

    def deadline(self) -> int | None:
        times = [one.until_ms for one in self._registered.values()]
        times += [one.due_ms for one in self._collecting.values()]
        if (repeat_ms := super().deadline()) is not None:
            times.append(repeat_ms)
        return min(times, default=None)

    def tick(self, now_ms: int) -> list[Any]:
        out = super().tick(now_ms)
        out += [
            self._end(device, "expired") for device, one in list(self._registered.items()) if now_ms >= one.until_ms
        ]
        for (device, serial), one in list(self._collecting.items()):
            if now_ms >= one.due_ms:
                del self._collecting[device, serial]
                out.append(Catalogue(device, tuple(one.channels.values()), one.total, complete=False))
        return out
