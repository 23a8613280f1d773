"""GCJ-02 to WGS 84, for terminals whose maker shifts coordinates before they leave the vehicle.

GCJ-02 displaces places in China by 100 to 700 m with a smooth function on the Krasovsky ellipsoid. It is not
published; what follows is the approximation that all public map tools share. Against surveyed points they agree to
about 1 to 2 m; the inverse here meets its own forward function within 1 mm. Outside China nothing is shifted.
"""

from __future__ import annotations

from math import cos, pi, sin, sqrt

#: Krasovsky 1940: semi-major axis and eccentricity squared.
_A, _E2 = 6_378_245.0, 0.006_693_421_622_965_943
#: What the conversion may be off by (see above).
ERROR_M = 2.0


def outside_china(lon: float, lat: float) -> bool:
    """The box in which coordinates are shifted at all."""
    return not (72.004 <= lon <= 137.8347 and 0.8293 <= lat <= 55.8271)


def _shift(lon: float, lat: float) -> tuple[float, float]:
    """Degrees east and north by which GCJ-02 lies beside WGS 84."""
    x, y = lon - 105.0, lat - 35.0
    root = sqrt(abs(x))
    fine = 20.0 * sin(6.0 * x * pi) + 20.0 * sin(2.0 * x * pi)
    north = -100.0 + 2.0 * x + 3.0 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root
    north += (fine + 20.0 * sin(y * pi) + 40.0 * sin(y / 3.0 * pi)) * 2.0 / 3.0
    north += (160.0 * sin(y / 12.0 * pi) + 320.0 * sin(y * pi / 30.0)) * 2.0 / 3.0
    east = 300.0 + x + 2.0 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root
    east += (fine + 20.0 * sin(x * pi) + 40.0 * sin(x / 3.0 * pi)) * 2.0 / 3.0
    east += (150.0 * sin(x / 12.0 * pi) + 300.0 * sin(x / 30.0 * pi)) * 2.0 / 3.0
    phi = lat / 180.0 * pi
    bend = 1.0 - _E2 * sin(phi) ** 2
    return (
        east * 180.0 / (_A / sqrt(bend) * cos(phi) * pi),
        north * 180.0 / (_A * (1.0 - _E2) / (bend * sqrt(bend)) * pi),
    )


def to_gcj02(lon: float, lat: float) -> tuple[float, float]:
    """Longitude and latitude as a shifting terminal would send them."""
    if outside_china(lon, lat):
        return lon, lat
    east, north = _shift(lon, lat)
    return lon + east, lat + north


def to_wgs84(lon: float, lat: float) -> tuple[float, float]:
    """Longitude and latitude of what a shifting terminal sent."""
    if outside_china(lon, lat):
        return lon, lat
    real_lon, real_lat = lon, lat
    for _ in range(6):  # the shift changes by less than 1e-4 of itself over its own length: each round gains 3 digits
        east, north = _shift(real_lon, real_lat)
        real_lon, real_lat = lon - east, lat - north
    return real_lon, real_lat
