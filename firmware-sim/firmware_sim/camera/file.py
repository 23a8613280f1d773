"""Writes a scene as an mp4 file: for a bench without a network, and for looking at a story by eye."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from firmware_sim.camera.geometry import HEIGHT_PX, WIDTH_PX
from firmware_sim.camera.model import CameraModel
from firmware_sim.camera.scene import LaneScene


def write_mp4(model: CameraModel, path: Path, duration_s: float, *, start_s: float = 0.0, crf: int = 23) -> int:
    """Draw ``duration_s`` seconds into ``path`` (H.264); stops where the scene ends. Returns the number of pictures."""
    scene = LaneScene(model)
    rate = Fraction(model.fps).limit_denominator(1000)
    written = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"preset": "veryfast", "crf": str(crf), "bf": "0"}
        for number in range(int(duration_s * model.fps)):
            t_s = start_s + number / model.fps
            if scene.ended(t_s):
                break
            frame = av.VideoFrame.from_ndarray(scene.render(t_s), format="bgr24")
            for packet in stream.encode(frame):
                container.mux(packet)
            written += 1
        for packet in stream.encode():
            container.mux(packet)
    return written
