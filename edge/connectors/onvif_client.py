"""One ONVIF camera behind our own types; the SOAP is onvif-zeep-async's.

Guarded, as measured on version 4.3: its import sets up logging for the whole process, its time-outs are 90 s, it keeps
WSDL in a database under the home folder (a service has none), and it follows whatever address the camera names (an
inner one behind NAT). The camera's clock is read first, without a login: a wrong one is the usual cause of "not
authorised".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from protocols.core.errors import ConfigError, DeviceError, LinkDown, LinkRefused, LinkTimeout

T = TypeVar("T")


def _library() -> ModuleType:
    """The library, with the process's logging left as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import onvif
    except ImportError as error:
        raise ConfigError(f"kind onvif needs onvif-zeep-async: {error}") from error
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.getLogger("onvif").setLevel(logging.WARNING)
    module: ModuleType = onvif
    return module


@dataclass(frozen=True, slots=True)
class Position:
    """Where it looks: -1 to 1, zoom 0 to 1; None where the camera does not say. ``moving`` None: not said."""

    pan: float | None = None
    tilt: float | None = None
    zoom: float | None = None
    moving: bool | None = None


@dataclass(frozen=True, slots=True)
class Info:
    maker: str
    model: str
    firmware: str
    serial: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A media profile; ``ptz``: it can move."""

    token: str
    name: str
    ptz: bool


class OnvifClient:
    """Every call raises DeviceError (the camera refused), LinkTimeout, LinkDown or LinkRefused (login)."""

    def __init__(
        self, host: str, port: int, username: str, password: str, *, profile: str = "", timeout_s: float = 5.0
    ) -> None:
        self._host, self._port = host, port
        self._username, self._password = username, password
        self._wanted = profile
        self._timeout_s = timeout_s
        self._camera: Any = None
        self._ptz: Any = None
        self._media: Any = None
        self._device: Any = None
        self.profiles: tuple[Profile, ...] = ()
        self.profile: Profile | None = None
        self.clock_off_s: float | None = None

    @property
    def open(self) -> bool:
        return self._camera is not None

    async def connect(self) -> None:
        """Read clock, services and profiles."""
        library = _library()
        camera = library.ONVIFCamera(
            self._host, self._port, self._username or None, self._password or None, no_cache=True,
            adjust_time=True, nat_override=True,
        )  # fmt: skip
        self._camera = camera
        try:
            await self._within(camera.update_xaddrs())
            if camera.dt_diff is not None:
                self.clock_off_s = camera.dt_diff.total_seconds()
            self._device = await self._within(camera.create_devicemgmt_service())
            self._media = await self._within(camera.create_media_service())
            found = await self._within(self._media.GetProfiles())
            self.profiles = tuple(
                Profile(str(one.token), str(one.Name or ""), getattr(one, "PTZConfiguration", None) is not None)
                for one in found or []
            )
            named = [one for one in self.profiles if one.token == self._wanted]
            if self._wanted and not named:
                known = ", ".join(one.token for one in self.profiles)
                raise DeviceError(f"no media profile {self._wanted!r}; the camera has {known or 'none'}")
            movable = [one for one in self.profiles if one.ptz]
            self.profile = next(iter([*named, *movable, *self.profiles]), None)
            if self.profile is not None and self.profile.ptz:
                self._ptz = await self._within(camera.create_ptz_service())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        camera, self._camera = self._camera, None
        self._ptz = self._media = self._device = None
        if camera is not None:
            await camera.close()

    async def info(self) -> Info:
        found = await self._within(self._device.GetDeviceInformation())
        return Info(*(str(getattr(found, name, "") or "")[:100] for name in _INFO))

    async def stream_uri(self) -> str:
        """Where the live stream is, with the camera's address as we reach it (it may name an inner one)."""
        setup = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
        found = await self._within(self._media.GetStreamUri({"StreamSetup": setup, "ProfileToken": self._token()}))
        parts = urlsplit(str(found.Uri))
        host = f"[{self._host}]" if ":" in self._host else self._host
        return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host))

    async def position(self) -> Position:
        if self._ptz is None:
            # A fixed camera: that it answers is all there is to know.
            await self._within(self._device.GetSystemDateAndTime())
            return Position()
        status = await self._within(self._ptz.GetStatus({"ProfileToken": self._token()}))
        where = getattr(status, "Position", None)
        turned, zoomed = getattr(where, "PanTilt", None), getattr(where, "Zoom", None)
        state = getattr(status, "MoveStatus", None)
        words = {str(getattr(state, name, "") or "") for name in ("PanTilt", "Zoom")} if state is not None else set()
        moving = True if "MOVING" in words else False if "IDLE" in words else None
        return Position(_number(turned, "x"), _number(turned, "y"), _number(zoomed, "x"), moving)

    async def move(self, pan: float, tilt: float, zoom: float) -> None:
        velocity = {"PanTilt": {"x": pan, "y": tilt}, "Zoom": {"x": zoom}}
        await self._order("ContinuousMove", {"Velocity": velocity})

    async def stop(self) -> None:
        await self._order("Stop", {"PanTilt": True, "Zoom": True})

    async def look_at(self, pan: float, tilt: float, zoom: float) -> None:
        await self._order("AbsoluteMove", {"Position": {"PanTilt": {"x": pan, "y": tilt}, "Zoom": {"x": zoom}}})

    async def goto(self, preset: str) -> None:
        await self._order("GotoPreset", {"PresetToken": preset})

    async def presets(self) -> dict[str, str]:
        """Name by token."""
        found = await self._within(self._needs_ptz().GetPresets({"ProfileToken": self._token()}))
        return {str(one.token): str(one.Name or "") for one in found or []}

    async def _order(self, name: str, arguments: dict[str, Any]) -> None:
        await self._within(getattr(self._needs_ptz(), name)({"ProfileToken": self._token(), **arguments}))

    def _needs_ptz(self) -> Any:
        if self._ptz is None:
            raise DeviceError("this camera cannot move")
        return self._ptz

    def _token(self) -> str:
        if self.profile is None:
            raise DeviceError("the camera has no media profile")
        return self.profile.token

    async def _within(self, call: Awaitable[T]) -> T:
        """A call of the library with our time-out and our errors."""
        import aiohttp
        from lxml.etree import LxmlError  # type: ignore[import-untyped]
        from onvif.exceptions import ONVIFAuthError, ONVIFError, ONVIFTimeoutError
        from zeep import exceptions as zeep

        where = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except (TimeoutError, ONVIFTimeoutError) as error:
            raise LinkTimeout(f"{where}: no answer within {self._timeout_s:g} s") from error
        except ONVIFAuthError as error:
            raise LinkRefused(f"{where}: login refused") from error
        except zeep.Fault as error:
            if "auth" in f"{error.code} {error.subcodes} {error.message}".lower():
                raise LinkRefused(f"{where}: login refused") from error
            raise DeviceError(f"{where}: {str(error.message)[:200]}") from error
        except (zeep.TransportError, aiohttp.ClientError, OSError) as error:
            if getattr(error, "status_code", 0) in (401, 403):
                raise LinkRefused(f"{where}: login refused") from error
            raise LinkDown(f"{where}: {str(error)[:200] or type(error).__name__}") from error
        except (zeep.Error, ONVIFError, LxmlError, EOFError, LookupError, *_UNREADABLE) as error:
            # What the camera said could not be read: its answers break the library in many ways.
            raise DeviceError(f"{where}: unreadable answer ({type(error).__name__}: {str(error)[:120]})") from error


#: What the library stumbles over in answers that are not as the standard says.
_UNREADABLE = (ValueError, AttributeError, TypeError, ArithmeticError, AssertionError)
_INFO = ("Manufacturer", "Model", "FirmwareVersion", "SerialNumber")


def _number(part: Any, name: str) -> float | None:
    value = getattr(part, name, None)
    return float(value) if isinstance(value, (int, float)) else None
