"""Talking to the OpenID provider: its description, its keys, the exchange of a code, and whether a token is true.

OpenID Connect Core 1.0 section 3.1.3.7 says what to check: signature by a key of the issuer, issuer, audience, times,
nonce, hash of the access token. Only asymmetric algorithms count, so a token "signed" with nothing or with our public
client's secret is no token. Keys are kept for ten minutes and asked for again when a token names one we do not have,
though never more often than every half minute, so that forged tokens cannot make us hammer the provider.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from cloud.auth.errors import SsoRefused
from cloud.auth.sso_config import SsoSettings, check_url

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_LEEWAY_S = 60
_DESCRIPTION_S = 3600.0
_KEYS_S = 600.0
_KEYS_AGAIN_S = 30.0
_TIMEOUT_S = 10.0
_MAX_ANSWER = 1 << 20
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Provider:
    def __init__(self, settings: SsoSettings) -> None:
        self._settings = settings
        self._verify: ssl.SSLContext | bool = True
        if settings.ca_file:
            self._verify = ssl.create_default_context(cafile=settings.ca_file)
        self._description: Mapping[str, Any] = {}
        self._described_s = -_DESCRIPTION_S
        self._keys: KeySet | None = None
        self._keys_s = -_KEYS_S

    async def _ask(self, method: str, url: str, **how: Any) -> tuple[int, Any]:
        """Status and JSON of an answer: no redirects, no proxies of the environment, bounded in time and size."""
        try:
            async with (
                httpx.AsyncClient(verify=self._verify, timeout=_TIMEOUT_S, trust_env=False) as client,
                client.stream(method, url, headers={"Accept": "application/json"}, **how) as answer,
            ):
                body = b""
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_ANSWER:
                        raise SsoRefused(f"{url} answered too much")
                return answer.status_code, json.loads(body)
        except (httpx.HTTPError, ValueError) as error:
            raise SsoRefused(f"{url}: {type(error).__name__}") from error

    async def _get(self, url: str) -> Any:
        status, body = await self._ask("GET", url)
        if status != 200:
            raise SsoRefused(f"{url} answered {status}")
        return body

    async def description(self) -> Mapping[str, Any]:
        """OpenID Connect Discovery 1.0. Raises SsoRefused."""
        if time.monotonic() - self._described_s < _DESCRIPTION_S:
            return self._description
        found = await self._get(self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if not isinstance(found, dict) or found.get("issuer") != self._settings.issuer:
            raise SsoRefused("the description is another issuer's")
        try:
            for name in (*_ENDPOINTS, *(["end_session_endpoint"] if "end_session_endpoint" in found else [])):
                check_url(name, str(found.get(name)))
        except ValueError as error:
            raise SsoRefused(f"description: {error}") from error
        self._description, self._described_s = found, time.monotonic()
        return found

    async def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        settings = self._settings
        return str(
            prepare_grant_uri(
                (await self.description())["authorization_endpoint"],
                settings.client_id,
                "code",
                settings.redirect_url,
                " ".join(settings.scopes),
                state,
                nonce=nonce,
                code_challenge=create_s256_code_challenge(verifier),
                code_challenge_method="S256",
            )
        )

    async def exchange(self, code: str, verifier: str, nonce: str) -> Mapping[str, Any]:
        """The claims about who logged in. Raises SsoRefused."""
        settings = self._settings
        form = {
            "grant_type": "authorization_code", "code": code, "code_verifier": verifier,
            "redirect_uri": settings.redirect_url, "client_id": settings.client_id,
        }  # fmt: skip
        auth = None
        if settings.client_secret_file:
            secret = Path(settings.client_secret_file).read_text(encoding="utf-8").strip()
            auth = httpx.BasicAuth(quote(settings.client_id, safe=""), quote(secret, safe=""))  # RFC 6749 section 2.3.1
        endpoint = (await self.description())["token_endpoint"]
        status, token = await self._ask("POST", endpoint, data=form, auth=auth)
        if status != 200 or not isinstance(token, dict):
            said = str(token.get("error", ""))[:60] if isinstance(token, dict) else ""
            raise SsoRefused(f"token endpoint answered {status} {said!r}")
        return await self.verified(token, nonce)

    async def verified(self, token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token that is true and meant for us. Raises SsoRefused."""
        text = token.get("id_token")
        if not isinstance(text, str):
            raise SsoRefused("no ID token")
        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        try:
            try:
                decoded = jwt.decode(text, await self._key_set(), registry=registry)
            except (JoseError, ValueError):
                # Signed by a key we do not have yet, or not at all: look once more at the provider's keys.
                decoded = jwt.decode(text, await self._key_set(again=True), registry=registry)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": self._settings.issuer},
                    "aud": {"essential": True, "value": self._settings.client_id},
                    "sub": {"essential": True},
                },
                {"nonce": nonce, "client_id": self._settings.client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise SsoRefused(f"ID token: {type(error).__name__} {str(error)[:80]}") from error
        if claims.get("nonce") != nonce:
            raise SsoRefused("ID token: nonce")
        return dict(claims)

    async def _key_set(self, *, again: bool = False) -> KeySet:
        age_s = time.monotonic() - self._keys_s
        if self._keys is None or age_s > _KEYS_S or (again and age_s > _KEYS_AGAIN_S):
            found = await self._get((await self.description())["jwks_uri"])
            try:
                self._keys = KeySet.import_key_set(found)
            except (JoseError, ValueError, TypeError, KeyError) as error:
                raise SsoRefused(f"keys: {type(error).__name__}") from error
            self._keys_s = time.monotonic()
        return self._keys

    async def logout_url(self, back: str) -> str | None:
        """Where the provider ends its own session; None if it has no such place."""
        endpoint = (await self.description()).get("end_session_endpoint")
        if not endpoint:
            return None
        return str(
            httpx.URL(endpoint).copy_merge_params(
                {"client_id": self._settings.client_id, "post_logout_redirect_uri": back}
            )
        )
