"""Photos and recordings (JT/T 808), and the signalling of live video (JT/T 1078-2016, clause 5.5 on).

The pictures themselves belong to whoever asked for them; the media streams of JT/T 1078 belong in a media server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from protocols.jt808 import position as places
from protocols.jt808.body import Body
from protocols.jt808.fields import Reader, Writer, time_ms
from protocols.jt808.frame import Version
from protocols.jt808.position import FIXED_SIZE, Position

_EVENT = (
    ("media_id", "u32"), ("media_type", "u8"), ("format", "u8"), ("event", "u8"), ("channel", "u8"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MediaEvent(Body):
    """0800: 0 id u32, 4 type u8 (0 image, 1 audio, 2 video), 5 format u8 (0 jpeg, 1 tif, 2 mp3, 3 wav, 4 wmv), 6 event
    u8, 7 channel u8."""

    media_id: int
    media_type: int
    format: int
    event: int
    channel: int
    MSG_ID: ClassVar[int] = 0x0800
    FIELDS: ClassVar = _EVENT


@dataclass(frozen=True, slots=True)
class MediaData(Body):
    """0801: the 8 bytes of 0800, 8 a position of 28 bytes (missing in 2011), the data. Answered by 8800."""

    media_id: int
    media_type: int
    format: int
    event: int
    channel: int
    location: Position | None
    data: bytes
    MSG_ID: ClassVar[int] = 0x0801

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        number, kind, form = reader.u32("media_id"), reader.u8("media_type"), reader.u8("format")
        event, channel = reader.u8("event"), reader.u8("channel")
        location = None
        if _is_position(reader.data[reader.at : reader.at + FIXED_SIZE]):
            with reader.within("location"):
                location = places.tell(reader, FIXED_SIZE)
        return cls(number, kind, form, event, channel, location, reader.blob("data_hex"))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u32(self.media_id, "media_id")
        for name, _ in _EVENT[1:]:
            writer.u8(getattr(self, name), name)
        if self.location is not None:
            writer.blob(places.encode(self.location))
        writer.blob(self.data)


def _is_position(data: bytes) -> bool:
    """Or already the picture of a 2011 device: a file's first bytes make no direction and no time."""
    if len(data) < FIXED_SIZE or data[:3] == b"\xff\xd8\xff":
        return False
    return int.from_bytes(data[20:22], "big") <= 360 and (time_ms(data[22:28]) is not None or not any(data[22:28]))


@dataclass(frozen=True, slots=True)
class MediaAnswer(Body):
    """8800: media id u32; if parts are missing: count u8, indexes u16."""

    media_id: int
    missing: tuple[int, ...] = ()
    MSG_ID: ClassVar[int] = 0x8800

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        number = reader.u32("media_id")
        if not reader.left:
            return cls(number)
        count, at = reader.u8("count"), reader.at
        missing = tuple(int.from_bytes(reader.take(2, "missing"), "big") for _ in range(count))
        reader.mark("missing", at, list(missing))
        return cls(number, missing)

    def write(self, writer: Writer, version: Version) -> None:
        writer.u32(self.media_id, "media_id")
        if self.missing:
            writer.u8(len(self.missing), "count")
            for index in self.missing:
                writer.u16(index, "index")


@dataclass(frozen=True, slots=True)
class TakePhoto(Body):
    """8801: 0 channel u8, 1 command u16 (0 stop, FFFF record, else number of pictures), 3 interval u16 s, 5 save u8,
    6 resolution u8 ... Answered by 0805, then 0800 and 0801."""

    channel: int
    command: int
    interval: int = 0
    save: int = 0
    resolution: int = 1
    quality: int = 5
    brightness: int = 127
    contrast: int = 64
    saturation: int = 64
    chroma: int = 127
    MSG_ID: ClassVar[int] = 0x8801
    FIELDS: ClassVar = (
        ("channel", "u8"), ("command", "u16"), ("interval", "u16"), ("save", "u8"), ("resolution", "u8"),
        ("quality", "u8"), ("brightness", "u8"), ("contrast", "u8"), ("saturation", "u8"), ("chroma", "u8"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PhotoAnswer(Body):
    """0805: ack serial u16, result u8 (0 ok, 1 failed, 2 channel not supported); if 0: count u16, ids u32."""

    ack_sn: int
    result: int
    ids: tuple[int, ...] = ()
    MSG_ID: ClassVar[int] = 0x0805

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        serial, result = reader.u16("ack_sn"), reader.u8("result")
        if result or not reader.left:
            return cls(serial, result)
        count, at = reader.u16("count"), reader.at
        ids = tuple(int.from_bytes(reader.take(4, "ids"), "big") for _ in range(count))
        reader.mark("ids", at, list(ids))
        return cls(serial, result, ids)

    def write(self, writer: Writer, version: Version) -> None:
        writer.u16(self.ack_sn, "ack_sn").u8(self.result, "result")
        if self.result == 0 and self.ids:
            writer.u16(len(self.ids), "count")
            for number in self.ids:
                writer.u32(number, "id")


# -- JT/T 1078: signalling only


@dataclass(frozen=True, slots=True)
class LiveRequest(Body):
    """9101. ``data_type``: 0 audio and video, 1 video, 2 talk, 3 listen, 4 broadcast, 5 transparent."""

    server: str
    tcp_port: int
    udp_port: int
    channel: int
    data_type: int
    stream_type: int
    MSG_ID: ClassVar[int] = 0x9101
    FIELDS: ClassVar = (
        ("server", "counted"), ("tcp_port", "u16"), ("udp_port", "u16"), ("channel", "u8"), ("data_type", "u8"),
        ("stream_type", "u8"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LiveControl(Body):
    """9102. ``command``: 0 close, 1 switch, 2 pause, 3 resume, 4 close talk."""

    channel: int
    command: int
    close_type: int
    stream_type: int
    MSG_ID: ClassVar[int] = 0x9102
    FIELDS: ClassVar = (("channel", "u8"), ("command", "u8"), ("close_type", "u8"), ("stream_type", "u8"))


@dataclass(frozen=True, slots=True)
class LossReport(Body):
    """9105."""

    channel: int
    loss: int
    MSG_ID: ClassVar[int] = 0x9105
    FIELDS: ClassVar = (("channel", "u8"), ("loss", "u8"))


@dataclass(frozen=True, slots=True)
class PlaybackRequest(Body):
    """9201, answered by 1205."""

    server: str
    tcp_port: int
    udp_port: int
    channel: int
    media_type: int
    stream_type: int
    storage: int
    mode: int
    speed: int
    start: bytes
    end: bytes
    MSG_ID: ClassVar[int] = 0x9201
    FIELDS: ClassVar = (
        ("server", "counted"), ("tcp_port", "u16"), ("udp_port", "u16"), ("channel", "u8"), ("media_type", "u8"),
        ("stream_type", "u8"), ("storage", "u8"), ("mode", "u8"), ("speed", "u8"), ("start", "time6"),
        ("end", "time6"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlaybackControl(Body):
    """9202."""

    channel: int
    command: int
    speed: int
    time: bytes
    MSG_ID: ClassVar[int] = 0x9202
    FIELDS: ClassVar = (("channel", "u8"), ("command", "u8"), ("speed", "u8"), ("time", "time6"))


@dataclass(frozen=True, slots=True)
class ResourceQuery(Body):
    """9205, answered by 1205."""

    channel: int
    start: bytes
    end: bytes
    alarm: bytes
    media_type: int
    stream_type: int
    storage: int
    MSG_ID: ClassVar[int] = 0x9205
    FIELDS: ClassVar = (
        ("channel", "u8"), ("start", "time6"), ("end", "time6"), ("alarm", "blob8"), ("media_type", "u8"),
        ("stream_type", "u8"), ("storage", "u8"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FtpUpload(Body):
    """9206, answered by 1206."""

    server: str
    port: int
    user: str
    password: str
    path: str
    channel: int
    start: bytes
    end: bytes
    alarm: bytes
    media_type: int
    stream_type: int
    storage: int
    conditions: int
    MSG_ID: ClassVar[int] = 0x9206
    FIELDS: ClassVar = (
        ("server", "counted"), ("port", "u16"), ("user", "counted"), ("password", "counted"), ("path", "counted"),
        ("channel", "u8"), ("start", "time6"), ("end", "time6"), ("alarm", "blob8"), ("media_type", "u8"),
        ("stream_type", "u8"), ("storage", "u8"), ("conditions", "u8"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FtpControl(Body):
    """9207."""

    ack_sn: int
    command: int
    MSG_ID: ClassVar[int] = 0x9207
    FIELDS: ClassVar = (("ack_sn", "u16"), ("command", "u8"))


@dataclass(frozen=True, slots=True)
class FtpResult(Body):
    """1206."""

    ack_sn: int
    result: int
    MSG_ID: ClassVar[int] = 0x1206
    FIELDS: ClassVar = (("ack_sn", "u16"), ("result", "u8"))


@dataclass(frozen=True, slots=True)
class AudioVideoProperties(Body):
    """1003, answer to 9003."""

    audio_coding: int
    audio_channels: int
    sample_rate: int
    sample_bits: int
    frame_length: int
    audio_output: int
    video_coding: int
    max_audio: int
    max_video: int
    MSG_ID: ClassVar[int] = 0x1003
    FIELDS: ClassVar = (
        ("audio_coding", "u8"), ("audio_channels", "u8"), ("sample_rate", "u8"), ("sample_bits", "u8"),
        ("frame_length", "u16"), ("audio_output", "u8"), ("video_coding", "u8"), ("max_audio", "u8"),
        ("max_video", "u8"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AudioVideoQuery(Body):
    """9003."""

    MSG_ID: ClassVar[int] = 0x9003


@dataclass(frozen=True, slots=True)
class PassengerFlow(Body):
    """1005."""

    start: bytes
    end: bytes
    boarded: int
    alighted: int
    MSG_ID: ClassVar[int] = 0x1005
    FIELDS: ClassVar = (("start", "time6"), ("end", "time6"), ("boarded", "u16"), ("alighted", "u16"))


@dataclass(frozen=True, slots=True)
class Resource(Body):
    """One recording, 28 bytes."""

    channel: int
    start: bytes
    end: bytes
    alarm: bytes
    media_type: int
    stream: int
    storage: int
    size: int
    MSG_ID: ClassVar[int] = -1  # only inside 1205
    FIELDS: ClassVar = (
        ("channel", "u8"), ("start", "time6"), ("end", "time6"), ("alarm", "blob8"), ("media_type", "u8"),
        ("stream", "u8"), ("storage", "u8"), ("size", "u32"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResourceList(Body):
    """1205: ack serial u16, total u32, items of 28 bytes."""

    ack_sn: int
    items: tuple[Resource, ...]
    MSG_ID: ClassVar[int] = 0x1205

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        serial, total = reader.u16("ack_sn"), reader.u32("total")
        items: list[Resource] = []
        # The count is 32 bits: what is there decides, and a count beyond it ends in "short".
        for _ in range(min(total, reader.left // 28 + 1)):
            with reader.item("items"):
                items.append(Resource.read(reader, version))
        return cls(serial, tuple(items))

    def write(self, writer: Writer, version: Version) -> None:
        writer.u16(self.ack_sn, "ack_sn").u32(len(self.items), "total")
        for item in self.items:
            item.write(writer, version)
