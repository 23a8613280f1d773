"""Electricity meters on a line: whoever is there first; where several answer at once, by the last digits of their
numbers, one digit more until each is alone. And water, gas and heat meters, which can only be asked all at once.

 AAAAAAAAAAAA ─ collision ─▶ AAAAAAAAAAA0 ... AAAAAAAAAAA9 ─ collision at 3 ─▶ AAAAAAAAAA03 ... AAAAAAAAAA93 ─▶ ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge.probe.asking import Asker, Heard
from edge.probe.found import Found, Place
from protocols.cjt188.endpoint import Cjt188Endpoint
from protocols.cjt188.messages import AddressReply as WaterAddress
from protocols.cjt188.messages import ReadAddress as ReadWaterAddress
from protocols.core.endpoint import Role
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.dlt645.messages import ANYBODY, BROADCAST, AddressReply, ErrorReply, Read, ReadAddress, ReadReply
from protocols.dlt645.values import decode

#: A number has twelve digits; below that there is nothing left to tell two meters apart by.
_DIGITS = 12
_REPLY_BYTES = 60
#: Forward active energy: every meter has it, in either edition.
_ENERGY, _ENERGY_1997 = "00010000", "9010"
_MODEL, _RELAY_WORD, _VOLTAGES = "0400040B", "04000503", "0201FF00"

#: By the first digit of the type byte T.
_WATER_TYPES = {"1": "water/cjt188_meter", "2": "heat/cjt188_meter", "3": "gas/cjt188_meter"}

Tell = Callable[[str], None]


class MeterSearch:
    """DL/T 645. ``wait_s``: how long a meter may take to begin, transmission time included. ``thorough``: ask by last
    digits even where one answered alone: a near meter may drown out a far one."""

    def __init__(
        self, asker: Asker, place: Place, tell: Tell, found: list[Found], *, wait_s: float, thorough: bool = False
    ) -> None:
        self._thorough = thorough
        self._asker = asker
        self._place = place
        self._tell = tell
        self._found = found
        self._wait_s = wait_s
        self._endpoint = Dlt645Endpoint(Role.MASTER)

    async def run(self) -> None:
        """Raises TransportError."""
        heard = await self._asker.ask(self._endpoint, ReadAddress(), self._wait_s, many=True)
        alone = isinstance(heard.message, AddressReply) and not heard.noise
        if alone and await self._add(heard.message.meter) and not self._thorough:
            return
        if not heard.silent:
            await self._apart("", crowded=False)
            return
        # Meters that keep to the letter answer the address question only with a key pressed; nearly all answer a
        # wildcard read.
        heard = await self._asker.ask(self._endpoint, Read(ANYBODY, _ENERGY), self._wait_s, many=True)
        if heard.silent:
            await self._old()
        elif not await self._alone(heard) or self._thorough:
            await self._apart("", crowded=False)

    async def _apart(self, digits: str, *, crowded: bool) -> bool:
        """Meters whose numbers end with ``digits`` answered together: ask again with one digit more. False: it is
        noise. ``crowded``: one level above, all ten digits answered too, which takes a hundred meters, or noise."""
        if len(digits) == _DIGITS:
            about = "two meters with this number"
            self._found.append(Found(self._place, "dlt645", digits, about=about, sure=False))
            self._tell(f"DL/T 645 {digits}: {about} 表号重复")
            return True
        self._tell(f"{digits.rjust(_DIGITS, 'A')}: several meters answer at once 多表同时应答")
        together: list[str] = []
        for digit in "0123456789":
            below = digit + digits
            question = Read(below.rjust(_DIGITS, "A"), _ENERGY)
            heard = await self._asker.ask(self._endpoint, question, self._wait_s, many=True)
            if not heard.silent and not await self._alone(heard):
                together.append(below)
        if len(together) == 10 and crowded:
            self._tell("only noise: another speed or protocol, or a bad line 仅有干扰:速率、规约或线路有误")
            return False
        for below in together:
            if not await self._apart(below, crowded=len(together) == 10):
                return False
        return True

    async def _alone(self, heard: Heard) -> bool:
        """Whether one meter answered, and answers again under the number it gave: of two answers that lie on top of
        one another a third number may come out."""
        if heard.message is None or heard.noise:
            return False
        return await self._add(heard.message.addr, old=_is_old(heard.message))

    async def _old(self) -> None:
        """A lone meter of the 1997 edition answers the broadcast address."""
        heard = await self._asker.ask(self._endpoint, Read(BROADCAST, _ENERGY_1997), self._wait_s, many=True)
        if isinstance(heard.message, ReadReply):
            await self._add(heard.message.addr, old=True)

    async def _add(self, address: str, *, old: bool = False) -> bool:
        """False: nobody answers under that number."""
        if any(one.address == address and one.place == self._place for one in self._found):
            return True
        if old:
            there = await self._read(address, _ENERGY_1997) is not None
            found = Found(self._place, "dlt645", address, "meter/electricity_1997", "1997", more={"edition": "1997"})
        else:
            there = await self._read(address, _ENERGY) is not None
            found = await self._known(address) if there else Found(self._place, "dlt645", address)
        if there:
            self._found.append(found)
            self._tell(f"DL/T 645 {address}  {found.type}  {found.about}".rstrip())
        return there

    async def _known(self, address: str) -> Found:
        """What kind of meter it is: phases by the voltage block, a relay by its status word, what it calls itself."""
        voltages = await self._read(address, _VOLTAGES)
        phases = [value for value in decode(_VOLTAGES, voltages) or [] if value.number] if voltages else []
        relay = await self._read(address, _RELAY_WORD) is not None
        model = await self._read(address, _MODEL)
        words = decode(_MODEL, model) if model else None
        about = words[0].text if words and not words[0].damaged and words[0].text.isprintable() else ""
        if len(phases) > 1:
            kind = "meter/electricity_three_phase_smart" if relay else "meter/electricity_three_phase"
        else:
            kind = "meter/electricity_single_phase_prepaid"
        return Found(self._place, "dlt645", address, kind, about)

    async def _read(self, address: str, di: str) -> bytes | None:
        heard = await self._asker.ask(self._endpoint, Read(address, di), self._wait_s)
        return heard.message.data if isinstance(heard.message, ReadReply) else None


def _is_old(message: object) -> bool:
    return isinstance(message, ErrorReply) and message.function == 0x01


class WaterSearch:
    """CJ/T 188. Its wildcard reaches everybody at once: several meters can be noticed, but not told apart."""

    def __init__(self, asker: Asker, place: Place, tell: Tell, found: list[Found], *, wait_s: float) -> None:
        self._asker = asker
        self._place = place
        self._tell = tell
        self._found = found
        self._wait_s = wait_s
        self._endpoint = Cjt188Endpoint(Role.MASTER, check_ser=False)

    async def run(self) -> None:
        """Raises TransportError."""
        for order in _orders():
            question = ReadWaterAddress(order=order)  # type: ignore[arg-type]  # both are literals of the protocol
            heard = await self._asker.ask(self._endpoint, question, self._wait_s, many=True)
            if isinstance(heard.message, WaterAddress) and not heard.noise:
                one = heard.message
                kind = {"1": "water/cjt188_meter", "2": "heat/cjt188_meter", "3": "gas/cjt188_meter"}.get(
                    one.type[:1], ""
                )
                found = Found(self._place, "cjt188", one.addr, kind, f"T={one.type}", more={"meter_type": one.type})
                self._found.append(found)
                self._tell(f"CJ/T 188 {one.addr}  {kind}  T={one.type}")
                return
            if not heard.silent:
                about = "several meters answer at once: ask them by the numbers printed on them"
                self._found.append(Found(self._place, "cjt188", "", "", about, sure=False))
                self._tell(f"CJ/T 188: {about} 多表同时应答,请按表号查询")
                return


def _orders() -> Iterator[str]:
    """Makers put the two bytes of an identifier either way round."""
    yield "901F"
    yield "1F90"


def wait_s(baud: int, reply_bytes: int = _REPLY_BYTES) -> float:
    """The half second a meter may take, and the bytes both ways; a serial server counts as the slowest line."""
    return 0.55 + (24 + reply_bytes) * 11 / (baud or 2400)
