"""NMEA 0183 sentences of both directions for the generic suite."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from protocols.nmea_beidou import beidou
from protocols.nmea_beidou.sentence import MAX_LENGTH, Sentence

BOUND = MAX_LENGTH

#: What a field may hold: everything but the characters that part sentences; bytes of GBK as Latin-1.
_field = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters=",*$!\x7f"), max_size=12
)  # fmt: skip

FROM_RECEIVER = st.builds(
    Sentence,
    st.sampled_from(["GP", "BD", "GB", "GN", "GL", "WI"]),
    st.sampled_from(["RMC", "GGA", "GSV", "XDR", "TXR", "TCI", "XYZ", "GLLH"]),
    st.lists(_field, max_size=16).map(tuple),
)
TO_RECEIVER = st.builds(
    beidou.send,
    st.integers(1, (1 << 24) - 1),
    st.binary(min_size=1, max_size=78),
    coding=st.sampled_from([beidou.TEXT, beidou.CODE, beidou.MIXED]),
    generation=st.sampled_from([2, 3]),
) | st.just(beidou.ask_card())
FIRST = beidou.ask_card()


def answer(heard: Any) -> Sentence:
    """What a module says to that."""
    if heard.type == "ICA":
        return Sentence("BD", "ICP", ("15240507", "2032472", "1", "60"))
    return Sentence("BD", "FKI", (heard.type, "Y", "0", "0"))
