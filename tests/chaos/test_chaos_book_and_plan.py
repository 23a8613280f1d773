"""The source's book survives kills and claims nothing too much; a plan is its seed's; weather is what it says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_cli.chaos import book as books
from citybrain_cli.chaos import plan
from citybrain_cli.chaos.faults import choose
from citybrain_cli.chaos.source import ControlledClock, shape
from citybrain_cli.chaos.weather import CALM, Lane, Weather
from protocols.core.errors import ConfigError, ContractError

SERIES = [("gw-d0", "c000"), ("gw-d0", "c001"), ("gw-d0", "c002")]


def _writer(path: Path) -> books.BookWriter:
    return books.BookWriter(path, "gw", SERIES, 10)


def test_what_was_meant_and_what_was_accepted(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "book")
    first = writer.intend("data", 4, 1000, 2)
    writer.accepted(first)
    second = writer.intend("backfill", 0, 0, 3)
    writer.close()
    book = books.read(tmp_path / "book")
    assert (book.gateway, book.series, book.step_ms, book.lives) == ("gw", SERIES, 10, 1)
    assert book.commits == [first, second]
    assert book.accepted == {0}
    assert (book.readings, book.events) == (12, 2)


def test_a_second_life_never_uses_a_number_again(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "book")
    writer.intend("data", 4, 1000, 2)  # killed before the commit returned
    writer.close()
    writer = _writer(tmp_path / "book")
    commit = writer.intend("data", 4, 2000, 2)
    writer.close()
    assert (commit.number, commit.ticks, commit.events) == (1, (4, 7), (2, 3))
    assert books.read(tmp_path / "book").lives == 2


def test_a_line_cut_by_a_kill_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "book"
    writer = _writer(path)
    writer.accepted(writer.intend("data", 1, 0, 0))
    writer.intend("data", 1, 0, 0)
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"ok":')  # never finished: the commit stays in doubt
    writer = _writer(path)
    writer.accepted(writer.intend("data", 1, 0, 0))
    writer.close()
    book = books.read(path)
    assert book.broken_lines == 1
    assert book.accepted == {0, 2}


def test_a_link_is_noticed_when_readings_are_filed_as_backlog(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "book")
    for number, lane in enumerate(("data", "backfill", "data", "data", "backfill", "data")):
        writer.intend(lane, 10, 1_000_000 + 1000 * number, 0)  # made 100 ms after its first tick
    writer.close()
    book = books.read(tmp_path / "book")
    assert books.noticed_s(book, 1_002_000) == 2.1
    assert books.noticed_s(book, 1_001_000) == 0.1
    assert books.noticed_s(book, 1_005_000) is None


def test_a_book_of_another_source_is_refused(tmp_path: Path) -> None:
    _writer(tmp_path / "book").close()
    with pytest.raises(ContractError, match="another source"):
        books.BookWriter(tmp_path / "book", "gw-2", SERIES, 10)


def test_a_book_that_uses_numbers_twice_is_refused(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "book")
    writer.intend("data", 4, 1000, 0)
    writer.close()
    again = {"try": 1, "lane": "data", "ticks": [3, 5], "first_ms": 0, "events": []}
    with (tmp_path / "book").open("a") as file:
        file.write(json.dumps(again) + "\n")
    with pytest.raises(ContractError, match="second time"):
        books.read(tmp_path / "book")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_book_or_a_contradiction(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-book"
    path.write_bytes(data)
    try:
        book = books.read(path)
    except ContractError:
        return
    assert book.readings == 0 or book.accepted


# -- plan


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.floats(10, 300), st.floats(0.2, 2))
def test_a_plan_is_its_seeds(seed: int, seconds: float, shorten: float) -> None:
    kinds = [fault.kind for fault in choose("all")]
    made = plan.make(seed, seconds, kinds, shorten=shorten)
    assert made == plan.make(seed, seconds, kinds, shorten=shorten)
    assert all(one.at_s >= plan.FIRST_S * shorten - 0.01 and one.until_s <= seconds + 0.02 for one in made)
    for one in made:
        following = next((two for two in made if two.target == one.target and two.number > one.number), None)
        assert following is None or following.at_s >= one.until_s


def test_every_fault_comes_before_any_comes_again() -> None:
    kinds = [fault.kind for fault in choose("all")]
    names = [one.name for one in plan.make(5, 1200, kinds)]
    assert len(names) > 60
    assert Counter(names[: len(kinds)]) == Counter(kind.name for kind in kinds)


def test_faults_are_chosen_by_name() -> None:
    assert [fault.kind.name for fault in choose("net-cut, agent-kill,net-cut")] == ["net-cut", "agent-kill"]
    with pytest.raises(ConfigError, match="black-hole"):
        choose("earthquake")


# -- weather


def test_a_calm_lane_passes_everything_in_order() -> None:
    lane = Lane(1)
    packets = [bytes([n]) for n in range(50)]
    for packet in packets:
        lane.put(packet, 1.0)
    assert lane.take(1.0) == packets
    assert lane.counts() == {"passed": 50, "lost": 0, "swallowed": 0, "crowded": 0}


def test_loss_is_about_what_was_asked_and_the_same_for_a_seed() -> None:
    def passed(seed: int) -> list[bytes]:
        lane = Lane(seed)
        lane.weather = Weather(loss=0.2)
        for n in range(2000):
            lane.put(n.to_bytes(2), 0.0)
        return lane.take(0.0)

    assert passed(7) == passed(7) != passed(8)
    assert 1500 < len(passed(7)) < 1700


def test_what_is_late_delays_what_follows_and_order_is_kept() -> None:
    lane = Lane(1)
    lane.weather = Weather(delay_s=0.5)
    lane.put(b"a", 10.0)
    lane.weather = CALM
    lane.put(b"b", 10.1)
    assert lane.take(10.4) == []
    assert lane.next_s() == 10.5
    assert lane.take(10.5) == [b"a", b"b"]


def test_a_hole_swallows_also_what_was_on_its_way() -> None:
    lane = Lane(1)
    lane.weather = Weather(delay_s=0.5)
    lane.put(b"a", 0.0)
    lane.weather = Weather(swallow=True)
    lane.put(b"b", 0.1)
    assert lane.take(1.0) == []
    assert lane.counts()["swallowed"] == 2


def test_a_full_queue_drops_and_counts() -> None:
    lane = Lane(1, queue_bytes=100)
    lane.weather = Weather(delay_s=1)
    lane.put(bytes(60), 0.0)
    lane.put(bytes(60), 0.0)
    assert lane.counts()["crowded"] == 1
    assert len(lane.take(1.0)) == 1
    lane.put(bytes(60), 2.0)
    assert len(lane.take(3.0)) == 1


@pytest.mark.parametrize("what", [{"loss": 2}, {"delay_s": -1}, {"loss": "wet"}])
def test_weather_that_makes_no_sense_is_refused(what: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Weather.from_json(what)


# -- the source's own parts


def test_a_clock_follows_its_control_file_and_keeps_what_it_knew(tmp_path: Path) -> None:
    control = tmp_path / "control"
    clock = ControlledClock(control)
    assert clock.produce
    control.write_text(json.dumps({"clock_offset_ms": -3_600_000, "produce": False}))
    clock.look()
    real_ms = control.stat().st_mtime_ns // 1_000_000
    assert abs(clock.now_ms() - (real_ms - 3_600_000)) < 60_000
    assert not clock.produce
    control.write_text('{"clock_offset_ms": ')  # being written
    clock.look()
    assert not clock.produce


def test_series_and_steps_give_the_rate_asked_for() -> None:
    for rate in (20, 1000, 1999, 2000, 10_000, 90_000):
        series, step_ms = shape("gw", rate)
        assert len(series) * 1000 / step_ms == pytest.approx(rate, rel=0.3)
        assert len(set(series)) == len(series)
    with pytest.raises(ConfigError):
        shape("gw", 200_000)
