"""Where pictures come from: a file, or a live camera. A live one is read in a thread that keeps only the newest frame.

Files by OpenCV, live streams by PyAV, because it tells a dead link from a wrong password and gives up in time (a
stalled camera: an error after 6 s where OpenCV returned nothing after 12 s and gave no reason). Opening again is the
agent's affair: errors here are typed and final for the source that raised them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import av
import cv2

from edge.vision.frame import Frame, Image
from protocols.core.errors import LinkDown, LinkRefused, LinkTimeout, TransportError

OPEN_TIMEOUT_S = 8.0
READ_TIMEOUT_S = 5.0
_EARLY_S = 0.1


class Source(Protocol):
    """Pictures in order. ``read`` returns None at the end of the material; raises TransportError when the link goes."""

    skipped: int  # frames that were overtaken by a newer one before anybody asked
    decode_errors: int

    def read(self) -> Frame | None: ...

    def close(self) -> None: ...


class FileSource:
    """A recording. Time is ``start_ms`` plus the presentation time in the file."""

    def __init__(self, path: str | Path, start_ms: int = 0) -> None:
        self.skipped = 0
        self.decode_errors = 0
        self._start_ms = start_ms
        if not Path(path).is_file():
            raise LinkRefused(f"no such file: {path}")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise LinkRefused(f"not a video that can be read: {path}")

    def read(self) -> Frame | None:
        ok, bgr = self._capture.read()
        if not ok:
            return None
        # After read() the position is that of the frame just given (OpenCV's FFmpeg backend).
        return Frame(self._start_ms + round(self._capture.get(cv2.CAP_PROP_POS_MSEC)), bgr)

    def close(self) -> None:
        self._capture.release()


class LiveSource:
    """An rtsp:// address or /dev/videoN, read in a thread. Frames carry the gateway's time at decoding.

    ``min_gap_ms``: pictures that follow closer are decoded (the next ones build on them) but not converted or given.
    """

    def __init__(
        self,
        url: str,
        now_ms: Callable[[], int],
        *,
        min_gap_ms: float = 0.0,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.skipped = 0
        self.decode_errors = 0
        self._url = url
        self._now_ms = now_ms
        self._min_gap_ms = min_gap_ms
        self._read_timeout_s = read_timeout_s
        self._ready = threading.Condition()
        self._newest: Frame | None = None
        self._ended = False
        self._error: TransportError | None = None
        self._fault: BaseException | None = None
        self._stop = threading.Event()
        self._heard_s = 0.0
        self._container = _open(url, open_timeout_s, read_timeout_s)
        self._thread = threading.Thread(target=self._pump, name="camera-reader", daemon=True)
        self._thread.start()

    def read(self) -> Frame | None:
        """The newest frame not yet given; waits for one. None once the camera has ended the stream."""
        with self._ready:
            # The thread's own time-out is the shorter one; this wait only guards against a decoder that hangs.
            arrived = self._ready.wait_for(
                lambda: self._newest or self._ended or self._error or self._fault, timeout=self._read_timeout_s + 5
            )
            if self._newest is not None:
                frame, self._newest = self._newest, None
                return frame
            if self._fault is not None:
                raise self._fault
            if self._error is not None:
                raise self._error
            if not arrived:
                raise LinkTimeout(f"{hide_login(self._url)}: no picture for {self._read_timeout_s + 5:g} s")
            return None

    def close(self) -> None:
        self._stop.set()
        self._thread.join(self._read_timeout_s + 5)

    def _pump(self) -> None:
        self._heard_s = time.monotonic()
        try:
            self._decode()
        except av.error.FFmpegError as error:
            silent_s = time.monotonic() - self._heard_s
            self._finish(error=_typed(self._url, error, timed_out=silent_s >= self._read_timeout_s - _EARLY_S))
        except Exception as error:  # handed to the reader of frames, which raises it again
            self._finish(fault=error)
        else:
            self._finish()
        finally:
            self._container.close()

    def _decode(self) -> None:
        stream = self._container.streams.video[0]
        given_ms: int | None = None
        for packet in self._container.demux(stream):
            self._heard_s = time.monotonic()
            if self._stop.is_set():
                return
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                self.decode_errors += 1  # a lost packet: the decoder finds its feet at the next key picture
                continue
            for frame in frames:
                now_ms = self._now_ms()
                if given_ms is not None and 0 <= now_ms - given_ms < self._min_gap_ms:
                    continue
                given_ms = now_ms
                bgr: Image = frame.to_ndarray(format="bgr24")
                with self._ready:
                    if self._newest is not None:
                        self.skipped += 1
                    self._newest = Frame(now_ms, bgr)
                    self._ready.notify_all()

    def _finish(self, error: TransportError | None = None, fault: BaseException | None = None) -> None:
        with self._ready:
            self._error, self._fault, self._ended = error, fault, True
            self._ready.notify_all()


def open_source(url: str, now_ms: Callable[[], int], *, min_gap_ms: float = 0.0) -> Source:
    """Open what a camera's ``url`` names. A file starts at the present time."""
    if "://" in url or url.startswith("/dev/video"):
        return LiveSource(url, now_ms, min_gap_ms=min_gap_ms)
    return FileSource(url, start_ms=now_ms())


def hide_login(url: str) -> str:
    """The address without user and password: it goes into logs."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if mark else url


def _open(url: str, open_timeout_s: float, read_timeout_s: float) -> Any:
    options = {"analyzeduration": "400000", "probesize": "65536", "fflags": "nobuffer"}
    file_format = None
    if url.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # UDP through a street cabinet's NAT loses pictures silently
    elif url.startswith("/dev/video"):
        file_format = "v4l2"
    started_s = time.monotonic()
    try:
        container = av.open(url, format=file_format, options=options, timeout=(open_timeout_s, read_timeout_s))
    except av.error.FFmpegError as error:
        waited_s = time.monotonic() - started_s
        raise _typed(url, error, timed_out=waited_s >= open_timeout_s - _EARLY_S) from error
    if not container.streams.video:
        container.close()
        raise LinkRefused(f"{hide_login(url)}: no video in it")
    container.streams.video[0].thread_type = "NONE"
    return container


def _typed(url: str, error: Any, *, timed_out: bool) -> TransportError:
    text = f"{hide_login(url)}: {error.strerror or error}"
    refused = (
        av.error.HTTPUnauthorizedError,
        av.error.HTTPForbiddenError,
        av.error.ProtocolNotFoundError,
        PermissionError,
    )  # "not found" is none of them: a recorder's channel and a USB camera come back
    if isinstance(error, refused):
        return LinkRefused(text)
    # PyAV breaks off with whatever the demuxer makes of it ("immediate exit", "invalid data"): the clock tells.
    if timed_out or isinstance(error, TimeoutError):
        return LinkTimeout(f"{hide_login(url)}: no answer in time")
    return LinkDown(text)
