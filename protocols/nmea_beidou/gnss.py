"""What receivers and instruments say, as values: pynmeagps reads the fields, this module decides what they are worth.

Measured with pynmeagps 1.1.8 and guarded here: a sentence cut short keeps its latitude without the hemisphere (a place
south of the equator would come out north of it); latitude 98 and time 99:61:99 pass; years below 80 are put into the
last century from 69 on; one odd satellite number makes it refuse the whole sentence; "no value" is an empty string.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pynmeagps import NMEAReader
from pynmeagps.exceptions import NMEAMessageError, NMEAParseError, NMEAStreamError, NMEATypeError

from protocols.core.errors import LocalProtocolError
from protocols.nmea_beidou.sentence import Sentence, build

#: What may go wrong in the library with fields that are not what they should be.
_LIBRARY_ERRORS = (
    NMEAParseError, NMEAMessageError, NMEATypeError, NMEAStreamError, ValueError, KeyError, IndexError, TypeError,
    AttributeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Degrees WGS 84, south and west negative."""

    lat: float
    lon: float


@dataclass(frozen=True, slots=True)
class Clock:
    """Time of day in ms since midnight UTC, and the day if the sentence says it."""

    of_day_ms: int | None
    year: int | None = None
    month: int | None = None
    day: int | None = None

    @property
    def utc_ms(self) -> int | None:
        """None without time or day, or where they are none."""
        if self.of_day_ms is None or self.year is None or self.month is None or self.day is None:
            return None
        try:
            day = datetime(self.year, self.month, self.day, tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
        return int(day.timestamp()) * 1000 + self.of_day_ms


def time_of_day_ms(field: str) -> int | None:
    """hhmmss or hhmmss.ss; None for what is no time."""
    whole, _, fraction = field.partition(".")
    if len(whole) != 6 or not whole.isascii() or not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        return None
    hours, minutes, seconds = int(whole[:2]), int(whole[2:4]), int(whole[4:])
    if hours > 23 or minutes > 59 or seconds > 60:
        return None
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + int((fraction + "000")[:3])


def date_of(field: str) -> tuple[int, int, int] | None:
    """ddmmyy as (year, month, day): 80 to 99 are 19yy."""
    if len(field) != 6 or not field.isascii() or not field.isdecimal():
        return None
    year = int(field[4:])
    return (1900 + year if year >= 80 else 2000 + year), int(field[2:4]), int(field[:2])


#: GPS counted weeks in 10 bits: receivers that lost a turn are this far back.
ROLL_OVER = timedelta(weeks=1024)


def unroll(utc_ms: int, now_ms: int) -> tuple[int, int]:
    """A receiver's time brought near the gateway's, and by how many turns of 1024 weeks it was off."""
    step_ms = int(ROLL_OVER.total_seconds()) * 1000
    turns = round((now_ms - utc_ms) / step_ms)
    return utc_ms + turns * step_ms, turns


#: Fields of the longest sentence of the standard (GSA of 4.11 has 18, GRS 16); beyond it no repair is tried.
_MOST_FIELDS = 24


def attributes(sentence: Sentence) -> Mapping[str, Any]:
    """The library's reading: names as in pynmeagps, empty strings as None. One field that is none of its kind costs
    itself only. Empty where the sentence cannot be read."""
    said = _parsed(sentence)
    if said or len(sentence.fields) > _MOST_FIELDS:
        return said
    for number, field in enumerate(sentence.fields):
        if field:
            blank = replace(sentence, fields=(*sentence.fields[:number], "", *sentence.fields[number + 1 :]))
            if said := _parsed(blank):
                return said
    return {}


def _parsed(sentence: Sentence) -> Mapping[str, Any]:
    try:
        line = build(sentence if sentence.start == "$" else Sentence(sentence.talker, sentence.type, sentence.fields))
        found = NMEAReader.parse(line, msgmode=0)
    except (*_LIBRARY_ERRORS, LocalProtocolError):
        return {}
    if found is None:
        return {}
    said = {key: value for key, value in vars(found).items() if not key.startswith("_")}
    return {key: None if value == "" else value for key, value in said.items()}


def place(sentence: Sentence, said: Mapping[str, Any]) -> Place | None:
    """The position a sentence gives; None without one. Hemispheres are taken from the sentence."""
    lat, lon = said.get("lat"), said.get("lon")
    if not isinstance(lat, float) or not isinstance(lon, float):
        return None
    if said.get("NS") not in ("N", "S") or said.get("EW") not in ("E", "W"):
        return None
    if not (abs(lat) <= 90 and abs(lon) <= 180) or math.isnan(lat) or math.isnan(lon):
        return None
    return Place(lat, lon)


#: Field numbers (from 1) of time and of the date.
_TIMES = {"RMC": 1, "GGA": 1, "GLL": 5, "ZDA": 1, "GST": 1, "GNS": 1, "GBS": 1}


def clock(sentence: Sentence) -> Clock | None:
    """The time a sentence gives; None for those that give none."""
    kind = sentence.type[:3]
    if kind not in _TIMES:
        return None
    of_day_ms = time_of_day_ms(sentence.field(_TIMES[kind]))
    if kind == "RMC" and (day := date_of(sentence.field(9))) is not None:
        return Clock(of_day_ms, *day)
    if kind == "ZDA" and all(sentence.field(n).isascii() and sentence.field(n).isdecimal() for n in (2, 3, 4)):
        return Clock(of_day_ms, int(sentence.field(4)), int(sentence.field(3)), int(sentence.field(2)))
    return Clock(of_day_ms)


def has_fix(sentence: Sentence, said: Mapping[str, Any]) -> bool | None:
    """Whether the receiver knows where it is; None for sentences that do not say. Navigational status V means "not for
    navigation" and says nothing about the fix."""
    kind = sentence.type[:3]
    if kind in ("RMC", "GLL"):
        return said.get("status") == "A" and said.get("posMode") != "N"
    if kind == "GGA":
        return bool(said.get("quality"))
    if kind == "GSA":
        return (said.get("navMode") or 1) > 1
    return None


@dataclass(frozen=True, slots=True)
class Satellite:
    prn: int | None
    elevation_deg: int | None
    azimuth_deg: int | None
    snr_db: int | None


def satellites(sentence: Sentence, said: Mapping[str, Any]) -> tuple[Satellite, ...]:
    """Those of one GSV sentence."""
    out = []
    for number in range(1, 5):
        if f"svid_{number:02d}" not in said:
            break
        keys = (f"{name}_{number:02d}" for name in ("svid", "elv", "az", "cno"))
        out.append(Satellite(*(said.get(key) for key in keys)))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Transducer:
    """One group of XDR: the value stays text (its digits are its resolution)."""

    kind: str
    value: str
    unit: str
    name: str


def transducers(sentence: Sentence) -> tuple[Transducer, ...]:
    """Groups of four; a group cut short is left out."""
    fields = sentence.fields
    return tuple(Transducer(*fields[at : at + 4]) for at in range(0, len(fields) - 3, 4))


#: Wind speed units of MWV in m/s.
WIND_UNITS = {"K": 1 / 3.6, "M": 1.0, "N": 1852 / 3600, "S": 0.44704}
KNOT_KMH = 1.852


def number(value: Any) -> float:
    """What the library gave as a number; NaN for no value."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
