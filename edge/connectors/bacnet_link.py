"""bacpypes3 behind five calls: find, read, read many, changes, write; and its habits guarded.

Measured with 0.0.110: an unanswered request raises a BaseException that would end a task group, an error of a write is
returned instead of raised, a device that is gone costs twelve seconds unless told otherwise, a renewal that fails is
told to nobody, and a port that is taken is tried for ever without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from edge.connectors.industry_config import BacnetConfig
from protocols.core.errors import LinkDown

T = TypeVar("T")

_PORT = 47_808
#: Vendor identifier of ASHRAE for whoever has none.
_VENDOR = 999


class NoAnswer(Exception):
    """The device did not answer."""


class Refused(Exception):
    """The device answered, and said no."""


class BacnetLink:
    def __init__(self, config: BacnetConfig) -> None:
        self._config = config
        self._app: Any = None

    async def open(self) -> None:
        """Raises LinkDown if our address cannot be used."""
        from bacpypes3.ipv4.app import ForeignApplication, NormalApplication
        from bacpypes3.local.device import DeviceObject
        from bacpypes3.pdu import IPv4Address

        config = self._config
        network, _, port_text = config.address.partition(":")
        port = int(port_text or _PORT)
        _check_free(str(ipaddress.IPv4Interface(network).ip), port)
        device = DeviceObject(
            objectIdentifier=("device", config.instance),
            objectName=f"citybrain {config.id}",
            vendorIdentifier=_VENDOR,
            apduTimeout=round(config.timeout_s * 1000),
            numberOfApduRetries=config.retries,
        )
        address = IPv4Address(f"{network}:{port}")
        if config.bbmd:
            self._app = ForeignApplication(device, address)
            self._app.register(IPv4Address(_with_port(config.bbmd)), config.bbmd_ttl_s)
        else:
            self._app = NormalApplication(device, address)

    def close(self) -> None:
        if self._app is not None:
            with contextlib.suppress(Exception):  # sockets that never came up
                self._app.close()
            self._app = None

    async def find(self, instance: int, address: str) -> tuple[int, Any] | None:
        """Instance and address of who answers; with an address, whoever is there; None if nobody."""
        from bacpypes3.pdu import Address

        timeout_s = max(1, round(self._config.timeout_s))
        if address:
            where = Address(_with_port(address))
            answers = await self._ask(self._app.who_is(address=where, timeout=timeout_s))
        else:
            answers = await self._ask(self._app.who_is(instance, instance, timeout=timeout_s))
        for answer in answers or ():
            number = answer.iAmDeviceIdentifier[1]
            if address or number == instance:
                return number, answer.pduSource
        return None

    async def read(self, address: Any, key: str) -> Any:
        """The present value. Raises NoAnswer or Refused."""
        return _plain(await self._ask(self._app.read_property(address, _object(key), "present-value")))

    async def read_many(self, address: Any, keys: list[str]) -> list[tuple[str, Any, tuple[int, ...], str]]:
        """Key, value, flags and error of each. Raises NoAnswer or Refused (the service itself)."""
        from bacpypes3.basetypes import ErrorType

        wanted: list[Any] = []
        for key in keys:
            wanted += [_object(key), ["present-value", "status-flags"]]
        found = await self._ask(self._app.read_property_multiple(address, wanted))
        values: dict[str, Any] = {}
        flags: dict[str, tuple[int, ...]] = {}
        errors: dict[str, str] = {}
        for object_id, name, _, value in found or ():
            key = f"{object_id[0]}:{object_id[1]}"
            if isinstance(value, ErrorType):
                if str(name) == "present-value":
                    errors[key] = f"{value.errorClass}: {value.errorCode}"
            elif str(name) == "status-flags":
                flags[key] = tuple(n for n, bit in enumerate(value) if bit)
            else:
                values[key] = _plain(value)
        return [(key, values.get(key), flags.get(key, ()), errors.get(key, "")) for key in keys]

    async def changes(
        self, address: Any, key: str, number: int, lifetime_s: int
    ) -> AsyncIterator[tuple[Any, tuple[int, ...]]]:
        """Changes of one object for as long as the device tells them; renewed at two thirds of the lifetime. Raises
        NoAnswer or Refused when a subscription is not (or no more) possible."""
        from bacpypes3.primitivedata import ObjectIdentifier

        context = self._app.change_of_value(address, ObjectIdentifier(_object(key)), number, False, lifetime_s)
        loop = asyncio.get_running_loop()
        await self._ask(context.__aenter__())
        try:
            while True:
                if context.refresh_subscription_handle is not None:
                    context.refresh_subscription_handle.cancel()  # its own renewal fails without a word
                renew_s = loop.time() + lifetime_s * 2 / 3
                flags: tuple[int, ...] = ()
                while (left_s := renew_s - loop.time()) > 0:
                    try:
                        async with asyncio.timeout(left_s):
                            found = [await context.get_value()]
                    except TimeoutError:
                        break
                    while not context.queue.empty():
                        found.append(await context.get_value())
                    value: Any = None
                    for name, one in found:
                        if str(name) == "status-flags":
                            flags = tuple(n for n, bit in enumerate(one) if bit)
                        elif str(name) == "present-value":
                            value = _plain(one)
                    if value is not None:
                        yield value, flags
                await self._ask(context.refresh_subscription())
        finally:
            if context.refresh_subscription_handle is not None:
                context.refresh_subscription_handle.cancel()
            # Leaving it as after an error: the device forgets it when its lifetime is over.
            with contextlib.suppress(KeyError):
                await context.__aexit__(NoAnswer, None, None)

    async def write(self, address: Any, key: str, value: Any, priority: int) -> None:
        """Set the present value at that priority; None gives the slot back. Raises NoAnswer or Refused."""
        from bacpypes3.apdu import ErrorRejectAbortNack
        from bacpypes3.primitivedata import Null

        content = Null(()) if value is None else int(value) if isinstance(value, bool) else value
        answer = await self._ask(
            self._app.write_property(address, _object(key), "present-value", content, priority=priority)
        )
        if isinstance(answer, ErrorRejectAbortNack):
            raise Refused(str(answer))

    async def _ask(self, question: Awaitable[T]) -> T:
        """An answer, or one of our two exceptions."""
        from bacpypes3.apdu import AbortPDU, ErrorRejectAbortNack

        most_s = (self._config.timeout_s + 1) * (self._config.retries + 1)
        try:
            async with asyncio.timeout(most_s):
                answer = await question
        except ErrorRejectAbortNack as error:
            if isinstance(error, AbortPDU) and str(error) == "no-response":
                raise NoAnswer("no answer") from None
            raise Refused(str(error)) from None
        except TimeoutError:
            raise NoAnswer("no answer") from None
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            # What the library makes of an answer it cannot read.
            raise Refused(f"unreadable answer: {type(error).__name__}: {error}") from None
        if isinstance(answer, ErrorRejectAbortNack):
            raise Refused(str(answer))
        return answer


def _object(key: str) -> str:
    return key.replace(":", ",")


def _with_port(address: str) -> str:
    return address if ":" in address else f"{address}:{_PORT}"


def _plain(value: Any) -> Any:
    """A number, a text or None (Null, structures)."""
    if value is None or type(value).__name__ == "Null":
        return None
    if isinstance(value, bool | float | str):
        return value
    return int(value) if isinstance(value, int) else None


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LinkDown(f"{host}:{port}: {error.strerror}") from error
