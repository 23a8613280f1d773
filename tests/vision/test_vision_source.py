"""Files and live cameras: a real RTSP server, real clients (PyAV and OpenCV), and each way a link can fail."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.vision.source import FileSource, LiveSource, hide_login, open_source
from edge.vision.worker import CameraWorker
from firmware_sim.camera.file import write_mp4
from firmware_sim.camera.model import CameraModel
from firmware_sim.camera.scene import LaneScene
from firmware_sim.camera.server import RtspServer
from protocols.core.errors import LinkDown, LinkRefused, LinkTimeout
from protocols.core.model import Fact
from tests.vision.support import camera

Run = Callable[[Any], Any]


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def serve(on_loop: Run) -> Iterator[Callable[..., RtspServer]]:
    """Starts RTSP cameras whose scene begins at ``at_s``."""
    running: list[RtspServer] = []

    def start(at_s: float = 0.0, **table: Any) -> RtspServer:
        origin = time.monotonic() - at_s
        server = RtspServer(
            "127.0.0.1:0",
            [CameraModel.from_table({"id": "lane-cam-1", "fps": 10, **table})],
            elapsed_s=lambda: time.monotonic() - origin,
        )
        on_loop(server.start())
        running.append(server)
        return server

    yield start
    for server in running:
        on_loop(server.close())


def likeness(first: Any, second: Any) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


def test_pyav_and_opencv_watch_the_same_camera_at_once(
    serve: Callable[..., RtspServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    url = server.url("lane-cam-1")
    live = LiveSource(url, wall_ms)
    monkeypatch.setitem(os.environ, "OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|analyzeduration;400000")
    other = cv2.VideoCapture(url)
    try:
        first = live.read()
        assert first is not None
        ok, seen = other.read()
        assert ok
        empty = LaneScene(CameraModel.from_table({"id": "lane-cam-1"})).render(1.0)
        assert first.bgr.shape == seen.shape == empty.shape
        assert likeness(first.bgr, empty) < 6
        assert likeness(seen, empty) < 6
        assert server.viewers == 2
        stamps = [frame.ts_ms for frame in (live.read(), live.read(), live.read()) if frame]
        assert stamps == sorted(stamps)
        assert abs(stamps[-1] - wall_ms()) < 2000
    finally:
        live.close()
        other.release()


def test_only_the_newest_picture_is_kept(serve: Callable[..., RtspServer]) -> None:
    live = LiveSource(serve(fps=20).url("lane-cam-1"), wall_ms)
    try:
        assert live.read() is not None
        deadline = time.monotonic() + 20
        while live.skipped < 8:  # nobody reads; pictures go on coming
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        frame = live.read()
        assert frame is not None
        assert wall_ms() - frame.ts_ms < 1000
    finally:
        live.close()


def test_pictures_closer_than_asked_for_are_not_converted(serve: Callable[..., RtspServer]) -> None:
    live = LiveSource(serve(fps=20).url("lane-cam-1"), wall_ms, min_gap_ms=180)
    try:
        stamps = [frame.ts_ms for _ in range(5) if (frame := live.read())]
        assert min(np.diff(stamps)) >= 180
        assert live.skipped == 0
    finally:
        live.close()


def test_a_camera_switched_off_ends_and_is_not_found_after(serve: Callable[..., RtspServer]) -> None:
    server = serve(effect=[{"kind": "end", "at_s": 3.0, "for_s": 1000}])
    live = LiveSource(server.url("lane-cam-1"), wall_ms)
    try:
        frames = 0
        while live.read() is not None:
            frames += 1
        assert frames > 0
        assert live.read() is None
    except LinkDown:
        pass  # a closed connection in the middle of a picture is also an honest answer
    finally:
        live.close()
    with pytest.raises(LinkDown, match="404"):
        LiveSource(server.url("lane-cam-1"), wall_ms)


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(LinkDown, match="refused"):
            LiveSource(f"rtsp://127.0.0.1:{port}/1", wall_ms)


def test_a_camera_that_accepts_and_says_nothing_times_out_and_the_password_is_not_told() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(LinkTimeout) as caught:
            LiveSource(f"rtsp://admin:secret@127.0.0.1:{deaf.getsockname()[1]}/1", wall_ms, open_timeout_s=1.0)
    assert "secret" not in str(caught.value)


def test_a_camera_that_falls_silent_times_out(serve: Callable[..., RtspServer], on_loop: Run) -> None:
    """A relay stands between camera and client and stops passing bytes on: a frozen switch, a cut fibre."""
    server = serve()
    cut = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    relay = threading.Thread(target=_relay, args=(listener, server.port, cut), daemon=True)
    relay.start()
    live = LiveSource(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/lane-cam-1", wall_ms, read_timeout_s=1.0)
    try:
        assert live.read() is not None
        cut.set()
        with pytest.raises(LinkTimeout):
            for _ in range(50):
                live.read()
    finally:
        live.close()
        listener.close()


def _relay(listener: socket.socket, port: int, cut: threading.Event) -> None:
    client, _ = listener.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as camera_side:
        client.settimeout(0.01)
        camera_side.settimeout(0.01)
        while not cut.is_set():
            for source, target in ((client, camera_side), (camera_side, client)):
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                target.sendall(data)
        listener.settimeout(20)
        try:
            listener.accept()  # holds the silent connection open until the test closes the listener
        except OSError:
            return


@pytest.mark.parametrize("url", ["/nowhere/video.mp4", "nope.mp4"])
def test_a_missing_file_is_refused(url: str) -> None:
    with pytest.raises(LinkRefused, match="no such file"):
        open_source(url, wall_ms)


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    with pytest.raises(LinkRefused, match="not a video"):
        FileSource(path)


def test_a_recording_keeps_its_own_time_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "lane.mp4"
    model = CameraModel.from_table({"id": "c", "fps": 4, "effect": [{"kind": "end", "at_s": 3}]})
    assert write_mp4(model, path, 10.0) == 12
    source = FileSource(path, start_ms=1000)
    stamps = []
    while (frame := source.read()) is not None:
        stamps.append(frame.ts_ms)
    assert stamps == [1000 + 250 * i for i in range(12)]
    source.close()


def test_logins_are_hidden() -> None:
    assert hide_login("rtsp://admin:p%40ss@10.0.0.8:554/ch1") == "rtsp://10.0.0.8:554/ch1"
    assert hide_login("/dev/video0") == "/dev/video0"


# ---- the worker: from the wire to facts ----


def test_worker_states_a_standing_car_over_rtsp_and_keeps_the_empty_view(
    serve: Callable[..., RtspServer], tmp_path: Path
) -> None:
    # The scene begins shortly before the car arrives, so that the empty lane is learnt first.
    server = serve(at_s=4.0, actor=[{"kind": "car", "enter_s": 0, "stop_s": 600}])
    scene = LaneScene(CameraModel.from_table({"id": "c"}))
    config = camera(url=server.url("lane-cam-1"), analyse_fps=5, zone=[scene.ground().as_config()])
    facts: list[Fact] = []
    stop = threading.Event()

    def emit(some: Any) -> None:
        facts.extend(some)
        if any(f.kind == "zone.object" and f.values["static"] for f in some):
            stop.set()

    worker = CameraWorker(config, wall_ms, emit, state=tmp_path)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    last = facts[-1]
    assert last.values["cls"] == "vehicle"
    assert float(last.values["clear_width_m"]) == pytest.approx(2.4, abs=0.3)
    assert (tmp_path / "cam-1.background.png").is_file()
    counters = worker.counters()
    assert counters["analysed_total"] > 10
    assert counters["decode_errors_total"] == 0
    assert worker.still() is not None


def test_worker_says_lost_and_raises_for_its_supervisor() -> None:
    facts: list[Fact] = []
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"rtsp://127.0.0.1:{held.getsockname()[1]}/1"
        worker = CameraWorker(camera(url=url), wall_ms, facts.extend)
        with pytest.raises(LinkDown):
            worker.run(threading.Event())
    assert [f.values["code"] for f in facts] == ["lost"]


def test_worker_plays_a_recording_at_its_own_pace_and_says_ended(tmp_path: Path) -> None:
    path = tmp_path / "lane.mp4"
    write_mp4(CameraModel.from_table({"id": "c", "fps": 10}), path, 1.5)
    facts: list[Fact] = []
    started = time.monotonic()
    CameraWorker(camera(url=str(path)), wall_ms, facts.extend).run(threading.Event())
    assert time.monotonic() - started >= 1.3
    assert [f.values["code"] for f in facts if f.kind == "cam.state"] == ["ok", "ended"]
