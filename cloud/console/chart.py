"""ECharts options of one curve, in the console's colours.

A gap is shown as a gap: the line breaks where a value is missing or nothing came for five times the usual step.
Readings of doubtful quality lie on an amber ground; limits of open alarms are drawn in the alarm's colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any

from cloud.console.words import Words
from cloud.query.rows import Readings

_DARK = {"text": "#a3b6b8", "dim": "#738a8e", "line": "#22343a", "panel": "#172428", "accent": "#52c7b3",
         "amber": "rgba(217,164,65,0.16)", "red": "#ff5c50", "orange": "#ff983a", "yellow": "#f0cc35",
         "blue": "#5fa5ff"}  # fmt: skip
_LIGHT = {"text": "#4d6267", "dim": "#7d8f93", "line": "#dbe3df", "panel": "#ffffff", "accent": "#0e7c6f",
          "amber": "rgba(154,106,8,0.14)", "red": "#cf2a20", "orange": "#d96700", "yellow": "#a57c00",
          "blue": "#2266d1"}  # fmt: skip
_FONT = '"Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif'


def options(
    dark: bool,
    words: Words,
    curve: Readings | None = None,
    span: tuple[datetime, datetime] | None = None,
    limits: Sequence[tuple[str, float]] = (),
) -> dict[str, Any]:
    colour = _DARK if dark else _LIGHT
    unit = words.unit(curve.series.unit) if curve else ""
    axis = {
        "axisLine": {"lineStyle": {"color": colour["line"]}},
        "axisTick": {"show": False},
        "axisLabel": {"color": colour["dim"], "fontFamily": _FONT, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": colour["line"]}},
    }
    time_axis: dict[str, Any] = {**axis, "type": "time", "splitLine": {"show": False}}
    if span:
        time_axis |= {"min": int(span[0].timestamp() * 1000), "max": int(span[1].timestamp() * 1000)}
    line: dict[str, Any] = {
        "type": "line",
        "name": words.point(curve.series.point) if curve else "",
        "data": points(curve) if curve else [],
        "showSymbol": False,
        "lineStyle": {"width": 1.8, "color": colour["accent"]},
        "itemStyle": {"color": colour["accent"]},
        "areaStyle": {"color": colour["accent"], "opacity": 0.08, "origin": "start"},
        "connectNulls": False,
        "animation": False,
    }
    if limits:
        line["markLine"] = {
            "symbol": "none",
            "silent": True,
            "data": [
                {
                    "yAxis": value,
                    "lineStyle": {"color": colour.get(level, colour["dim"]), "type": "dashed", "width": 1.4},
                    "label": {
                        "formatter": f"{words('alarms.limit')} {value:g}",
                        "color": colour.get(level, colour["dim"]),
                        "position": "insideEndTop",
                    },
                }
                for level, value in limits
            ],
        }
    if curve and (doubtful := doubtful_spans(curve)):
        line["markArea"] = {
            "silent": True,
            "itemStyle": {"color": colour["amber"]},
            "label": {"color": colour["dim"], "fontSize": 11},
            "data": [
                [{"xAxis": start, "name": words.quality(quality)}, {"xAxis": end}] for start, end, quality in doubtful
            ],
        }
    return {
        "textStyle": {"fontFamily": _FONT},
        "grid": {"left": 62, "right": 22, "top": 34, "bottom": 34},
        "tooltip": {
            "trigger": "axis",
            "backgroundColor": colour["panel"],
            "borderColor": colour["line"],
            "textStyle": {"color": colour["text"], "fontSize": 12},
            "axisPointer": {"lineStyle": {"color": colour["dim"]}},
        },
        "xAxis": time_axis,
        "yAxis": {
            **axis,
            "type": "value",
            "scale": True,
            "name": unit,
            "nameTextStyle": {"color": colour["dim"], "align": "right"},
            # A limit above the curve must be on the picture.
            **({"max": _round_up(max([v for v in curve.values if v is not None] + [x for _, x in limits], default=1))}
               if curve and limits else {}),
        },
        "series": [line],
    }  # fmt: skip


def _round_up(value: float) -> float:
    return round(value * 1.06, 2 if abs(value) < 10 else 0)


def points(curve: Readings) -> list[list[float | int | None]]:
    """Time and value, with a hole wherever nothing came for five times the usual step."""
    steps = [b - a for a, b in pairwise(curve.ts_ms) if b > a]
    hole_ms = 5 * median(steps) if steps else 0
    out: list[list[float | int | None]] = []
    before: int | None = None
    for ts_ms, value in zip(curve.ts_ms, curve.values, strict=True):
        if before is not None and hole_ms and ts_ms - before > hole_ms:
            out.append([before + 1, None])
        out.append([ts_ms, value])
        before = ts_ms
    return out


def doubtful_spans(curve: Readings, most: int = 60) -> list[tuple[int, int, int]]:
    """Stretches of one quality other than good: from, to, quality."""
    out: list[tuple[int, int, int]] = []
    for ts_ms, quality in zip(curve.ts_ms, curve.quality, strict=True):
        if quality == 0:
            continue
        if out and out[-1][2] == quality and ts_ms - out[-1][1] < 180_000:
            out[-1] = (out[-1][0], ts_ms, quality)
        else:
            out.append((ts_ms, ts_ms, quality))
    return out[-most:]
