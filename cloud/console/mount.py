"""Puts the console onto the application: static files, log-in pages, and the one page that holds all views."""

from __future__ import annotations

import time
from pathlib import Path

from fastapi import FastAPI, Request
from nicegui import ui
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from cloud.api import problems
from cloud.api.deps import Services
from cloud.auth.sessions import COOKIE
from cloud.console import forms, forms_code, prefs
from cloud.console.pages import (
    alarms,
    audit,
    cases,
    device,
    devices,
    fleet,
    gateways,
    identity,
    ledger,
    map_page,
    operators,
    orders,
    rollouts,
    security,
)
from cloud.console.shell import Shell
from cloud.console.tab import Tab

WEB = Path(__file__).parent / "web"
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><rect width="40" height="40" rx="10" fill="#12332f"/>'
    '<path d="M6 27c4-3 8-3 11 0s7 3 11 0 4-2 6-2" fill="none" stroke="#52c7b3" stroke-width="3"/>'
    '<path d="M9 21V12l5-3v12M17 21V7l6 4v10M26 21v-8h5v8" fill="none" stroke="#d9e5e4" stroke-width="2.5"/></svg>'
)
VIEWS = {
    "/": map_page.build,
    "/alarms": alarms.build,
    "/cases": cases.build,
    "/devices": devices.build,
    "/device": device.build,
    "/gateways": gateways.build,
    "/ledger": ledger.build,
    "/identity": identity.build,
    "/operators": operators.build,
    "/security": security.build,
    "/orders": orders.build,
    "/audit": audit.build,
    "/rollouts": rollouts.build,
    "/fleet": fleet.build,
}


def mount(app: FastAPI, services: Services) -> None:
    app.mount("/assets", StaticFiles(directory=WEB), name="assets")
    forms.install(app, services)
    forms_code.install(app, services)

    async def console(request: Request) -> Response | None:
        if not hasattr(request.state, "operator"):
            # Below a path that is open to everybody there are routes of their own, and no views.
            return problems.Problem(404, "not_found", "there is nothing here").response()
        operator, token = request.state.operator, request.state.token
        if operator.held_up:
            return RedirectResponse("/password" if operator.must_change else "/second-factor", 303)
        chosen = await prefs.load(services.pool, operator.name)
        tab = Tab(services, operator, token, request.cookies.get(COOKIE, ""), chosen)
        tab.client.on_delete(tab.close)
        language = "zh-CN" if tab.words.zh else "en"
        ui.add_head_html(
            f'<link rel="stylesheet" href="/assets/console.css"><script>Object.assign(document.documentElement.dataset,'
            f'{{theme:"{chosen.theme}",lang:"{language[:2]}"}});document.documentElement.lang="{language}";</script>'
            f'<script src="/assets/cb.js"></script><script>cb.offset={int(time.time() * 1000)}-Date.now();</script>'
        )
        ui.page_title(
            f"{tab.words('top.brand')} · {tab.words.either(services.settings.city_zh, services.settings.city_en)}"
        )
        Shell(tab, dict(VIEWS))
        return None

    # The catch-all comes second so that "/" keeps its own route.
    ui.page("/", response_timeout=10)(console)
    ui.page("/{_:path}", response_timeout=10)(console)
    ui.run_with(
        app,
        title="citybrain",
        favicon=FAVICON,
        dark=None,
        tailwind=False,
        reconnect_timeout=10.0,
        gzip_middleware_factory=None,  # the guard must see pages before they are packed
        show_welcome_message=False,
    )
