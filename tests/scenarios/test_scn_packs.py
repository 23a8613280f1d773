"""Packs: what is refused, what a site may change, and that they say what the scenario catalogue says."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest

from protocols import devices as device_types
from protocols.core.errors import ConfigError, PackInvalid
from protocols.vocabulary import case_types, departments, event_types
from scenarios.binding import ScenarioBinding
from scenarios.blocks.payload import FAMILIES, allowed
from scenarios.engine import Engine
from scenarios.packs import Pack, bind, bind_all, load, load_all, lock, pack_ids, parse, roles_for
from tests.scenarios.world import LANE, PIPES, SHARED, SITE

CATALOGUE = SHARED / "scenarios" / "catalogue.yaml"


def source(pack_id: str = SITE) -> str:
    domain, _, name = pack_id.partition("/")
    file = resources.files("scenarios.packs") / domain / name / "pack.toml"
    return file.read_text(encoding="utf-8")


def test_the_three_packs_load() -> None:
    assert pack_ids() == [LANE, SITE, PIPES]
    assert [pack.id for pack in load_all()] == pack_ids()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "urban_mgmt/construction_site"', 'id = "urban_mgmt/other"', "pack.id"),
        ('version = "1.0.0"', 'version = "1"', "version"),
        ('zh = "工地治理"', 'zh = "工地治理"\nowner = "x"', "owner"),
        ('runs = "edge+cloud"', 'runs = "edge"', "runs at 'edge'"),
        ('block = "window"', 'block = "windows"', "windows"),
        ('stat = "energy_mean"', 'stat = "mode"', "mode"),
        ("window_s = 1200", "window_s = 1230", "whole number of reporting intervals"),
        ("window_s = 1200", "window_s = 0", "window_s"),
        ('role = "noise"', 'role = "nois"', "not in needs"),
        ('point = "laeq"', 'point = "leq"', "not among the role's points"),
        ('unit = "dB"', 'unit = "mm"', "env/noise_meter gives 'dB'"),
        ('event = "env.noise.exceed"', 'event = "env.noise.excess"', "is not an event type"),
        ('event = "env.noise.exceed"', 'event = "dev.offline"', "not born at the edge"),
        ('standard = "GB12523-2025"', 'standard = ""', "standard"),
        ('level = "yellow"', 'level = "purple"', "purple"),
        ('day = { value = 70.0, unit = "dB"', 'day = { value = 70.0, unit = "m"', "limit in 'm'"),
        ('day = { value = 70.0, unit = "dB"', 'day = { value = 70.0, unit = "dB", margin = 1', "margin"),
        ("min = 50.0, max = 70.0", "min = 71.0, max = 75.0", "site_override needs"),
        ("site_override = true, min = 50.0, max = 70.0", "min = 50.0", "bounds for a site_override"),
        ("k = 2\nn = 3", "k = 4\nn = 3", "k of n"),
        ("k = 2\nn = 3", "k = 2\nn = 3\nhold_s = 5", "either hold_s or k of n"),
        ("value = 200.0", "value = 140.0", "site_override needs|reached earlier"),
        ('id = "noise_lamax"', 'id = "noise_leq"', "used twice"),
        ('id = "noise_lamax"', 'id = "Noise-Max"', "snake_case"),
        ('type = "site_nuisance"', 'type = "nuisance"', "is not a case type"),
        ('department = "housing"', 'department = "houses"', "is not a department"),
        ('support = ["urban_mgmt", "ecology"]', 'support = ["ecolog"]', "is not a department"),
        ("accept = 0.5", "accept = 5", "accept <= onsite <= close"),
        ('role = "*"', 'role = "dust"', "are about all devices"),
        ('type = "env/noise_meter"', 'type = "env/noise_metre"', "env/noise_metre"),
        ('points = ["laeq", "lamax", "status"]', 'points = ["laeq", "loudness"]', "needs.noise.points"),
        ('minus = "district"', 'minus = "county"', "not in needs"),
        ("[gaps]", '[gaps]\nempty = " "', "gaps.empty"),
        ("[gaps]", "[gaps", "pack.toml"),
    ],
)
def test_refused_with_file_and_key(old: str, new: str, says: str) -> None:
    text = source()
    assert old in text
    with pytest.raises(PackInvalid, match=says) as caught:
        parse(text.replace(old, new, 1), pack_id=SITE, where="x/pack.toml")
    assert "x/pack.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("conf >= 0.5", "conf >= ", "where"),
        ("conf >= 0.5", "face >= 0.5", "unknown name face"),
        ('facts = ["zone.object"', 'facts = ["zone.person"', "facts"),
        ('moved = "cam.moved"', 'stolen = "cam.moved"', "camera code"),
        ('near = ["fire.alarm"', 'near = ["fire.alarms"', "is not an event type"),
        ('cleared_event = "vision.lane.cleared"', 'cleared_event = "vision.clear"', "is not an event type"),
    ],
)
def test_camera_rules_refused(old: str, new: str, says: str) -> None:
    text = source(LANE)
    assert old in text
    with pytest.raises(PackInvalid, match=says):
        parse(text.replace(old, new, 1), pack_id=LANE, where="pack.toml")


@pytest.mark.parametrize("pack_id", ["nowhere/none", "x", "a/b/c", "../etc"])
def test_unknown_pack(pack_id: str) -> None:
    with pytest.raises(PackInvalid):
        load(pack_id)


def test_site_limits_within_bounds_only() -> None:
    pack = load(SITE)
    bound = bind(pack, {"noise": ["n"]}, {"noise_leq.yellow.day": 65.0, "needs.noise.interval_s": 30.0})
    rule = next(rule for rule in bound.rules if rule.id == "noise_leq")
    assert rule.levels[0].day.value == 65.0  # type: ignore[union-attr]
    assert bound.site.interval_s["noise"] == 30.0
    assert next(rule for rule in pack.rule if rule.id == "noise_leq").levels[0].day.value == 70.0  # type: ignore[union-attr]
    for key, value, says in [
        ("noise_leq.yellow.day", 75.0, "outside 50..70 dB"),
        ("crane_moment.orange.limit", 110.0, "does not let a site change it"),
        ("noise_leq.red.day", 65.0, "no such parameter"),
        ("noise_leq.yellow.dusk", 65.0, "no such parameter"),
        ("nothing.at.all", 1.0, "no such parameter"),
        ("noise_leq.window_s", 600.0, "no such parameter"),
        ("needs.noise.interval_s", 70.0, "whole number of reporting intervals"),
        ("needs.nobody.interval_s", 60.0, "no such parameter"),
    ]:
        with pytest.raises(ConfigError, match=says):
            bind(pack, {"noise": ["n"]}, {key: value})
    companion = bind(load(PIPES), {"water_main": ["w"]}, {"water_burst.companion.limit": 30.0})
    assert next(r for r in companion.rules if r.id == "water_burst").companion.limit.value == 30.0  # type: ignore[union-attr]
    lane = bind(load(LANE), {"lane_cam": ["cam"]}, {"lane_blocked.static_s": 60.0})
    assert next(r for r in lane.rules if r.id == "lane_blocked").static_s.value == 60.0  # type: ignore[union-attr]


def test_a_site_cannot_turn_the_levels_round() -> None:
    with pytest.raises(ConfigError, match="reached earlier"):
        bind(load(SITE), {"dust": ["d"]}, {"dust_hourly.orange.limit": 120.0})


def test_bad_bindings() -> None:
    with pytest.raises(ConfigError, match=r"devices\.noises: no such role"):
        bind(load(SITE), {"noises": ["n"]})
    with pytest.raises(ConfigError, match="no device at all"):
        bind(load(SITE), {"noise": []})


def test_configuration_to_engine() -> None:
    bindings = [
        ScenarioBinding(pack=SITE, devices={"noise": ("n",)}, params={"noise_leq.yellow.day": 65}),
        ScenarioBinding(pack=LANE, devices={"lane_cam": ("cam",)}),
    ]
    engine = Engine(bind_all(bindings), "edge")
    assert engine.missing() == {f"{SITE}:noise_leq": ["n/laeq"], f"{SITE}:noise_lamax": ["n/lamax"]}


def test_roles_by_type() -> None:
    types = {"n": "env/noise_meter", "d": "env/dust_station", "cam": "camera", "m": "meter/electricity_three_phase"}
    assert roles_for(load(SITE), types) == {"noise": ("n",), "dust": ("d",)}  # the district station is put in by hand
    assert roles_for(load(LANE), types) == {"lane_cam": ("cam",)}


def test_changed_packs_have_a_new_version() -> None:
    assert lock.changed(lock.locked(), lock.current()) == []
    assert lock.locked() == lock.current(), "run: python -m scenarios.packs.lock"


def test_lock_sees_a_changed_meaning_and_no_changed_comment() -> None:
    pack = load(SITE)
    again = parse("# a remark\n" + source(), pack_id=SITE, where="x")
    assert lock.digest(again) == lock.digest(pack)
    other = parse(source().replace("value = 90.0", "value = 85.0"), pack_id=SITE, where="x")
    entry = {"version": other.version, "digest": lock.digest(other)}
    assert lock.changed(lock.current(), {SITE: entry}) == [SITE]


@pytest.mark.parametrize("pack", load_all(), ids=lambda pack: pack.id)
def test_every_rule_is_explained(pack: Pack) -> None:
    for rule in pack.rule:
        assert rule.zh
        assert rule.en
    assert pack.gaps, "no pack covers its scenario wholly yet"
    for need in pack.needs.values():
        if need.type != "camera":
            assert set(need.points) <= {point.name for point in device_types.load(need.type).points}


def test_payload_keeps_no_name_face_or_plate() -> None:
    everything = frozenset().union(*FAMILIES.values(), allowed("vision.low_conf"))
    assert not everything & {"name", "face", "plate", "embedding", "person", "phone"}


# -- against the catalogue


@pytest.fixture(scope="module")
def catalogue() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    if not CATALOGUE.is_file():
        pytest.skip("../shared/scenarios/catalogue.yaml is not here")
    found: dict[str, Any] = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    return found


#: Events a pack sends though the catalogue does not list them for its scenario, with the reason.
BESIDES = {
    SITE: {"weather.gust": "stop-work wind: the vocabulary has no event of its own for it"},
    PIPES: {},
    LANE: {},
}
QUALITY = ("data.", "dev.", "cam.", "vision.low_conf")


@pytest.mark.parametrize("pack", load_all(), ids=lambda pack: pack.id)
def test_catalogue_agrees(pack: Pack, catalogue: dict[str, Any]) -> None:
    entry = next(s for s in catalogue["scenarios"] if s["id"] == pack.id)
    assert (pack.pack.zh, pack.pack.en) == (entry["title_zh"], entry["title_en"])
    outputs, case = entry["outputs"], entry["outputs"]["case"]
    assert (pack.case.type, pack.case.department) == (case["type"], case["dept"])
    assert list(pack.case.support) == case["support"]
    sla = pack.case.sla_h
    assert {"accept": sla.accept, "onsite": sla.onsite, "close": sla.close} == case["sla_h"]
    assert list(pack.case.kpis) == outputs["kpis"]
    assert set(entry["runs"].split("+")) <= set(pack.pack.runs.split("+"))
    for rule in pack.rule:
        known = rule.event in outputs["events"] or rule.event.startswith(QUALITY) or rule.event in BESIDES[pack.id]
        assert known, f"{rule.id}: {rule.event}"
        assert rule.standard == "design" or rule.standard in catalogue["standards"], rule.id
    built = {rule.event for rule in pack.rule} | {getattr(rule, "cleared_event", "") for rule in pack.rule}
    if set(outputs["events"]) - built:
        assert pack.gaps


def test_vocabulary_is_the_catalogues(catalogue: dict[str, Any]) -> None:
    for pack in load_all():
        for rule in pack.rule:
            assert event_types()[rule.event].level == catalogue["events"][rule.event][1]
        assert pack.case.type in catalogue["case_types"] and pack.case.type in case_types()
        assert pack.case.department in catalogue["departments"] and pack.case.department in departments()
