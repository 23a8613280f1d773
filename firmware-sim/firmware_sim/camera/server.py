"""An RTSP camera on a TCP port: what an agent, VLC or ffplay would find at the end of the cable.

H.264 over RTP, interleaved in the RTSP connection (the only transport offered; UDP is answered 461). All clients of a
camera share one encoder; each starts at a key picture and has a bounded queue, so a client that does not read loses
pictures and holds nobody up. The scene's clock runs whether anyone watches or not; drawing happens only while
somebody does, in a thread, so that the rig's loop stays free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from firmware_sim.camera.encode import CLOCK_HZ, NAL_IDR, NAL_PPS, NAL_SPS, Encoder
from firmware_sim.camera.geometry import HEIGHT_PX, WIDTH_PX
from firmware_sim.camera.model import CameraModel
from firmware_sim.camera.rtp import Packetizer, interleave, sdp
from firmware_sim.camera.scene import LaneScene

_MAX_REQUEST = 16 * 1024
_QUEUE_PICTURES = 10
_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, GET_PARAMETER, SET_PARAMETER, TEARDOWN"


class _Viewer:
    """One client's side of a camera: a bounded queue of pictures."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[list[bytes], int] | None] = asyncio.Queue(_QUEUE_PICTURES)
        self._waits_for_key = True

    def offer(self, units: list[bytes], timestamp: int, *, key: bool) -> int:
        """Queue a picture; returns 1 if it was dropped for want of room."""
        if self._waits_for_key and not key:
            return 0
        if self.queue.full():
            self._waits_for_key = True  # what follows could not be decoded without the lost one
            return 1
        self._waits_for_key = False
        self.queue.put_nowait((units, timestamp))
        return 0

    def end(self) -> None:
        while self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class _Channel:
    """One camera behind the server: draws and encodes while it has viewers."""

    def __init__(self, model: CameraModel, elapsed_s: Callable[[], float]) -> None:
        self.model = model
        self.scene = LaneScene(model)
        self.viewers: set[_Viewer] = set()
        self.dropped = 0
        self._elapsed_s = elapsed_s
        self._task: asyncio.Task[None] | None = None
        head = Encoder(WIDTH_PX, HEIGHT_PX, model.fps).encode(self.scene.render(0.0), 0.0, key=True)
        self.sps = next(unit for unit in head if unit[0] & 0x1F == NAL_SPS)
        self.pps = next(unit for unit in head if unit[0] & 0x1F == NAL_PPS)

    def ended(self) -> bool:
        return self.scene.ended(self._elapsed_s())

    def join(self) -> _Viewer:
        viewer = _Viewer()
        self.viewers.add(viewer)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._produce(), name=f"camera-{self.model.id}")
        return viewer

    def leave(self, viewer: _Viewer) -> None:
        self.viewers.discard(viewer)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _produce(self) -> None:
        try:
            await self._produce_while_watched()
        finally:
            for viewer in self.viewers:
                viewer.end()  # nobody is left waiting for a picture, whatever ended the work

    async def _produce_while_watched(self) -> None:
        encoder = Encoder(WIDTH_PX, HEIGHT_PX, self.model.fps)
        period = 1.0 / self.model.fps
        number = int(self._elapsed_s() / period)
        while self.viewers:
            now = self._elapsed_s()
            # Pictures sit on the grid of the frame rate; a late loop skips pictures instead of running behind.
            number = max(number + 1, int(now / period))
            await asyncio.sleep(max(0.0, number * period - now))
            t_s = number * period
            if self.scene.ended(t_s):
                return
            units = await asyncio.to_thread(self._picture, encoder, t_s)
            key = any(unit[0] & 0x1F == NAL_IDR for unit in units)
            for viewer in self.viewers:
                self.dropped += viewer.offer(units, round(t_s * CLOCK_HZ), key=key)

    def _picture(self, encoder: Encoder, t_s: float) -> list[bytes]:
        return encoder.encode(self.scene.render(t_s), t_s)


class RtspServer:
    """Serves cameras at ``rtsp://host:port/<camera id>``.

    ``elapsed_s`` gives the seconds since the scene began (default: the running loop's time since ``start``).
    """

    def __init__(
        self, listen: str, cameras: Sequence[CameraModel], elapsed_s: Callable[[], float] | None = None
    ) -> None:
        self.host, _, port = listen.rpartition(":")
        self.port = int(port)
        self._models = tuple(cameras)
        self._elapsed_s = elapsed_s
        self._channels: dict[str, _Channel] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def url(self, camera_id: str) -> str:
        return f"rtsp://{self.host}:{self.port}/{camera_id}"

    @property
    def viewers(self) -> int:
        return sum(len(channel.viewers) for channel in self._channels.values())

    @property
    def dropped(self) -> int:
        """Pictures not sent because a client did not read."""
        return sum(channel.dropped for channel in self._channels.values())

    async def start(self) -> None:
        """Listen. Port 0 takes a free one (see ``port``)."""
        if self._elapsed_s is None:
            loop = asyncio.get_running_loop()
            origin = loop.time()
            self._elapsed_s = lambda: loop.time() - origin
        for model in self._models:
            self._channels[model.id] = await asyncio.to_thread(_Channel, model, self._elapsed_s)
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for channel in self._channels.values():
            await channel.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server always runs this in a task
        self._connections.add(task)
        try:
            await _Connection(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the client has gone or talks something else: its own affair
        except asyncio.CancelledError:
            if self._server is not None and self._server.is_serving():
                raise
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class _Connection:
    """One RTSP client: requests in, answers and interleaved pictures out."""

    def __init__(self, server: RtspServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._channel: _Channel | None = None
        self._viewer: _Viewer | None = None
        self._pump: asyncio.Task[None] | None = None
        self._rtp_channel = 0
        self._session = f"{id(self) & 0xFFFFFFFF:08x}"

    async def run(self) -> None:
        try:
            while (request := await self._request()) is not None:
                if not self._answer(*request):
                    break
                await self._writer.drain()
        finally:
            self._stop()

    def _stop(self) -> None:
        if self._channel is not None and self._viewer is not None:
            self._channel.leave(self._viewer)
        self._viewer = None
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None

    async def _request(self) -> tuple[str, str, dict[str, str]] | None:
        while True:
            first = await self._reader.read(1)
            if not first:
                return None
            if first == b"$":  # RTCP from the client: taken and ignored
                head = await self._reader.readexactly(3)
                await self._reader.readexactly(int.from_bytes(head[1:3], "big"))
                continue
            break
        text = (first + await self._reader.readuntil(b"\r\n\r\n"))[:_MAX_REQUEST].decode("utf-8", "replace")
        lines = text.split("\r\n")
        method, _, rest = lines[0].strip().partition(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = headers.get("content-length", "0")
        if length.isdigit() and 0 < int(length) <= _MAX_REQUEST:
            await self._reader.readexactly(int(length))
        return method, rest.rpartition(" ")[0], headers

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> bool:
        """Answer one request; False ends the connection."""
        sequence = headers.get("cseq", "0")
        if method == "OPTIONS":
            self._reply(200, "OK", sequence, {"Public": _METHODS})
        elif method in ("DESCRIBE", "SETUP"):
            name = url.partition("://")[2].partition("/")[2].partition("/")[0].partition("?")[0]
            channel = self._server._channels.get(name)
            if channel is None or channel.ended():
                self._reply(404, "Not Found", sequence)
            elif method == "DESCRIBE":
                body = sdp(self._server.host, channel.sps, channel.pps, channel.model.fps)
                extra = {"Content-Type": "application/sdp", "Content-Base": url.rstrip("/") + "/"}
                self._reply(200, "OK", sequence, extra, body)
            elif "TCP" not in headers.get("transport", ""):
                self._reply(461, "Unsupported Transport", sequence)
            else:
                self._channel = channel
                pair = headers["transport"].partition("interleaved=")[2].partition(";")[0].partition("-")[0]
                self._rtp_channel = int(pair) if pair.isdigit() and int(pair) < 255 else 0
                carried = f"RTP/AVP/TCP;unicast;interleaved={self._rtp_channel}-{self._rtp_channel + 1}"
                self._reply(200, "OK", sequence, {"Transport": carried, "Session": f"{self._session};timeout=60"})
        elif method == "PLAY" and self._channel is not None:
            self._reply(200, "OK", sequence, {"Session": self._session, "Range": "npt=now-"})
            if self._viewer is None:
                self._viewer = self._channel.join()
                self._pump = asyncio.create_task(self._send(self._channel, self._viewer))
        elif method == "PAUSE":
            self._stop()
            self._reply(200, "OK", sequence, {"Session": self._session})
        elif method in ("GET_PARAMETER", "SET_PARAMETER"):
            self._reply(200, "OK", sequence, {"Session": self._session})
        elif method == "TEARDOWN":
            self._reply(200, "OK", sequence, {"Session": self._session})
            return False
        elif method == "PLAY":
            self._reply(455, "Method Not Valid in This State", sequence)
        else:
            self._reply(501, "Not Implemented", sequence)
        return True

    def _reply(self, code: int, word: str, sequence: str, extra: dict[str, str] | None = None, body: str = "") -> None:
        lines = [f"RTSP/1.0 {code} {word}", f"CSeq: {sequence}"]
        lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body.encode())}")
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    async def _send(self, channel: _Channel, viewer: _Viewer) -> None:
        packetizer = Packetizer(ssrc=id(viewer) & 0xFFFFFFFF)
        with contextlib.suppress(ConnectionError):
            while (picture := await viewer.queue.get()) is not None:
                units, timestamp = picture
                for packet in packetizer.packets(units, timestamp):
                    self._writer.write(interleave(self._rtp_channel, packet))
                await self._writer.drain()
        channel.leave(viewer)
        self._writer.close()
