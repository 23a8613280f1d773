"""`citybrain probe TARGET`: who is on this line, and what to write into the gateway's configuration.

Reads only, one question on the wire at a time. Ctrl-C ends it and shows what was found so far.
Exit status: 0 if somebody answered, 1 if not, 2 if the question itself was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any, get_args

from protocols.core.errors import ConfigError

_EPILOG = """\
examples:
  citybrain probe /dev/ttyUSB0                         meters and sensors, at the speeds that leave the factory
  citybrain probe /dev/ttyUSB0 --protocol dlt645       electricity meters only
  citybrain probe /dev/ttyUSB0 --baud 9600 --parity N --units 1-32
  citybrain probe 192.168.1.10                         Modbus TCP units behind a host
  citybrain probe tcp://192.168.1.10:4001              a line behind a transparent serial server
  citybrain probe onvif                                cameras on this network (WS-Discovery)
  citybrain probe onvif://192.168.1.64                 one camera where multicast does not pass
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "probe",
        help="find meters and Modbus devices on a serial line or behind a host",
        description="Asks who is there: DL/T 645 and CJ/T 188 by wildcard, Modbus unit by unit. Reads only. "
        "The agent must not use the same line meanwhile.\n只读搜索:在线路上查找电表、水气热表和 Modbus 设备。",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="TARGET", help="/dev/ttyUSB0, tcp://HOST:PORT (serial server), HOST[:PORT], onvif"
    )
    parser.add_argument("--protocol", default="", help="dlt645, cjt188, modbus; several with commas (default: all)")
    parser.add_argument("--baud", default="", help="speeds, with commas (default: those that leave the factory)")
    parser.add_argument("--parity", default="", help="N, E, O, with commas")
    parser.add_argument("--units", default="1-247", help="Modbus units: 1-32,40 (default 1-247)")
    parser.add_argument(
        "--timeout", type=float, default=0.2, metavar="S", help="a Modbus unit's own time (default 0.2)"
    )
    parser.add_argument("--thorough", action="store_true", help="meters: look for far ones that a near one drowns out")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(do=_probe)


def _probe(options: argparse.Namespace) -> int:
    if options.target == "onvif" or options.target.startswith("onvif://"):
        return _cameras(options)
    from edge.probe.found import snippet
    from edge.probe.scan import Scan

    live = sys.stderr.isatty()

    def tell(line: str) -> None:
        print(f"\r{line:<60}" if live else line, file=sys.stderr, flush=True)

    def step(what: str, done: int, of: int) -> None:
        if live:
            print(f"\r{what} {done}/{of} ", end="", file=sys.stderr, flush=True)

    scan = Scan(_wanted(options), tell, step)
    stopped = False
    try:
        asyncio.run(scan.run())
    except KeyboardInterrupt:
        stopped = True
    if live:
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    if options.json:
        rows = [{**asdict(one), "place": str(one.place)} for one in scan.found]
        print(json.dumps({"found": rows, "asked": scan.asked, "stopped": stopped}, ensure_ascii=False, indent=2))
        return 0 if scan.found else 1
    if stopped:
        print("stopped; so far: 已中断,目前找到:", file=sys.stderr)
    if not scan.found:
        print("nobody answered 无设备应答; speed, parity, A and B exchanged, power? 请检查速率、校验、A/B 线、供电")
        return 1
    for one in scan.found:
        doubt = "" if one.sure else "  (?)"
        print(f"{one.place}  {one.protocol}  {one.address or '-'}  {one.type or '-'}  {one.about}{doubt}".rstrip())
    print(f"\n# for the gateway's configuration 可粘贴到网关配置; types are guesses 类型为推测\n{snippet(scan.found)}")
    return 0


def _cameras(options: argparse.Namespace) -> int:
    from edge.probe.onvif import GROUP, discover, snippet

    host, _, port = options.target.removeprefix("onvif").removeprefix("://").partition(":")
    if port and not (port.isdecimal() and 0 < int(port) < 65_536):
        raise ConfigError(f"{options.target}: onvif or onvif://HOST[:PORT]")
    targets = [(host, int(port or GROUP[1]))] if host else []
    found = asyncio.run(discover(max(2.0, options.timeout), targets))
    if options.json:
        print(json.dumps({"found": [asdict(one) for one in found]}, ensure_ascii=False, indent=2))
        return 0 if found else 1
    if not found:
        print("no camera answered 无摄像机应答; same network? ONVIF switched on? 请检查是否同网段、ONVIF 是否启用")
        return 1
    for one in found:
        print(f"{one.address}  {one.name or '-'}  {one.hardware or '-'}  {one.location}".rstrip())
    print(f"\n# for the gateway's configuration 可粘贴到网关配置\n{snippet(found)}", end="")
    return 0


def _wanted(options: argparse.Namespace) -> Any:
    from edge.connectors.scalars import Baud, Parity
    from edge.probe.scan import METER_SETTINGS, PROTOCOLS, SENSOR_SETTINGS, Wanted

    protocols = tuple(options.protocol.split(",")) if options.protocol else PROTOCOLS
    if unknown := [one for one in protocols if one not in PROTOCOLS]:
        raise ConfigError(f"--protocol: {', '.join(unknown)}; known: {', '.join(PROTOCOLS)}")
    settings: tuple[tuple[int, str], ...] = ()
    if options.baud or options.parity:
        usual = [*METER_SETTINGS, *SENSOR_SETTINGS]
        bauds = _numbers(options.baud, "--baud") or sorted({baud for baud, _ in usual})
        parities = options.parity.upper().split(",") if options.parity else ["E", "N"]
        if wrong := [one for one in parities if one not in get_args(Parity)]:
            raise ConfigError(f"--parity: {', '.join(wrong)}; N, E or O")
        if odd := [baud for baud in bauds if baud not in get_args(Baud)]:
            raise ConfigError(f"--baud: {', '.join(map(str, odd))}; {', '.join(map(str, get_args(Baud)))}")
        settings = tuple((baud, parity) for baud in bauds for parity in parities)
    units = _numbers(options.units, "--units")
    if not units or not all(1 <= unit <= 255 for unit in units):
        raise ConfigError("--units: 1 to 255, for instance 1-32,40")
    if not 0 < options.timeout <= 10:
        raise ConfigError("--timeout: up to 10 seconds")
    return Wanted(options.target, protocols, settings, units, options.timeout, options.thorough)


def _numbers(text: str, key: str) -> list[int]:
    out: list[int] = []
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 13:
            raise ConfigError(f"{key}: {part!r} is no number")
        if int(last or first) - int(first) > 1000:
            raise ConfigError(f"{key}: {part!r} is too many")
        out += range(int(first), int(last or first) + 1)
    return out
