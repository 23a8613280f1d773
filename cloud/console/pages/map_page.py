"""The map with what is open beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import CityMap
from cloud.console.words import device_class
from cloud.query import alarms, spatial
from cloud.query.rows import Alarm, MapPoint

#: West, south, east, north while no device has a place: the built-up city down to the lake.
START = (117.11, 31.635, 117.455, 31.975)
_CLASSES = ("env", "noise", "crane", "gas", "water", "meter", "camera")
_STATE_COLOURS = {"online": "--ok", "stale": "--amber", "offline": "--off", "unknown": "--unknown"}
_FEED = 30


def build(tab: Tab) -> None:
    words = tab.words
    with ui.element("div").classes("cb-mapwrap"):
        city = CityMap()
        with ui.element("aside").classes("cb-side"):
            heading = ui.html("", sanitize=False, tag="header")
            feed = ui.html("", sanitize=False).classes("cb-feed")
    view: dict[str, Any] = {"box": START, "fitted": False}
    city.put(
        start=list(START),
        points=[],
        classes=[{"key": key, "label": words(f"class.{key}")} for key in _CLASSES],
        words={
            "map": words("map.title"),
            "note": words("map.note"),
            "zoomIn": words("map.zoom_in"),
            "zoomOut": words("map.zoom_out"),
            "home": words("map.home"),
            "devices": words("map.devices"),
            "open": words("map.open_device"),
            "states": [
                {"key": key, "label": words.state(key), "color": f"var({colour})"}
                for key, colour in _STATE_COLOURS.items()
            ],
        },
    )

    async def load(_: Changes) -> tuple[list[MapPoint], list[Alarm], set[str]]:
        async with tab.services.pool.connection() as conn:
            if not view["fitted"]:
                view["fitted"] = True
                extent = await spatial.extent(conn)
                if extent is not None:
                    view["box"] = extent
                    city.put(start=list(extent))
                    city.run_method("fit", list(extent))
            points = await spatial.map_points(conn, datetime.now(UTC), *view["box"], sight=tab.sight)
            open_alarms = await alarms.alarms(conn, states=("raised", "acknowledged"), sight=tab.sight, limit=_FEED)
        return points, open_alarms.items, {a.device_id for a in open_alarms.items if a.state == "raised"}

    def show(data: tuple[list[MapPoint], list[Alarm], set[str]]) -> None:
        points, found, waiting = data
        city.put(points=[_point(tab, p, p.id in waiting) for p in points])
        heading.set_content(f"{marks.esc(words('map.feed'))}<small>{words('common.shown', n=len(found))}</small>")
        feed.set_content("".join(_line(tab, a) for a in found) or _calm(tab))

    async def moved(box: list[float]) -> None:
        if len(box) == 4 and all(isinstance(v, int | float) for v in box):
            # A margin, so that a short pan finds its markers there.
            dx, dy = (box[2] - box[0]) * 0.25, (box[3] - box[1]) * 0.25
            view["box"] = (box[0] - dx, box[1] - dy, box[2] + dx, box[3] + dy)
            tab.reload()

    city.listen("view", moved)
    tab.set_view(load, show, every_s=10)


def _point(tab: Tab, point: MapPoint, waiting: bool) -> dict[str, Any]:
    words = tab.words
    return {
        "id": point.id,
        "lon": point.lon,
        "lat": point.lat,
        "count": point.count,
        "state": point.state,
        "stateLabel": words.state(point.state),
        "level": point.level,
        "levelLabel": words.level(point.level) if point.level else "",
        "alarms": point.open_alarms,
        "waiting": waiting or (point.count > 1 and point.level is not None),
        "name": words.either(point.name_zh, point.name_en, point.id),
        "type": words.device_type(point.device_type),
        "cls": device_class(point.device_type),
    }


def _line(tab: Tab, alarm: Alarm) -> str:
    words = tab.words
    waits = words(f"alarm_state.{alarm.state}")
    return (
        f'<a class="lv {marks.esc(alarm.level)}" href="/alarms?id={marks.esc(alarm.alarm_id)}">'
        f'<div class="t"><span>{marks.esc(words.event(alarm.type))}</span>{marks.age(alarm.onset_at)}</div>'
        f'<div class="m"><span>{marks.esc(words.either(alarm.device_zh, alarm.device_en, alarm.device_id))}</span>'
        f"<span>{marks.esc(waits)}</span></div>"
        f'<div class="m"><span>{marks.esc(marks.values_text(words, alarm.values))}</span></div></a>'
    )


def _calm(tab: Tab) -> str:
    return marks.empty("alarms", tab.words("map.calm"), tab.words("map.calm_hint"))
