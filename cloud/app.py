"""The core's web process: API, live stream, console, behind one guard.

It reads the database and calls the alarm and case services; ingest runs in processes of its own and is heard of
through the database alone, so this one can be restarted or doubled at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import uvicorn
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cloud import config
from cloud.api import (
    limits,
    problems,
    routes_audit,
    routes_auth,
    routes_bulk,
    routes_fleet,
    routes_identity,
    routes_ledger,
    routes_people,
    routes_rates,
    routes_sso,
    routes_twin,
    routes_updates,
    routes_work,
    stream,
)
from cloud.api.acts import Acts
from cloud.api.deps import Services, ServicesDep
from cloud.api.limits import Limits
from cloud.api.models import Health
from cloud.api.rates import Paced, Rates
from cloud.audit.sequencer import Sealing
from cloud.auth.guard import Guard
from cloud.auth.proxies import Proxies, networks
from cloud.auth.service import Accounts, ensure_first_operator
from cloud.auth.sessions import Sessions, load_key
from cloud.auth.sso import Sso
from cloud.config import Settings
from cloud.identity.desk import IdentityDesk
from cloud.query import disks
from cloud.query.live import Hub
from cloud.query.pool import Pool
from cloud.updates.running import Rolling
from protocols.core.errors import StoreError

log = logging.getLogger(__name__)

API = "/api/v1"


def create_app(settings: Settings) -> FastAPI:
    """The application. Nothing is connected before its lifespan begins."""
    pool = Pool(settings.dsn, settings.pool_size)
    sessions = Sessions(load_key(Path(settings.state_dir)), settings.session_hours)
    accounts = Accounts(
        pool,
        sessions,
        idle_s=settings.session_idle_hours * 3600,
        address_failures=settings.login_failures_per_address,
    )
    sso = Sso(settings.sso, pool, accounts) if settings.sso is not None else None
    identity = IdentityDesk(settings.dsn, settings.identity, Path(settings.state_dir), city=settings.city_en)
    services = Services(settings, pool, Hub(pool), accounts, Acts(settings.dsn), Rates(settings.rates), sso, identity)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.hub.start()
        sealing = app.state.sealing = Sealing(settings.dsn, Path(settings.state_dir))
        sealing.start()
        rolling = Rolling(settings.dsn, settings.updates) if settings.updates is not None else None
        if rolling is not None:
            rolling.start()
        try:
            yield
        finally:
            await services.hub.stop()
            services.acts.close()
            await asyncio.to_thread(sealing.stop)
            if rolling is not None:
                await asyncio.to_thread(rolling.stop)
            app.state.identity.close()
            await pool.close()

    app = FastAPI(
        title="citybrain",
        version="1",
        summary="Gateways, devices, readings, alarms and cases of a city.",
        lifespan=lifespan,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # their pages load scripts from a CDN
        redoc_url=None,
    )
    app.state.services = services
    app.state.identity = identity
    problems.install(app)
    problems.describe(app)
    for router in (
        routes_auth.router,
        routes_people.router,
        routes_fleet.router,
        routes_work.router,
        routes_twin.router,
        routes_updates.router,
        routes_audit.router,
        routes_bulk.router,
        routes_ledger.router,
        routes_rates.router,
        stream.router,
    ):
        app.include_router(router, prefix=API)
    app.include_router(routes_identity.router, prefix=API)
    app.include_router(routes_sso.router)
    app.include_router(routes_updates.files)

    @app.get(f"{API}/health", tags=["health"])
    async def health(s: ServicesDep) -> Health:
        """Open to monitoring without a log-in, and therefore without any figures."""
        try:
            async with s.pool.connection() as conn:
                disk, _ = await disks.core(conn)
        except StoreError:
            return Health(ok=False, database=False, live=s.hub.connected)
        return Health(ok=s.hub.connected and disk != "full", database=True, live=s.hub.connected, disk=disk)

    if settings.console:
        from cloud.console.mount import mount

        mount(app, services)
    app.add_middleware(
        Limits, max_body=settings.max_body_kb * 1024, larger={f"{API}/fleet/import": routes_bulk.MAX_BODY}
    )
    app.add_middleware(Paced, rates=services.rates)
    app.add_middleware(Guard, accounts=services.accounts, secure=settings.cookie_secure)
    app.add_middleware(GZipMiddleware, minimum_size=1000)
    if settings.trusted_hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.trusted_hosts))
    app.add_middleware(
        Proxies, trusted=networks(settings.trusted_proxies)
    )  # the outermost: what follows reads its word
    return app


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
        timeout_graceful_shutdown=3,
        **limits.server_options(),
    )


def first_start(dsn: str) -> str | None:
    """Make the first operator if there is none; its password, once."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return ensure_first_operator(conn)


def main() -> None:
    parser = argparse.ArgumentParser(prog="citybrain-core-web", description="citybrain core: API and console")
    parser.add_argument("config", type=Path, help="TOML file, see cloud/config.py")
    settings = config.load(parser.parse_args().config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if (password := first_start(settings.dsn)) is not None:
        print(f"first log-in: name admin, password {password} (to be changed at once)", flush=True)
    serve(settings)


if __name__ == "__main__":
    main()
