"""What the generic suite needs to know of GB/T 28181: SIP messages of platform and camera, XML and SDP in them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from protocols.gb28181 import manscdp
from protocols.gb28181.frame import MOST_BODY, MOST_HEAD, SipMessage

_digits = st.text("0123456789", min_size=1, max_size=10)
_gb_id = st.text("0123456789", min_size=20, max_size=20)
_word = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=20)
_name = st.text("路口摄像机 Camera&<>01", max_size=12)


@st.composite
def _headers(draw: st.DrawFn, method: str) -> tuple[tuple[str, str], ...]:
    one, other = draw(_gb_id), draw(_gb_id)
    return (
        ("Via", f"SIP/2.0/UDP 192.168.1.64:5060;rport;branch=z9hG4bK{draw(_word)}"),
        ("From", f"<sip:{one}@{one[:10]}>;tag={draw(_word)}"),
        ("To", f"<sip:{other}@{other[:10]}>"),
        ("Call-ID", draw(_word)),
        ("CSeq", f"{draw(st.integers(1, 9999))} {method}"),
        ("Max-Forwards", "70"),
    )


@st.composite
def _xml(draw: st.DrawFn) -> bytes:
    channels = [manscdp.Channel(draw(_gb_id), draw(_name)) for _ in range(draw(st.integers(0, 3)))]
    return manscdp.build(manscdp.catalogue_parts(channels, draw(_digits), draw(_gb_id))[0])


@st.composite
def request(draw: st.DrawFn) -> SipMessage:
    method = draw(st.sampled_from(["MESSAGE", "REGISTER", "INVITE", "BYE", "INFO", "NOTIFY"]))
    headers = draw(_headers(method))
    body = b""
    if method in ("MESSAGE", "NOTIFY"):
        body = draw(_xml())
        headers += (("Content-Type", manscdp.CONTENT_TYPE),)
    return SipMessage(method, f"sip:{draw(_gb_id)}@3401000000", headers=headers, body=body)


@st.composite
def response(draw: st.DrawFn) -> SipMessage:
    status, reason = draw(st.sampled_from([(100, "Trying"), (200, "OK"), (401, "Unauthorized"), (486, "Busy Here")]))
    return SipMessage(status=status, reason=reason, headers=draw(_headers("MESSAGE")))


def answer(request: Any) -> Any:
    return SipMessage(status=200, reason="OK", headers=request.headers[:5])


FIRST = SipMessage(
    "MESSAGE",
    "sip:34010000002000000001@3401000000",
    headers=(("Call-ID", "1097651024"), ("CSeq", "20 MESSAGE"), ("Content-Type", manscdp.CONTENT_TYPE)),
    body=manscdp.build(manscdp.body("Notify", "Keepalive", 43, "34010000001310000001", Status="OK")),
)
BOUND = MOST_HEAD + MOST_BODY + 4096
