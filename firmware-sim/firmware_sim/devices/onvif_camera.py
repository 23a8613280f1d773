"""A PTZ camera with an ONVIF web service, on real sockets: enough SOAP for a client to find, ask and turn it.

One bus is one camera (``listen`` its web service; the device's ``address`` is its serial number). Discovery answers on
the same number over UDP, asked directly. Options: ``username`` (admin), ``fixed`` (true: no PTZ). ``password`` is the
log-in's. Faults: ``silence`` (takes connections, says nothing), ``restart``, ``clock_step``, ``refuse_login``,
``stuck`` (takes orders and does not move), ``broken_xml``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.links.base import Link
from firmware_sim.links.tcp import TcpListener, host_port
from firmware_sim.scene import Bus, Device, Scene
from protocols.core.errors import ConfigError, TransportError

#: Share of its way a dome turns in a second at full speed.
SPEED = 0.25
MOST_REQUEST = 64 * 1024
#: How far a log-in's time may be from the camera's own.
LOGIN_WINDOW_S = 30.0

_OPERATION = re.compile(rb"<(?:[\w-]+:)?Body[^>]*>\s*<(?:[\w-]+:)?(\w+)")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_DEVICE = "http://www.onvif.org/ver10/device/wsdl"
_MEDIA = "http://www.onvif.org/ver10/media/wsdl"
_PTZ = "http://www.onvif.org/ver20/ptz/wsdl"
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
    f'xmlns:tt="http://www.onvif.org/ver10/schema" xmlns:tds="{_DEVICE}" xmlns:trt="{_MEDIA}" xmlns:tptz="{_PTZ}" '
    'xmlns:ter="http://www.onvif.org/ver10/error"><s:Body>'
)
_TAIL = "</s:Body></s:Envelope>"
_OPEN = frozenset({"GetSystemDateAndTime"})  # needs no log-in


@dataclass
class Dome:
    """Where it looks, and how it moves; time is an argument (seconds)."""

    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    speed: tuple[float, float, float] = (0.0, 0.0, 0.0)
    goal: tuple[float, float, float] | None = None
    since_s: float = 0.0

    def look(self, now_s: float) -> tuple[tuple[float, float, float], bool]:
        """Position and whether it moves."""
        past_s = max(0.0, now_s - self.since_s)
        if self.goal is not None:
            step = SPEED * past_s
            at = tuple(a + max(-step, min(step, g - a)) for a, g in zip(self.at, self.goal, strict=True))
            return (at[0], at[1], at[2]), at != self.goal
        low = (-1.0, -1.0, 0.0)
        at = tuple(
            max(least, min(1.0, a + v * SPEED * past_s)) for a, v, least in zip(self.at, self.speed, low, strict=True)
        )
        return (at[0], at[1], at[2]), any(self.speed)

    def order(
        self, now_s: float, *, speed: tuple[float, float, float] = (0.0, 0.0, 0.0),
        goal: tuple[float, float, float] | None = None,
    ) -> None:  # fmt: skip
        self.at, self.speed, self.goal, self.since_s = self.look(now_s)[0], speed, goal, now_s


class _Refused(Exception):
    """A SOAP fault; ``code``: its subcode."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class OnvifBus:
    """The LiveBus of kind ``onvif``."""

    def __init__(self, bus: Bus, scene: Scene, world: World) -> None:
        devices = scene.devices_on(bus.id)
        if len(devices) != 1 or bus.listen is None:
            raise ConfigError(f"bus {bus.id}: kind onvif: one camera, and listen")
        self._bus, self._world = bus, world
        self.device: Device = devices[0]
        self._faults = Faults(self.device.id, bus.kind, self.device.fault, world.seed, world.ledger)
        self._listener = TcpListener(bus.listen, self._serve, f"bus {bus.id}: listen")
        self._udp: asyncio.DatagramTransport | None = None
        self.dome = Dome()
        self.heard: list[str] = []  # operations, in order
        self.presets: dict[str, tuple[str, tuple[float, float, float]]] = {
            "1": ("路口东", (0.5, 0.1, 0.2)),
            "2": ("路口西", (-0.5, 0.1, 0.0)),
        }

    @property
    def address(self) -> str:
        return self._listener.address

    async def open(self) -> None:
        await self._listener.resume()
        host, port = host_port(self._listener.address, "listen")
        self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Discovery(self), local_addr=(host, port)
        )

    def describe(self) -> list[str]:
        return [f"{self._bus.kind:12} {self.address}  {self.device.id} ({self.device.address})"]

    async def run(self) -> None:
        while True:
            now_ms, t_s = self._now()
            if self._faults.off(t_s, now_ms):
                await self._listener.pause()
            else:
                await self._listener.resume()
            change_s = self._faults.next_change_s(t_s)
            if change_s is None:
                await asyncio.get_running_loop().create_future()  # until cancelled
            else:
                await asyncio.sleep(max(0.0, change_s - t_s))

    async def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
        await self._listener.pause()

    def _now(self) -> tuple[int, float]:
        now_ms = self._world.clock.now_ms()
        return now_ms, self._world.t_s(now_ms)

    def _own_ms(self) -> int:
        """What the camera's own clock says."""
        now_ms, t_s = self._now()
        return now_ms + self._faults.clock_offset_ms(t_s, now_ms, self._world.start_ms)

    # -- HTTP -----------------------------------------------------------------------------------------------------
    async def _serve(self, link: Link) -> None:
        held = b""
        with contextlib.suppress(TransportError):
            while data := await link.read():
                held += data
                head, blank, rest = held.partition(b"\r\n\r\n")
                if not blank and len(held) <= MOST_REQUEST:
                    continue
                found = _LENGTH.search(head)
                length = int(found[1]) if found else 0
                if length > MOST_REQUEST or len(held) > MOST_REQUEST:
                    return
                if len(rest) < length:
                    continue
                body, held = rest[:length], rest[length:]
                now_ms, t_s = self._now()
                if self._faults.silent(t_s, now_ms):
                    continue
                status, reply = self._answer(body)
                outgoing = self._faults.outgoing(reply.encode(), t_s, now_ms)
                if outgoing.delay_s:
                    await asyncio.sleep(outgoing.delay_s)
                text = "OK" if status == 200 else "Internal Server Error"
                await link.write(
                    f"HTTP/1.1 {status} {text}\r\nContent-Type: application/soap+xml; charset=utf-8\r\n"
                    f"Content-Length: {len(outgoing.data)}\r\n\r\n".encode()
                    + outgoing.data
                )

    def _answer(self, body: bytes) -> tuple[int, str]:
        now_ms, t_s = self._now()
        if self._faults.on("broken_xml", t_s, now_ms):
            return 200, _HEAD + "<oops>"
        found = _OPERATION.search(body)
        name = found[1].decode() if found else ""
        self.heard.append(name)
        try:
            if name not in _OPEN:
                self._check_login(body)
            act: Callable[[bytes], str] | None = getattr(self, f"_do_{name}", None)
            if act is None:
                raise _Refused("ter:ActionNotSupported", f"{name} is not supported")
            return 200, _HEAD + act(body) + _TAIL
        except _Refused as refused:
            return 500, (
                f"{_HEAD}<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{refused.code}</s:Value>"
                f'</s:Subcode></s:Code><s:Reason><s:Text xml:lang="en">{refused}</s:Text></s:Reason></s:Fault>{_TAIL}'
            )

    def _check_login(self, body: bytes) -> None:
        """WS-UsernameToken: Base64(SHA1(nonce + created + password)), created near the camera's own time."""
        now_ms, t_s = self._now()
        parts = {name: _text(body, name) for name in ("Username", "Password", "Nonce", "Created")}
        try:
            nonce = base64.b64decode(parts["Nonce"])
            created = datetime.fromisoformat(parts["Created"].replace("Z", "+00:00"))
        except ValueError:
            raise _Refused("ter:NotAuthorized", "not authorized") from None
        secret = nonce + parts["Created"].encode() + self.device.password.encode()
        wanted = base64.b64encode(hashlib.sha1(secret, usedforsecurity=False).digest()).decode()
        near = abs(created.timestamp() - self._own_ms() / 1000) <= LOGIN_WINDOW_S
        user = str(self.device.options.get("username", "admin"))
        refused = self._faults.on("refuse_login", t_s, now_ms)
        if refused or not near or parts["Username"] != user or parts["Password"] != wanted:
            raise _Refused("ter:NotAuthorized", "not authorized")

    # -- device and media -----------------------------------------------------------------------------------------
    def _do_GetSystemDateAndTime(self, body: bytes) -> str:
        own = datetime.fromtimestamp(self._own_ms() / 1000, UTC)
        return (
            "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>NTP</tt:DateTimeType>"
            "<tt:DaylightSavings>false</tt:DaylightSavings><tt:UTCDateTime>"
            f"<tt:Time><tt:Hour>{own.hour}</tt:Hour><tt:Minute>{own.minute}</tt:Minute>"
            f"<tt:Second>{own.second}</tt:Second></tt:Time><tt:Date><tt:Year>{own.year}</tt:Year>"
            f"<tt:Month>{own.month}</tt:Month><tt:Day>{own.day}</tt:Day></tt:Date></tt:UTCDateTime>"
            "</tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"
        )

    def _do_GetServices(self, body: bytes) -> str:
        # An inner address, as a camera behind NAT names it: who follows it finds nobody.
        names = ((_DEVICE, "device_service"), (_MEDIA, "media"), (_PTZ, "ptz"))
        services = "".join(
            f"<tds:Service><tds:Namespace>{space}</tds:Namespace><tds:XAddr>http://192.0.2.64:80/onvif/{path}</tds:XAddr>"
            "<tds:Version><tt:Major>2</tt:Major><tt:Minor>60</tt:Minor></tds:Version></tds:Service>"
            for space, path in names
        )
        return f"<tds:GetServicesResponse>{services}</tds:GetServicesResponse>"

    def _do_GetDeviceInformation(self, body: bytes) -> str:
        return (
            "<tds:GetDeviceInformationResponse><tds:Manufacturer>citybrain</tds:Manufacturer><tds:Model>SIM-DOME</tds:Model>"
            f"<tds:FirmwareVersion>1.0</tds:FirmwareVersion><tds:SerialNumber>{self.device.address}</tds:SerialNumber>"
            "<tds:HardwareId>1</tds:HardwareId></tds:GetDeviceInformationResponse>"
        )

    def _do_GetProfiles(self, body: bytes) -> str:
        ptz = (
            '<tt:PTZConfiguration token="ptz"><tt:Name>ptz</tt:Name><tt:UseCount>1</tt:UseCount>'
            "<tt:NodeToken>node</tt:NodeToken></tt:PTZConfiguration>"
        )
        movable = "" if self.device.options.get("fixed") else ptz
        return (
            '<trt:GetProfilesResponse><trt:Profiles token="sub" fixed="true"><tt:Name>sub</tt:Name></trt:Profiles>'
            f'<trt:Profiles token="main" fixed="true"><tt:Name>main</tt:Name>{movable}</trt:Profiles>'
            "</trt:GetProfilesResponse>"
        )

    def _do_GetStreamUri(self, body: bytes) -> str:
        uri = f"rtsp://192.0.2.64:554/stream/{_text(body, 'ProfileToken')}"
        return (
            f"<trt:GetStreamUriResponse><trt:MediaUri><tt:Uri>{uri}</tt:Uri>"
            "<tt:InvalidAfterConnect>false</tt:InvalidAfterConnect><tt:InvalidAfterReboot>false</tt:InvalidAfterReboot>"
            "<tt:Timeout>PT60S</tt:Timeout></trt:MediaUri></trt:GetStreamUriResponse>"
        )

    # -- PTZ ------------------------------------------------------------------------------------------------------
    def _do_GetStatus(self, body: bytes) -> str:
        (pan, tilt, zoom), moving = self.dome.look(self._now()[1])
        word = "MOVING" if moving else "IDLE"
        own = datetime.fromtimestamp(self._own_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            "<tptz:GetStatusResponse><tptz:PTZStatus><tt:Position>"
            f'<tt:PanTilt x="{pan:.4f}" y="{tilt:.4f}"/><tt:Zoom x="{zoom:.4f}"/></tt:Position>'
            f"<tt:MoveStatus><tt:PanTilt>{word}</tt:PanTilt><tt:Zoom>{word}</tt:Zoom></tt:MoveStatus>"
            f"<tt:UtcTime>{own}</tt:UtcTime></tptz:PTZStatus></tptz:GetStatusResponse>"
        )

    def _order(self, answer: str, **order: Any) -> str:
        now_ms, t_s = self._now()
        if self.device.options.get("fixed"):
            raise _Refused("ter:PTZNotSupported", "no PTZ")
        if not self._faults.on("stuck", t_s, now_ms):
            self.dome.order(t_s, **order)
        return f"<tptz:{answer}Response/>"

    def _do_ContinuousMove(self, body: bytes) -> str:
        return self._order("ContinuousMove", speed=_vector(body))

    def _do_Stop(self, body: bytes) -> str:
        return self._order("Stop")

    def _do_AbsoluteMove(self, body: bytes) -> str:
        return self._order("AbsoluteMove", goal=_vector(body))

    def _do_GetPresets(self, body: bytes) -> str:
        presets = "".join(
            f'<tptz:Preset token="{token}"><tt:Name>{name}</tt:Name></tptz:Preset>'
            for token, (name, _) in self.presets.items()
        )
        return f"<tptz:GetPresetsResponse>{presets}</tptz:GetPresetsResponse>"

    def _do_GotoPreset(self, body: bytes) -> str:
        preset = self.presets.get(_text(body, "PresetToken"))
        if preset is None:
            raise _Refused("ter:NoToken", "no such preset")
        return self._order("GotoPreset", goal=preset[1])

    # -- discovery ------------------------------------------------------------------------------------------------
    def match(self, probe: bytes) -> bytes | None:
        """The answer to a probe; None for anything else."""
        question = _text(probe, "MessageID")
        if not question or b"Probe" not in probe:
            return None
        _, port = host_port(self.address, "listen")
        scopes = "onvif://www.onvif.org/name/SIM%20DOME onvif://www.onvif.org/hardware/SIM-DOME"
        return (
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
            'xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
            'xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"><s:Header>'
            f"<a:RelatesTo>{question}</a:RelatesTo></s:Header><s:Body><d:ProbeMatches><d:ProbeMatch>"
            f"<a:EndpointReference><a:Address>urn:uuid:{self.device.address}</a:Address></a:EndpointReference>"
            f"<d:Scopes>{scopes}</d:Scopes><d:XAddrs>http://192.0.2.64/onvif/device_service "
            f"http://127.0.0.1:{port}/onvif/device_service</d:XAddrs></d:ProbeMatch></d:ProbeMatches></s:Body></s:Envelope>"
        ).encode()


class _Discovery(asyncio.DatagramProtocol):
    def __init__(self, camera: OnvifBus) -> None:
        self._camera = camera
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        answer = self._camera.match(data)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


def _text(body: bytes, name: str) -> str:
    """The text of the first element of that name, whatever its prefix."""
    found = re.search(rb"<(?:[\w-]+:)?%b(?:\s[^>]*)?>([^<]*)<" % name.encode(), body)
    return found[1].decode(errors="replace").strip() if found else ""


def _vector(body: bytes) -> tuple[float, float, float]:
    """PanTilt x, y and Zoom x."""

    def number(element: bytes, name: bytes) -> float:
        tag = re.search(rb"<(?:[\w-]+:)?%b\s([^>]*)>" % element, body)
        found = re.search(rb"\b%b=\"(-?[\d.eE+-]+)\"" % name, tag[1]) if tag else None
        return float(found[1]) if found else 0.0

    return number(b"PanTilt", b"x"), number(b"PanTilt", b"y"), number(b"Zoom", b"x")
