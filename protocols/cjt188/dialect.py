"""What one meter turned out to speak: order of the identifier, running number, place of the unit, layout, type.

Makers differ and a meter does not say which maker's it is, so each answer teaches a little; what differs from the usual
is said once, in the words of the configuration, so that an installer can write it down.
"""

from __future__ import annotations

from typing import Literal

from protocols.cjt188.messages import DI_ORDERS, DiOrder, ErrorReply, Reply, same_class
from protocols.cjt188.values import Reading

OrderRule = Literal["auto", "901F", "1F90"]
SerRule = Literal["auto", "echo", "fixed"]


class Dialect:
    """One meter's. ``order`` and ``ser``: as configured; "auto" learns them from the answers."""

    def __init__(self, meter_type: str, order: OrderRule = "auto", ser: SerRule = "auto") -> None:
        self._type = meter_type
        self._configured = order, ser
        self._order: DiOrder | None = None if order == "auto" else order
        self._ser: SerRule = ser
        self._odd_ser: int | None = None  # a SER that was not ours
        self._echoes = 0
        self._said: set[str] = set()
        self._news: list[str] = []

    def forget(self) -> None:
        """The meter has fallen silent: what answers next at this address may be another maker's."""
        order, self._ser = self._configured
        self._order = None if order == "auto" else order
        self._odd_ser, self._echoes = None, 0
        self._said.clear()

    @property
    def order(self) -> DiOrder | None:
        return self._order

    @property
    def ser(self) -> SerRule:
        return self._ser

    @property
    def in_doubt(self) -> bool:
        """The last answer had another SER: a late one, or a fixed one. Asking again the same way tells which."""
        return self._ser == "auto" and self._odd_ser is not None

    def order_for(self, attempt: int) -> DiOrder:
        """The order to ask in; as long as none is known the two take turns."""
        return self._order or DI_ORDERS[attempt % len(DI_ORDERS)]

    def accept(self, asked_ser: int, asked_order: DiOrder, reply: Reply) -> bool:
        """Whether the answer is the one to this request and not a late one; learns from it."""
        if reply.ser is not None and not self._ser_fits(asked_ser, reply.ser):
            return False
        if self._order is None and not isinstance(reply, ErrorReply):
            self._order = asked_order  # it understood the question put this way
            if asked_order != DI_ORDERS[0]:
                self._say("di_order", asked_order)
        if reply.type != self._type and same_class(self._type, reply.type):
            self._say("meter_type", reply.type)
        return True

    def _ser_fits(self, asked: int, got: int) -> bool:
        if self._ser == "fixed":
            return True
        if asked == got:
            self._odd_ser = None
            self._echoes += 1
            if self._ser == "auto" and self._echoes >= 2:
                self._ser = "echo"  # the rule; nothing to say
            return True
        if self._ser == "auto" and self._odd_ser == got:
            # Twice the same, although asked with two different ones: no late answer does that.
            self._ser = "fixed"
            self._say("ser", "fixed")
            return True
        self._odd_ser = got
        return False

    def look_at(self, reading: Reading) -> None:
        """Learn from a reading of the big kind."""
        # Told by each reply itself: nothing to configure.
        if reading.place == "before":
            self._note("unit in front of the digits")
        if reading.layout == "heat_2018":
            self._note("heat layout of 40 bytes")

    def _say(self, key: str, value: str) -> None:
        self._note(f'{key} = "{value}"')

    def _note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._news.append(text)

    def take_news(self) -> list[str]:
        """What was found since the last call."""
        news, self._news = self._news, []
        return news
