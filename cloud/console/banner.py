"""One line on top of every page while a disk is full or nearly so; it goes by itself when there is room again.

What is read is the same for everybody and read once a process (the hub); who may not see the whole city asks again for
what he may see, and only while there is something to be said.
"""

from __future__ import annotations

from urllib.parse import quote

import psycopg
from nicegui import ui

from cloud.console.marks import esc
from cloud.console.tab import Tab
from cloud.console.words import number
from cloud.query.disks import FULL_MB, Disks, Tight, tight
from protocols.core.errors import StoreError

_NAMED = 3


class Banner:
    def __init__(self, tab: Tab) -> None:
        self._tab = tab
        self._text = ""
        self._line = ui.html("", sanitize=False).classes("cb-err").props('role="alert" data-disks')
        self._line.style("border-radius:0;border-width:0 0 1px;padding:8px 20px")
        self._line.set_visibility(False)
        if tab.sight.everything:
            self.show(tab.services.hub.disks)

    async def look(self) -> None:
        found = self._tab.services.hub.disks
        if found.count and not self._tab.sight.everything:
            try:
                async with self._tab.services.pool.connection() as conn:
                    found = await tight(conn, sight=self._tab.sight)
            except (StoreError, psycopg.Error):
                return  # the view says that the database is away
        self.show(found)

    def show(self, found: Disks) -> None:
        text = "" if found.fine else self._say(found)
        if text != self._text:
            self._text = text
            self._line.set_content(text)
            self._line.set_visibility(bool(text))

    def _say(self, found: Disks) -> str:
        words, parts = self._tab.words, []
        if found.core != "ok":
            said = esc(words(f"disk.core_{found.core}"))
            # The alarm belongs to no place: who is limited to one reads of it here, and finds no alarm behind it.
            shown = self._tab.sight.everything
            parts.append(_link(f"/alarms?id={quote(found.alarm_id, safe='')}", said) if shown else said)
        if found.count:
            named = [self._gateway(one) for one in found.gateways[:_NAMED]]
            more = found.count - len(named)
            if more:
                named.append(_link("/gateways", esc(words("disk.more", count=number(more)))))
            full = any(one.free_mb < FULL_MB for one in found.gateways)
            head = words("disk.gateways_full" if full else "disk.gateways_low", count=number(found.count))
            parts.append(f"{esc(head)} {esc(words('disk.comma')).join(named)}")
        return "<b>!</b><span>" + " · ".join(parts) + "</span>"

    def _gateway(self, one: Tight) -> str:
        name = self._tab.words.either(one.name_zh, one.name_en, one.gateway_id)
        room = f"{number(one.free_mb)} MB"
        return _link(f"/gateways?id={quote(one.gateway_id, safe='')}", f"{esc(name)} {esc(room)}")


def _link(target: str, inside: str) -> str:
    return f'<a href="{esc(target)}" style="color:inherit;text-decoration:underline">{inside}</a>'
