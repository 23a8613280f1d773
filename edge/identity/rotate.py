"""Keeps the certificate fresh: asks for the next one when two thirds of its life are over, swaps it in, reconnects.

The request is signed by the present key, so it needs no certificate at the TLS level and passes any proxy that ends
TLS. Key and request lie on the disk before they are sent: after a power cut the same request is sent again, and the
core gives the same answer. A gateway whose clock is provably wrong cannot know when its time has come: it asks at its
start, and after each third of a life on its monotonic clock.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.clock import Clock
from edge.identity.config import IdentityConfig
from edge.identity.core_client import CoreRefused, ask
from edge.identity.files import IdentityFiles
from edge.identity.trust import client_context, clock_is_wrong
from protocols.core.errors import ConfigError, LinkRefused, StoreError, TransportError

log = logging.getLogger("citybrain.edge.identity")

EVENT = "sec.identity.refused"
_PREFIX = b"citybrain renewal 1\0"
_LOOK_S = 60.0  # the clock may be set meanwhile
_REST = 4  # not more than one renewal in a twelfth of a life, whatever the clock says
_AGAIN_FIRST_S, _AGAIN_MOST_S = 60.0, 3600.0

Report = Callable[[str, str, str, str], object]


def renew(files: IdentityFiles, config: IdentityConfig, now_s: float) -> x509.Certificate:
    """One renewal; the new certificate is in force on the disk when this returns. Raises TransportError, StoreError,
    ConfigError."""
    request = files.pending("gateway")
    try:
        der = x509.load_pem_x509_csr(request.csr_pem.encode()).public_bytes(Encoding.DER)
    except ValueError as error:  # a disk that lost its last write
        files.drop_pending()
        raise StoreError(f"{files.folder}: the request under way was damaged") from error
    ca_file = {"": str(files.ca), "system": ""}.get(config.ca_file, config.ca_file)
    body = {
        "certificate": files.certificate_pem(),
        "csr": request.csr_pem,
        "signature": base64.b64encode(files.sign(_PREFIX + der)).decode(),
    }
    said = ask(config.core, "POST", "/enrol/renew", body, client_context(ca_file, str(files.identity), "", now_s))
    try:
        certificate, root = str(said["certificate"]), str(said["root_pem"])
    except KeyError as error:
        raise LinkRefused("the core's answer is not understood") from error
    files.take(request, certificate, root)
    return files.certificate()


class Rotation:
    """Runs beside the uplink. ``report`` makes an event; ``renewed`` is called when the new certificate is in force."""

    def __init__(
        self,
        config: IdentityConfig,
        base: Path,
        clock: Clock,
        *,
        gateway: str,
        report: Report,
        renewed: Callable[[], None],
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._config = config
        self._files = IdentityFiles(base / config.folder)
        self._clock = clock
        self._gateway = gateway
        self._report = report
        self._renewed = renewed
        self._jitter = jitter
        self.error = ""  # empty: all is well
        self.renewals = 0

    def left_s(self) -> float:
        """How long the certificate is still good, by our clock; negative: it has ended. Raises StoreError."""
        return self._files.certificate().not_valid_after_utc.timestamp() - self._clock.now_ms() / 1000

    def health(self) -> tuple[dict[str, float], dict[str, str]]:
        """For the heartbeat."""
        try:
            values = {"certificate_left_s": self.left_s(), "certificate_renewals": float(self.renewals)}
        except StoreError as error:
            return {}, {"certificate": str(error)}
        return values, {"certificate": self.error} if self.error else {}

    def wait_s(self, since_s: float, mono_s: float) -> float:
        """How long until it is time to ask, at most; 0: now. ``since_s``, ``mono_s``: when we last asked and what it is
        now on the monotonic clock (``since_s`` negative: never). Raises StoreError."""
        certificate = self._files.certificate()
        begin_s, end_s = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        third_s = (end_s - begin_s) / 3
        now_s = self._clock.now_ms() / 1000
        rested_s = mono_s - since_s
        if since_s >= 0 and rested_s < third_s / _REST:  # a clock that is ahead finds every certificate old
            return third_s / _REST - rested_s
        if clock_is_wrong(certificate, now_s):
            return 0.0 if since_s < 0 else max(0.0, since_s + third_s - mono_s)
        return max(0.0, end_s - third_s - now_s)

    async def run(self) -> None:
        """Until cancelled. Nothing that fails here ends the agent: it goes on with what it has, and says so."""
        loop = asyncio.get_running_loop()
        again_s = _AGAIN_FIRST_S
        since_s = -1.0
        while True:
            try:
                wait_s = self.wait_s(since_s, loop.time())
                if wait_s > 0:
                    await asyncio.sleep(min(wait_s, _LOOK_S))
                    continue
                certificate = await asyncio.to_thread(renew, self._files, self._config, self._clock.now_ms() / 1000)
            except (TransportError, StoreError, ConfigError) as error:
                self._failed(error)
                await asyncio.sleep(again_s * self._jitter(0.5, 1.0))
                again_s = min(2 * again_s, _AGAIN_MOST_S)
                continue
            since_s = loop.time()
            again_s = _AGAIN_FIRST_S
            self.renewals += 1
            log.info("certificate renewed, good until %s", certificate.not_valid_after_utc.isoformat())
            self.error = ""
            self._renewed()

    def _failed(self, error: TransportError | StoreError | ConfigError) -> None:
        if str(error) == self.error:
            return
        self.error = str(error)
        log.warning("the certificate is not renewed: %s", error)
        code = error.problem if isinstance(error, CoreRefused) else error.code
        self._report(EVENT, self._gateway, code, str(error)[:200])
