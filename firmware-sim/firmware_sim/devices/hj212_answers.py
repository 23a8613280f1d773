"""What an HJ 212 station says when the platform asks: time, intervals, history, work of its instruments.

Settings and history live in its flash: they survive a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from firmware_sim.devices.dialing import DialingStation
from protocols.hj212.messages import Packet, execution_answer, format_time, notice_answer, parse_time, request_answer
from protocols.hj212.requests import data_reply

#: Minutes kept: two days.
KEPT_MINUTES = 2_880
#: Periods one request gets at most.
MOST = 1_440
_HOUR_MS = 3_600_000
#: QnRtn of 9011 and ExeRtn of 9012.
_READY, _REFUSED, _WRONG_PW, _WRONG_CN = 1, 2, 3, 8
_DONE, _CONDITION, _NO_DATA = 1, 3, 100

#: What it does besides what :meth:`Answers._carry_out` spells out: instruments sample, calibrate and clean unseen.
_UNSEEN = frozenset({"1000", "1072", "2011", "2021", "3011", "3012", "3013", "3014", "3015", "3016", "3017", "3018"})
_SPELT_OUT = frozenset({"1011", "1012", "1061", "1062", "1063", "1064", "2051", "2061", "3019"})

Factors = Mapping[str, Mapping[str, str]]


class Answers:
    """One station's answers."""

    def __init__(self, station: DialingStation) -> None:
        self._station = station
        self._minutes: dict[int, Factors] = {}
        self._settings = {"RtdInterval": f"{station.device.interval_s:g}", "MinInterval": "1"}
        self._serial = f"//{station.id}-0001//"

    def keep(self, begin_ms: int, factors: Factors) -> None:
        """A minute was measured."""
        self._minutes[begin_ms] = factors
        while len(self._minutes) > KEPT_MINUTES:
            del self._minutes[next(iter(self._minutes))]

    def to(self, packet: Packet, now_ms: int) -> Iterator[Packet]:
        """The packets that a request gets, in order."""
        faults, t_s = self._station.faults, self._station.world.t_s(now_ms)
        if packet.pw and packet.pw != self._station.device.password:
            yield request_answer(packet, _WRONG_PW)
            return
        if packet.cn in ("2012", "2022"):
            yield notice_answer(packet)
            return
        if packet.cn not in _UNSEEN | _SPELT_OUT:
            yield request_answer(packet, _WRONG_CN)
            return
        if faults.on("refuses", t_s, now_ms):
            yield request_answer(packet, _REFUSED)
            return
        yield request_answer(packet, _READY)
        data, result = self._carry_out(packet, now_ms)
        yield from data
        if not faults.on("no_result", t_s, now_ms):
            yield execution_answer(packet, result)

    def _carry_out(self, packet: Packet, now_ms: int) -> tuple[list[Packet], int]:
        station, fields = self._station, packet.fields
        match packet.cn:
            case "1011":
                told = {"SystemTime": format_time(station.clock_ms(now_ms))}
                return [data_reply(packet, fields=told)], _DONE
            case "1012":
                moment_ms = parse_time(fields.get("SystemTime", ""))
                if moment_ms is None:
                    return [], _CONDITION
                station.set_ms += moment_ms - station.clock_ms(now_ms)
                return [], _DONE
            case "1061" | "1063":
                name = "RtdInterval" if packet.cn == "1061" else "MinInterval"
                return [data_reply(packet, fields={name: self._settings[name]})], _DONE
            case "1062" | "1064":
                name = "RtdInterval" if packet.cn == "1062" else "MinInterval"
                if not fields.get(name, "").isdecimal():
                    return [], _CONDITION
                self._settings[name] = fields[name]
                return [], _DONE
            case "2051" | "2061":
                return self._history(packet)
            case "3019":
                code = fields.get("PolId", "w01018")
                return [data_reply(packet, fields={"PolId": code}, factors={code: {"SN": self._serial}})], _DONE
        return [], _DONE

    def _history(self, packet: Packet) -> tuple[list[Packet], int]:
        begin_ms, end_ms = (parse_time(packet.fields.get(name, "")) for name in ("BeginTime", "EndTime"))
        if begin_ms is None or end_ms is None or begin_ms > end_ms:
            return [], _CONDITION
        table = self._minutes if packet.cn == "2051" else self._hours()
        chosen = [at for at in table if begin_ms <= at <= end_ms][:MOST]
        if not chosen:
            return [], _NO_DATA
        return [
            data_reply(packet, fields={"DataTime": format_time(at)}, factors=table[at]) for at in sorted(chosen)
        ], _DONE

    def _hours(self) -> dict[int, Factors]:
        """Averages of the minutes of each hour."""
        sums: dict[int, dict[str, list[float]]] = {}
        for at, factors in self._minutes.items():
            hour = sums.setdefault(at // _HOUR_MS * _HOUR_MS, {})
            for code, parts in factors.items():
                hour.setdefault(code, []).append(float(parts["Avg"]))
        return {
            at: {code: {"Avg": f"{sum(v) / len(v):.2f}", "Flag": "N"} for code, v in hour.items()}
            for at, hour in sums.items()
        }
