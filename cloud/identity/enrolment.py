"""From a code to a certificate, and from a certificate to its successor.

```
 claim ── code + CSR ──▶ certificate ── signed CSR ──▶ certificate ─ ...
            │ once          │ superseded by the next; whoever asks again with a superseded one is a second box
```
Every refusal is audited; the asker learns no more than it must. A request that is repeated (its answer got lost) gets
the same certificate, so a power cut at any moment locks nobody out.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import Connection

from cloud.audit.log import Entry, record
from cloud.identity import clones, codes, csr
from cloud.identity.access import changed
from cloud.identity.ca import Issued, serial_of
from cloud.identity.config import IdentitySettings
from cloud.identity.errors import IdentityRefused
from cloud.identity.names import gateway_of
from cloud.identity.signer import Signer

MAX_ATTEMPTS = 10
#: A box whose answer got lost asks again with the same request.
REPEAT_WITHIN = dt.timedelta(hours=1)
#: What a gateway signs, with its present key, when it asks for its next certificate: this and the request's DER form.
RENEWAL_PREFIX = b"citybrain renewal 1\0"
_NOT_VALID = "the code is not valid: wrong, used or expired. 注册码无效、已使用或已过期"


@dataclass(frozen=True, slots=True)
class Enrolled:
    gateway_id: str
    shard: int
    issued: Issued


class Enrolment:
    """``settings`` and ``signer`` of this core. Methods take a connection in autocommit and raise IdentityRefused."""

    def __init__(self, settings: IdentitySettings, signer: Signer) -> None:
        self._settings = settings
        self._signer = signer

    def enrol(self, conn: Connection[Any], code_text: str, csr_pem: str, peer: str, now: dt.datetime) -> Enrolled:
        """Use up a code. ``peer``: the asker's address, for the audit log."""
        code = codes.read(code_text)
        if code is None:
            raise IdentityRefused(_NOT_VALID, reason="code", note="not of a code's form")
        request = csr.parse(csr_pem)
        asked = csr.fingerprint(request)
        with conn.transaction():
            row = conn.execute(
                "select claim_id, secret_hash, gateway_id, shard, expires_at, attempts, used_at, csr_hash, voided_at"
                " from gateway_claim where selector = %s for update",
                (code.selector,),
            ).fetchone()
            refusal = _look(row, code, asked, now)
            if refusal is None and row is not None:
                return self._admit(conn, row, request, asked, peer, now)
            if row is not None and not code.proves(row[1]):
                conn.execute(
                    "update gateway_claim set attempts = attempts + 1, voided_at ="
                    " case when attempts + 1 >= %s then coalesce(voided_at, %s) else voided_at end where claim_id = %s",
                    (MAX_ATTEMPTS, now, row[0]),
                )
        note = refusal or "no such code"
        raise IdentityRefused(_NOT_VALID, reason="code", note=f"{row[2]}: {note}" if row else note)

    def _admit(
        self,
        conn: Connection[Any],
        row: tuple[Any, ...],
        request: x509.CertificateSigningRequest,
        asked: bytes,
        peer: str,
        now: dt.datetime,
    ) -> Enrolled:
        claim_id, gateway_id, shard = row[0], row[2], row[3]
        known = _issued_for(conn, gateway_id, asked)
        if known is not None:
            return Enrolled(gateway_id, shard, known)
        # The box that had this identity before, if any, is out: its certificates end, its session is ended.
        before = conn.execute(
            "update gateway_certificate set revoked_at = %s where gateway_id = %s and revoked_at is null",
            (now, gateway_id),
        ).rowcount
        conn.execute(
            "insert into gateway_access (gateway_id, kick_wanted_at) values (%s, %s)"
            " on conflict (gateway_id) do update set revoked_at = null, revoked_by = '', reason = '',"
            " kick_wanted_at = excluded.kick_wanted_at",
            (gateway_id, now if before else None),
        )
        clones.forget(conn, gateway_id, round(now.timestamp() * 1000))
        issued = self._issue(conn, gateway_id, request, asked, now)
        conn.execute(
            "update gateway_claim set used_at = %s, used_from = %s, csr_hash = %s where claim_id = %s",
            (now, peer[:64], asked, claim_id),
        )
        detail = {"serial": issued.serial, "from": peer[:64], "replaced_certificates": before}
        record(conn, Entry(f"gateway:{gateway_id}", "gateway.enrol", f"gateway/{gateway_id}", detail))
        changed(conn)
        return Enrolled(gateway_id, shard, issued)

    def renew(
        self, conn: Connection[Any], certificate_pem: str, csr_pem: str, signature: str, now: dt.datetime
    ) -> Enrolled:
        """The successor of a certificate, asked for with a signature by its key."""
        leaf, gateway_id = self._who(certificate_pem)
        request = csr.parse(csr_pem)
        _check_signature(leaf, request, signature)
        serial, asked = serial_of(leaf), csr.fingerprint(request)
        clone = False
        with conn.transaction():
            row = conn.execute(
                "select c.revoked_at is not null or a.revoked_at is not null, c.superseded_at, g.shard"
                " from gateway_certificate c join gateway g using (gateway_id) left join gateway_access a"
                " using (gateway_id) where c.serial = %s and c.gateway_id = %s for update of c",
                (serial, gateway_id),
            ).fetchone()
            if row is None or row[0]:
                note = f"{gateway_id}: {'revoked' if row else 'never issued by this core'}, serial {serial}"
                raise IdentityRefused("this certificate has been revoked; claim again", reason="revoked", note=note)
            known = _issued_for(conn, gateway_id, asked)
            if known is not None:
                return Enrolled(gateway_id, row[2], known)
            grace = dt.timedelta(days=self._settings.renew_grace_days)
            if leaf.not_valid_after_utc + grace < now:
                raise IdentityRefused(
                    "this certificate ended too long ago; claim again",
                    reason="certificate",
                    note=f"{gateway_id}: ended",
                )
            clone = row[1] is not None
            if not clone:
                issued = self._issue(conn, gateway_id, request, asked, now)
                detail = {"serial": issued.serial, "before": serial}
                record(conn, Entry(f"gateway:{gateway_id}", "gateway.renew", f"gateway/{gateway_id}", detail))
                return Enrolled(gateway_id, row[2], issued)
            clones.raise_alarm(conn, gateway_id, "renewal", round(now.timestamp() * 1000))
        raise IdentityRefused(
            "this certificate has a successor already: is this box a copy of another? 该证书已被更新，设备可能被克隆",
            reason="certificate",
            note=f"{gateway_id}: superseded serial {serial} asked again with another request",
        )

    def _who(self, certificate_pem: str) -> tuple[x509.Certificate, str]:
        """Certificate and gateway, if it is one of ours."""
        if len(certificate_pem) > 32_768:
            raise IdentityRefused("the certificate is too long", reason="certificate")
        try:
            leaf = self._signer.verify(certificate_pem)
        except (ValueError, TypeError) as error:
            raise IdentityRefused("this certificate is not of this city", reason="certificate") from error
        gateway_id = gateway_of(leaf)
        if gateway_id is None:
            raise IdentityRefused("this certificate names no gateway", reason="certificate")
        return leaf, gateway_id

    def _issue(
        self,
        conn: Connection[Any],
        gateway_id: str,
        request: x509.CertificateSigningRequest,
        asked: bytes,
        now: dt.datetime,
    ) -> Issued:
        issued = self._signer.issue(gateway_id, request, now, self._settings.certificate_days)
        conn.execute(
            "update gateway_certificate set superseded_at = %s where gateway_id = %s and superseded_at is null",
            (now, gateway_id),
        )
        conn.execute(
            "insert into gateway_certificate (serial, gateway_id, issued_at, not_before, not_after, csr_hash, pem)"
            " values (%s, %s, %s, %s, %s, %s, %s)",
            (issued.serial, gateway_id, now, issued.not_before, issued.not_after, asked, issued.pem),
        )
        return issued


def refused(conn: Connection[Any], error: IdentityRefused, peer: str, times: int) -> None:
    """Into the audit log. ``times``: how many refusals of this asker the entry stands for."""
    detail = {"reason": error.reason, "note": error.note[:200], "times": times}
    record(conn, Entry("gateway:?", "gateway.enrol.refused", f"address/{peer[:64]}", detail))


def _look(row: tuple[Any, ...] | None, code: codes.Code, asked: bytes, now: dt.datetime) -> str | None:
    """Why a code is refused; None if it is good, or its very request is being repeated."""
    if row is None:
        code.proves(bytes(32))  # as long as for a code that exists
        return "no such code"
    _, kept, _, _, expires_at, attempts, used_at, csr_hash, voided_at = row
    if attempts >= MAX_ATTEMPTS:
        return "too many attempts"
    if not code.proves(kept):
        return "wrong secret"
    if voided_at is not None:
        return "void"
    if used_at is not None:
        again = csr_hash == asked and now - used_at < REPEAT_WITHIN
        return None if again else "used before"
    return "expired" if expires_at <= now else None


def _issued_for(conn: Connection[Any], gateway_id: str, asked: bytes) -> Issued | None:
    row = conn.execute(
        "select serial, pem, not_before, not_after from gateway_certificate"
        " where gateway_id = %s and csr_hash = %s and revoked_at is null and superseded_at is null",
        (gateway_id, asked),
    ).fetchone()
    return Issued(*row) if row else None


def _check_signature(leaf: x509.Certificate, request: x509.CertificateSigningRequest, signature: str) -> None:
    key = leaf.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not an elliptic key")
        raw = base64.b64decode(signature, validate=True)
        message = RENEWAL_PREFIX + request.public_bytes(serialization.Encoding.DER)
        key.verify(raw, message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, binascii.Error) as error:
        raise IdentityRefused("the request is not signed by the certificate's key", reason="certificate") from error
