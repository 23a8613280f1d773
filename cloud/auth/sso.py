"""Single sign-on: from the provider's word to a session of ours.

State, nonce and PKCE verifier wait in a signed cookie of the browser that began, so an answer brought by another
browser opens nothing; a state that came back is noted, so it opens nothing twice. An account is known by issuer and
subject. One an administrator has made for single sign-on is tied to the subject that first logs in under its name.
Groups give roles by the table in the configuration, anew with each log-in; who is in none of them stays outside.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from itsdangerous import BadSignature, URLSafeSerializer

from cloud.audit import Entry, arecord
from cloud.auth.errors import SsoRefused
from cloud.auth.people import put_grants
from cloud.auth.rules import Grant
from cloud.auth.service import NO_PASSWORD, Accounts, Login, Origin
from cloud.auth.sso_config import SsoSettings
from cloud.auth.sso_provider import Provider
from cloud.query.pool import Connection, Pool

COOKIE = "citybrain_sso"
WAIT_S = 600
_NAME = re.compile(r"[\w.-]{2,32}")


class Sso:
    def __init__(self, settings: SsoSettings, pool: Pool, accounts: Accounts) -> None:
        self.settings = settings
        self._pool = pool
        self._accounts = accounts
        self._provider = Provider(settings)
        self._serializer = URLSafeSerializer(
            accounts.sessions.key, salt="citybrain.sso.1", signer_kwargs={"digest_method": hashlib.sha256}
        )

    async def start(self, target: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie it brings back. Raises SsoRefused."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        url = await self._provider.authorization_url(state, nonce, verifier)
        return url, str(self._serializer.dumps([state, nonce, verifier, target, int(time.time()) + WAIT_S]))

    async def finish(self, cookie: str, params: Mapping[str, str], origin: Origin) -> tuple[Login, str]:
        """The log-in and where the browser wanted to go. Raises SsoRefused; the refusal is audited."""
        try:
            return await self._finish(cookie, params, origin)
        except SsoRefused as error:
            async with self._pool.connection() as conn, conn.transaction():
                detail = {"why": f"sso: {error.reason}"[:200], "address": origin.address}
                await arecord(conn, Entry("stranger", "login.failed", "sso", detail))
            raise

    async def _finish(self, cookie: str, params: Mapping[str, str], origin: Origin) -> tuple[Login, str]:
        try:
            state, nonce, verifier, target, until_s = self._serializer.loads(cookie)
        except (BadSignature, TypeError, ValueError) as error:
            raise SsoRefused("no log-in was begun in this browser") from error
        if until_s < time.time():
            raise SsoRefused("too late")
        if not hmac.compare_digest(params.get("state", "").encode(), state.encode()):
            raise SsoRefused("state")
        if "iss" in params and params["iss"] != self.settings.issuer:  # RFC 9207
            raise SsoRefused("answer of another issuer")
        async with self._pool.connection() as conn:
            await self._take(conn, state)
        if "error" in params:
            raise SsoRefused(f"provider: {params['error'][:60]!r}")
        if not params.get("code"):
            raise SsoRefused("no code")
        claims = await self._provider.exchange(params["code"], verifier, nonce)
        async with self._pool.connection() as conn, conn.transaction():
            name = await self._account(conn, claims)
            return await self._accounts.open_session(conn, name, "sso", origin), str(target)

    async def _take(self, conn: Connection, state: str) -> None:
        done = await conn.execute(
            "insert into sso_state (state_hash, expires_at) values (%s, now() + make_interval(secs => %s)) "
            "on conflict do nothing",
            [hashlib.sha256(state.encode()).digest(), WAIT_S],
        )
        if not done.rowcount:
            raise SsoRefused("state used before")
        await conn.execute("delete from sso_state where expires_at < now()")

    async def _account(self, conn: Connection, claims: Mapping[str, Any]) -> str:
        """The name of the account these claims open, with the roles they give it."""
        issuer, subject = self.settings.issuer, str(claims["sub"])
        grants = self._grants(claims)
        if self.settings.groups and not grants:
            raise SsoRefused("in none of the groups")
        row = await (
            await conn.execute(
                "select name, disabled from operator where issuer = %s and subject = %s for update", [issuer, subject]
            )
        ).fetchone()
        if row is None:
            row = await self._tied(conn, str(claims.get(self.settings.name_claim) or ""), subject, grants)
        name, disabled = row
        if disabled:
            raise SsoRefused(f"the account {name!r} is shut")
        if grants and await put_grants(conn, name, grants):
            said = [f"{g.role}@{g.department}/{g.district}" for g in grants]
            await arecord(conn, Entry("sso", "operator.access", f"operator/{name}", {"to": said}))
        return str(name)

    async def _tied(
        self, conn: Connection, name: str, subject: str, grants: list[Grant]
    ) -> tuple[str, bool] | tuple[Any, ...]:
        """An account that waits for this name, or a new one where the configuration allows it."""
        if not _NAME.fullmatch(name):
            raise SsoRefused("the provider gives no usable name")
        row = await (
            await conn.execute(
                "update operator set subject = %s where name = %s and issuer = %s and subject is null "
                "returning name, disabled",
                [subject, name, self.settings.issuer],
            )
        ).fetchone()
        if row is not None:
            await arecord(conn, Entry("sso", "operator.tie", f"operator/{name}", {"subject": subject[:64]}))
            return row
        if not self.settings.provision:
            raise SsoRefused(f"no account waits for {name!r}")
        try:
            async with conn.transaction():
                await conn.execute(
                    "insert into operator (name, password_hash, role, department, district, must_change, issuer, "
                    "subject) values (%s, %s, %s, %s, %s, false, %s, %s)",
                    [name, NO_PASSWORD, grants[0].role, grants[0].department, grants[0].district,
                     self.settings.issuer, subject],
                )  # fmt: skip
        except psycopg.errors.UniqueViolation as error:
            raise SsoRefused(f"{name!r} is somebody else's account here") from error
        await arecord(conn, Entry("sso", "operator.add", f"operator/{name}", {"subject": subject[:64]}))
        return name, False

    def _grants(self, claims: Mapping[str, Any]) -> list[Grant]:
        held = claims.get(self.settings.group_claim)
        names = {held} if isinstance(held, str) else set(map(str, held)) if isinstance(held, list) else set()
        return [Grant(g.role, g.department, g.district) for g in self.settings.groups if g.group in names]

    async def logout_url(self, back: str) -> str | None:
        try:
            return await self._provider.logout_url(back)
        except SsoRefused:
            return None
