"""H.264 for one camera: pictures in, NAL units out, as a small hardware encoder would send them.

Baseline-like settings (no B pictures, no look-ahead), a key picture every second, so a client that joins late or has
lost data has a whole picture soon.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

CLOCK_HZ = 90_000  # RTP clock of video, RFC 6184 section 8.2.1
NAL_IDR, NAL_SPS, NAL_PPS = 5, 7, 8


def split_nal_units(stream: bytes) -> list[bytes]:
    """Annex B byte stream -> NAL units without start codes."""
    units: list[bytes] = []
    start = stream.find(b"\x00\x00\x01")
    while start >= 0:
        begin = start + 3
        start = stream.find(b"\x00\x00\x01", begin)
        end = len(stream) if start < 0 else start
        unit = stream[begin:end].rstrip(b"\x00")  # a four-byte start code leaves one zero behind
        if unit:
            units.append(unit)
    return units


class Encoder:
    """One H.264 encoder. ``encode`` returns the NAL units of one picture."""

    def __init__(self, width: int, height: int, fps: float, *, crf: int = 23) -> None:
        rate = Fraction(fps).limit_denominator(1000)
        codec = av.CodecContext.create("libx264", "w")
        codec.width, codec.height = width, height
        codec.pix_fmt = "yuv420p"
        codec.framerate = rate
        codec.time_base = Fraction(1, CLOCK_HZ)
        codec.gop_size = max(1, round(fps))
        codec.thread_count = 1
        codec.options = {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf), "bf": "0"}
        self._codec = codec

    def encode(self, picture: NDArray[np.uint8], t_s: float, *, key: bool = False) -> list[bytes]:
        """Encode one BGR picture taken at ``t_s``."""
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
        frame.pts = round(t_s * CLOCK_HZ)
        frame.time_base = Fraction(1, CLOCK_HZ)
        if key:
            frame.pict_type = av.video.frame.PictureType.I
        return [unit for packet in self._codec.encode(frame) for unit in split_nal_units(bytes(packet))]
