"""Draws the map's base layer: Hefei's rough shape, by hand, as data.

The console works without a tile server and without anybody's map data. What stands here are a few dozen corner
points set by eye; borders between two of them are roughened by a fixed rule (the same on both sides of a border),
rivers and shores are smoothed in the browser. It shows where something is, not where a border runs.

    python -m cloud.console.base.make_hefei        writes cloud/console/web/hefei.json
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

Point = tuple[float, float]

#: Corners that several districts share, lon/lat WGS 84.
CORNERS: dict[str, Point] = {
    "centre": (117.284, 31.862), "a1": (116.97, 31.93), "a2": (117.08, 31.99), "a3": (117.16, 31.96),
    "a4": (117.20, 32.05), "a5": (117.30, 32.04), "a6": (117.34, 31.96), "a7": (117.42, 31.97), "a8": (117.47, 31.91),
    "a9": (117.435, 31.83), "a10": (117.45, 31.76), "a11": (117.43, 31.68), "a12": (117.33, 31.64),
    "a13": (117.25, 31.70), "a14": (117.225, 31.77), "a15": (117.10, 31.75), "a16": (117.00, 31.80),
    "i1": (117.225, 31.892), "i2": (117.31, 31.90), "i3": (117.36, 31.84), "i4": (117.258, 31.815),
    "b1": (116.88, 31.97), "b2": (116.86, 32.15), "b3": (116.98, 32.33), "b4": (117.02, 32.45), "b5": (117.18, 32.53),
    "b6": (117.33, 32.46), "b7": (117.44, 32.30), "b8": (117.40, 32.15), "b9": (117.38, 32.05),
    "d1": (117.55, 32.22), "d2": (117.70, 32.23), "d3": (117.83, 32.10), "d4": (117.86, 31.95), "d5": (117.80, 31.84),
    "d6": (117.68, 31.76), "d7": (117.60, 31.70), "d8": (117.55, 31.60), "d9": (117.46, 31.60),
    "e1": (116.75, 31.93), "e2": (116.68, 31.80), "e3": (116.72, 31.62), "e4": (116.83, 31.50), "e5": (116.97, 31.43),
    "e6": (117.15, 31.45), "e7": (117.28, 31.50), "e8": (117.38, 31.53), "f1": (117.45, 31.45), "f2": (117.53, 31.36),
    "f3": (117.58, 31.22), "f4": (117.50, 31.05), "f5": (117.33, 30.97), "f6": (117.15, 31.00), "f7": (117.03, 31.12),
    "f8": (117.05, 31.30), "g1": (117.98, 31.85), "g2": (118.02, 31.65), "g3": (117.97, 31.48), "g4": (117.85, 31.35),
    "g5": (117.70, 31.27),
}  # fmt: skip

#: id, zh, en, kind, label place, corners
DISTRICTS: tuple[tuple[str, str, str, str, Point, str], ...] = (
    ("changfeng", "长丰县", "Changfeng", "county", (117.14, 32.25), "a1 b1 b2 b3 b4 b5 b6 b7 b8 b9 a6 a5 a4 a3 a2"),
    ("feidong", "肥东县", "Feidong", "county", (117.62, 31.97),
     "a6 b9 b8 d1 d2 d3 d4 d5 d6 d7 d8 d9 a11 a10 a9 a8 a7"),
    ("feixi", "肥西县", "Feixi", "county", (116.93, 31.62),
     "a1 b1 e1 e2 e3 e4 e5 e6 e7 e8 a12 a13 a14 a15 a16"),
    ("lujiang", "庐江县", "Lujiang", "county", (117.29, 31.22), "e5 e6 e7 e8 f1 f2 f3 f4 f5 f6 f7 f8"),
    ("chaohu", "巢湖市", "Chaohu", "county", (117.84, 31.68), "d4 g1 g2 g3 g4 g5 f3 f2 f1 e8 d9 d8 d7 d6 d5"),
    ("shushan", "蜀山区", "Shushan", "core", (117.14, 31.835), "a1 a2 a3 i1 centre i4 a14 a15 a16"),
    ("luyang", "庐阳区", "Luyang", "core", (117.268, 31.965), "a3 a4 a5 a6 i2 centre i1"),
    ("yaohai", "瑶海区", "Yaohai", "core", (117.385, 31.905), "centre i2 a6 a7 a8 a9 i3"),
    ("baohe", "包河区", "Baohe", "core", (117.345, 31.775), "centre i3 a9 a10 a11 a12 a13 a14 i4"),
)  # fmt: skip

LAKE: list[Point] = [
    (117.285, 31.635), (117.300, 31.675), (117.340, 31.700), (117.385, 31.705), (117.425, 31.685), (117.450, 31.650),
    (117.458, 31.610), (117.475, 31.582), (117.510, 31.595), (117.560, 31.625), (117.610, 31.645), (117.670, 31.650),
    (117.730, 31.645), (117.790, 31.625), (117.840, 31.600), (117.855, 31.583), (117.820, 31.565), (117.770, 31.545),
    (117.720, 31.510), (117.660, 31.475), (117.600, 31.455), (117.540, 31.430), (117.480, 31.420), (117.430, 31.445),
    (117.390, 31.490), (117.365, 31.540), (117.330, 31.580), (117.300, 31.605),
]  # fmt: skip
WATERS: tuple[tuple[str, str, str, str, Point | None, list[Point]], ...] = (
    ("chaohu", "巢湖", "Lake Chao", "lake", (117.55, 31.535), LAKE),
    ("dongpu", "董铺水库", "Dongpu", "lake", None,
     [(117.105, 31.915), (117.14, 31.907), (117.17, 31.902), (117.197, 31.889), (117.192, 31.875), (117.165, 31.879),
      (117.135, 31.886), (117.11, 31.899)]),
    ("dafangying", "大房郢水库", "Dafangying", "lake", None,
     [(117.213, 31.957), (117.236, 31.942), (117.246, 31.917), (117.239, 31.901), (117.225, 31.906), (117.219, 31.93)]),
    ("laoshan", "", "", "isle", None, [(117.465, 31.515), (117.475, 31.519), (117.482, 31.512), (117.472, 31.507)]),
)  # fmt: skip
RIVERS: tuple[tuple[str, str, list[Point]], ...] = (
    ("nanfei", "main", [(117.195, 31.882), (117.23, 31.889), (117.262, 31.884), (117.287, 31.874), (117.308, 31.865),
                        (117.335, 31.85), (117.36, 31.822), (117.385, 31.78), (117.40, 31.735), (117.41, 31.698)]),
    ("dianbu", "minor", [(117.48, 32.06), (117.47, 31.99), (117.458, 31.93), (117.445, 31.87), (117.42, 31.81),
                         (117.392, 31.765)]),
    ("shiwuli", "minor", [(117.205, 31.80), (117.26, 31.787), (117.31, 31.762), (117.345, 31.732), (117.362, 31.704)]),
    ("tangxi", "minor", [(117.235, 31.768), (117.275, 31.748), (117.30, 31.718), (117.325, 31.694)]),
    ("pai", "main", [(116.96, 31.81), (117.05, 31.768), (117.13, 31.733), (117.20, 31.706), (117.26, 31.686),
                     (117.297, 31.67)]),
    ("canal", "main", [(117.13, 31.733), (117.07, 31.81), (116.99, 31.90), (116.93, 32.02), (116.90, 32.17)]),
    ("hangbu", "main", [(116.70, 31.46), (116.90, 31.46), (117.08, 31.50), (117.22, 31.527), (117.30, 31.546),
                        (117.362, 31.546)]),
    ("baishitian", "minor", [(117.20, 31.12), (117.24, 31.24), (117.30, 31.32), (117.37, 31.39), (117.425, 31.448)]),
    ("zhao", "minor", [(117.30, 31.05), (117.40, 31.17), (117.50, 31.28), (117.53, 31.36), (117.54, 31.43)]),
    ("yuxi", "main", [(117.855, 31.583), (117.89, 31.568), (117.94, 31.52), (118.00, 31.45)]),
)  # fmt: skip
ROADS: tuple[tuple[str, str, str, str, Point | None, bool, list[Point]], ...] = (
    ("ring1", "一环", "Ring 1", "ring", (117.272, 31.8895), True,
     [(117.246, 31.884), (117.272, 31.889), (117.303, 31.889), (117.325, 31.874), (117.32, 31.838), (117.29, 31.826),
      (117.25, 31.831), (117.24, 31.857)]),
    ("ring2", "二环", "Ring 2", "ring", (117.262, 31.7855), True,
     [(117.215, 31.905), (117.27, 31.916), (117.33, 31.911), (117.356, 31.885), (117.361, 31.83), (117.33, 31.796),
      (117.26, 31.786), (117.216, 31.791), (117.198, 31.83), (117.203, 31.876)]),
    ("ring3", "绕城高速", "Ring expressway", "ring", (117.16, 31.746), True,
     [(117.09, 31.86), (117.12, 31.95), (117.22, 31.985), (117.34, 31.98), (117.43, 31.94), (117.475, 31.86),
      (117.46, 31.77), (117.37, 31.735), (117.25, 31.726), (117.15, 31.75), (117.10, 31.80)]),
    ("east", "", "", "radial", None, False, [(117.43, 31.94), (117.62, 32.02), (117.84, 32.09)]),
    ("southeast", "", "", "radial", None, False, [(117.46, 31.78), (117.65, 31.745), (117.86, 31.69), (118.0, 31.6)]),
    ("south", "", "", "radial", None, False, [(117.24, 31.726), (117.20, 31.5), (117.24, 31.25), (117.2, 31.02)]),
    ("west", "", "", "radial", None, False, [(117.093, 31.83), (116.88, 31.785), (116.69, 31.77)]),
    ("northwest", "", "", "radial", None, False, [(117.12, 31.95), (117.0, 32.1), (116.95, 32.28)]),
    ("north", "", "", "radial", None, False, [(117.30, 31.985), (117.33, 32.2), (117.30, 32.45)]),
    ("changjiang", "", "", "street", None, False,
     [(117.10, 31.835), (117.19, 31.845), (117.25, 31.857), (117.30, 31.864), (117.36, 31.872), (117.44, 31.90)]),
    ("huizhou", "", "", "street", None, False,
     [(117.285, 31.98), (117.288, 31.90), (117.286, 31.862), (117.29, 31.80), (117.31, 31.73)]),
    ("maanshan", "", "", "street", None, False, [(117.30, 31.88), (117.302, 31.83), (117.295, 31.77), (117.29, 31.7)]),
    ("jinzhai", "", "", "street", None, False, [(117.283, 31.862), (117.25, 31.82), (117.20, 31.78), (117.12, 31.73)]),
    ("fanhua", "", "", "street", None, False, [(117.13, 31.787), (117.22, 31.775), (117.30, 31.79), (117.40, 31.80)]),
    ("beierhuan", "", "", "street", None, False,
     [(117.10, 31.905), (117.215, 31.925), (117.33, 31.93), (117.43, 31.94)]),
)  # fmt: skip


def roughened(a: Point, b: Point, depth: int = 4) -> list[Point]:
    """Points from a to b (without b) along a border that wanders a little, the same from both sides."""
    if depth == 0:
        return [a]
    low, high = min(a, b), max(a, b)
    seed = hashlib.sha256(f"{low}{high}".encode()).digest()
    shift = (seed[0] / 255 - 0.5) * 0.26
    dx, dy = high[0] - low[0], high[1] - low[1]
    middle = (round((low[0] + high[0]) / 2 - dy * shift, 5), round((low[1] + high[1]) / 2 + dx * shift, 5))
    return roughened(a, middle, depth - 1) + roughened(middle, b, depth - 1)


def base() -> dict[str, object]:
    districts = []
    for id_, zh, en, kind, label, names in DISTRICTS:
        corners = [CORNERS[name] for name in names.split()]
        ring = [p for a, b in zip(corners, corners[1:] + corners[:1], strict=True) for p in roughened(a, b)]
        districts.append({"id": id_, "zh": zh, "en": en, "kind": kind, "label": label, "ring": ring})
    return {
        "districts": districts,
        "waters": [
            {"id": i, "zh": zh, "en": en, "kind": kind, "label": label, "ring": ring}
            for i, zh, en, kind, label, ring in WATERS
        ],
        "rivers": [{"id": i, "kind": kind, "line": line} for i, kind, line in RIVERS],
        "roads": [
            {"id": i, "zh": zh, "en": en, "kind": kind, "label": label, "closed": closed, "line": line}
            for i, zh, en, kind, label, closed, line in ROADS
        ],
    }


def main() -> None:
    target = Path(__file__).parent.parent / "web" / "hefei.json"
    target.write_text(json.dumps(base(), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
