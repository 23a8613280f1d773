"""Messages of JT/T 808: who, which serial, what. The table of every body that is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.jt808 import areas, media, platform, terminal
from protocols.jt808.body import Body, Opaque
from protocols.jt808.fields import Reader, Writer
from protocols.jt808.frame import Frame, Version

#: Every body by its message id.
BODIES: dict[int, type[Body]] = {
    body.MSG_ID: body
    for body in (
        # from terminals
        terminal.TerminalAnswer, terminal.Heartbeat, terminal.Deregister, terminal.TimeQuery,
        platform.TerminalResendRequest, terminal.Register, terminal.Authenticate, terminal.ParameterAnswer,
        terminal.Properties, terminal.UpgradeResult, terminal.PositionReport, terminal.PositionAnswer,
        terminal.ControlAnswer, terminal.RecorderData, terminal.Waybill, terminal.DriverCard, terminal.BatchReport,
        terminal.CanData, media.MediaEvent, media.MediaData, media.PhotoAnswer, terminal.Transparent,
        terminal.Compressed, platform.TerminalRsaKey, media.AudioVideoProperties, media.PassengerFlow,
        media.ResourceList, media.FtpResult,
        # from platforms
        platform.PlatformAnswer, platform.ResendRequest, platform.ServerTime, platform.RegisterAnswer,
        platform.SetParameters, platform.QueryAllParameters, platform.TerminalControl, platform.QueryParameters,
        platform.QueryProperties, platform.UpgradeFile, platform.QueryPosition, platform.Follow,
        platform.ConfirmAlarm, platform.LinkCheck, platform.Text, platform.CallBack, platform.VehicleControl,
        areas.SetCircles, areas.SetRectangles, areas.SetPolygon, areas.SetRoute, platform.DeleteAreas,
        platform.DeleteRectangles, platform.DeletePolygons, platform.DeleteRoutes, media.MediaAnswer,
        media.TakePhoto, platform.RsaKey, media.AudioVideoQuery, media.LiveRequest, media.LiveControl,
        media.LossReport, media.PlaybackRequest, media.PlaybackControl, media.ResourceQuery, media.FtpUpload,
        media.FtpControl,
    )
}  # fmt: skip

#: What a platform answers with 8001 (unknown messages too, with result 3). 0801 gets 8800, 0100 gets 8100, 0004 gets
#: 8004; what answers a request of the platform gets nothing.
WANTS_ANSWER = frozenset(
    {0x0002, 0x0003, 0x0102, 0x0108, 0x0200, 0x0701, 0x0702, 0x0704, 0x0705, 0x0800, 0x0801, 0x0900, 0x0901, 0x0A00}
)
#: Answers to something the platform asked.
ANSWERS = frozenset({0x0001, 0x0104, 0x0107, 0x0201, 0x0500, 0x0608, 0x0700, 0x0802, 0x0805, 0x1003, 0x1205, 0x1206})


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``serial`` None: the endpoint gives the next one. ``last_serial``: what an answer names: the
    part that ends the message where it came in several, else ``serial``."""

    phone: str
    body: Body
    serial: int | None = None
    version: Version = "2013"
    protocol_version: int = 1
    encryption: int = 0
    flag_wrong: bool = False
    last_serial: int = field(default=-1, compare=False)

    @property
    def msg_id(self) -> int:
        return self.body.msg_id

    @property
    def ack_serial(self) -> int:
        return self.last_serial if self.last_serial >= 0 else self.serial or 0


def read_body(msg_id: int, reader: Reader, version: Version) -> Body:
    """Raises RemoteProtocolError where the body cannot be read."""
    known = BODIES.get(msg_id)
    if known is None:
        return Opaque(msg_id, reader.blob("data_hex"))
    return known.read(reader, version)


def parse(frame: Frame) -> Message:
    """A whole (joined) frame as a message. A body that cannot be read comes as :class:`Opaque`: the terminal is owed
    an answer all the same."""
    body: Body
    if frame.encryption:
        body = Opaque(frame.msg_id, frame.body, "encrypted", f"encryption {frame.encryption}")
    else:
        try:
            body = read_body(frame.msg_id, Reader(frame.body), frame.version)
        except RemoteProtocolError as error:
            body = Opaque(frame.msg_id, frame.body, "malformed", str(error))
    return Message(
        frame.phone, body, frame.serial, frame.version, frame.protocol_version, frame.encryption, frame.flag_wrong,
        frame.serial,
    )  # fmt: skip


def body_bytes(body: Body, version: Version) -> bytes:
    """Raises LocalProtocolError for what the body cannot say."""
    writer = Writer()
    body.write(writer, version)
    return writer.done()


def frames(message: Message, serial: int, max_body: int) -> list[Frame]:
    """The frames of a message, numbered from ``serial``: one, or sub-packages of ``max_body`` bytes each. Raises
    LocalProtocolError."""
    data = body_bytes(message.body, message.version)
    whole = Frame(
        message.msg_id, message.phone, serial & 0xFFFF, data, message.version, message.protocol_version,
        message.encryption, flag_wrong=message.flag_wrong,
    )  # fmt: skip
    if len(data) <= max_body:
        return [whole]
    pieces = [data[at : at + max_body] for at in range(0, len(data), max_body)]
    if len(pieces) > 0xFFFF:
        raise LocalProtocolError(f"JT/T 808 message of {len(data)} bytes", reason="length")
    return [
        replace(whole, serial=(serial + n) & 0xFFFF, body=piece, total=len(pieces), index=n + 1)
        for n, piece in enumerate(pieces)
    ]


def answer(message: Message, result: int = 0) -> Message:
    """The platform's general answer to a message of a terminal."""
    return reply(message, platform.PlatformAnswer(message.ack_serial, message.msg_id, result))


def terminal_answer(message: Message, result: int = 0) -> Message:
    """A terminal's general answer to a message of the platform."""
    return reply(message, terminal.TerminalAnswer(message.ack_serial, message.msg_id, result))


def reply(message: Message, body: Body, serial: int | None = None) -> Message:
    """Something to the same terminal (or from it) in the layout that it speaks."""
    return Message(message.phone, body, serial, message.version, message.protocol_version)
