"""What a platform asks of a station, and what a station answers: one function for each request a city uses.

Flow (HJ 212-2017, annex C): request with Flag 5 -> 9011 (QnRtn) -> data if any (same CN, same QN, Flag 4) -> 9012
(ExeRtn). A notice (2012, 2022) gets 9013. Stations mind QN: it names the exchange and must not come twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from protocols.core.errors import LocalProtocolError
from protocols.hj212.messages import Packet, format_qn, format_time
from protocols.hj212.names import COMMANDS

#: What the standard allows (tables of 1062 and 1064).
RTD_INTERVAL_S = (30, 3600)
MIN_INTERVALS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
#: Period data that can be asked for by time.
HISTORY = frozenset({"2031", "2041", "2051", "2061"})


def request(
    cn: str, mn: str, *, pw: str, st: str, qn_ms: int, fields: Mapping[str, str] | None = None, flag: int = 5
) -> Packet:
    """A request or notice with these parameters. Raises LocalProtocolError for a command nobody knows."""
    if cn not in COMMANDS or COMMANDS[cn].kind == "answer":
        raise LocalProtocolError(f"HJ 212 has no request {cn}", reason="format")
    return Packet(cn=cn, mn=mn, st=st, qn=format_qn(qn_ms), pw=pw, flag=flag, fields=dict(fields or {}))


def history(cn: str, mn: str, *, pw: str, st: str, qn_ms: int, begin_ms: int, end_ms: int) -> Packet:
    """Period data from ``begin_ms`` to ``end_ms``, both the START of a period (2031, 2041, 2051, 2061)."""
    if cn not in HISTORY:
        raise LocalProtocolError(f"HJ 212: {cn} has no history", reason="format")
    if begin_ms > end_ms:
        raise LocalProtocolError("HJ 212: a history ends before it begins", reason="range")
    fields = {"BeginTime": format_time(begin_ms), "EndTime": format_time(end_ms)}
    return request(cn, mn, pw=pw, st=st, qn_ms=qn_ms, fields=fields)


def set_interval(mn: str, *, pw: str, st: str, qn_ms: int, seconds: int) -> Packet:
    """1062: real-time data each ``seconds`` (30 to 3600)."""
    if not RTD_INTERVAL_S[0] <= seconds <= RTD_INTERVAL_S[1]:
        raise LocalProtocolError(f"HJ 212: RtdInterval {seconds} is outside 30..3600 s", reason="range")
    return request("1062", mn, pw=pw, st=st, qn_ms=qn_ms, fields={"RtdInterval": str(seconds)})


def set_minutes(mn: str, *, pw: str, st: str, qn_ms: int, minutes: int) -> Packet:
    """1064: minute data each ``minutes`` (a divisor of the hour)."""
    if minutes not in MIN_INTERVALS:
        raise LocalProtocolError(f"HJ 212: MinInterval {minutes} is none of {MIN_INTERVALS}", reason="range")
    return request("1064", mn, pw=pw, st=st, qn_ms=qn_ms, fields={"MinInterval": str(minutes)})


def set_retries(mn: str, *, pw: str, st: str, qn_ms: int, over_time_s: int, re_count: int) -> Packet:
    """1000: how long a station waits for an answer, and how often it repeats."""
    fields = {"OverTime": str(over_time_s), "ReCount": str(re_count)}
    return request("1000", mn, pw=pw, st=st, qn_ms=qn_ms, fields=fields)


def data_reply(asked: Packet, **content: Mapping[str, str] | Mapping[str, Mapping[str, str]]) -> Packet:
    """A station's data under the request's own CN and QN (``fields``, ``factors``); nobody answers them (Flag 4)."""
    return replace(asked, flag=4, **{"fields": {}, "factors": {}, **content})  # type: ignore[arg-type]
