"""`citybrain fuzz [PROTOCOL ...] --minutes N`: inputs that nobody thought of, against every codec.

```
 vectors ─▶ seeds ─▶ by coverage (atheris, libFuzzer) ─▶ corpus ─▶ by number (mutations, not instrumented)
                                   │                                  │
                                   └──────────▶ input ◀───────────────┘   first byte picks what, second where it is cut
                                                 ├─ endpoint, either role: feed, tick, send back what was read
                                                 └─ explain, tolerant or strict
```
Coverage finds the branches, at some hundred inputs a second for checksums written in Python; mutations of what it found
then go through the same code at full speed. A third of the time is the first, two thirds the second.

A failure is any exception that is no protocol error, a message that cannot be encoded again without one, more held than
the bound, or an input that hangs. It ends the run with exit 1 and leaves the input as a file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from protocols.core.endpoint import Endpoint, Role
from protocols.core.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, from_vector
from protocols.registry import FAMILIES, PROTOCOLS, family

#: An endpoint may hold this much whatever a length field says; each protocol's own bound is in its property tests.
MAX_HELD_BYTES = 2 * 1024 * 1024
#: Longer inputs only repeat what shorter ones show.
MAX_INPUT_BYTES = 1024
#: An input that takes longer is a hang.
HANG_S = 10
#: Share of the time for the search by coverage.
COVERAGE_SHARE = 1 / 3
_AFTER_ALL_MS = 100_000_000
_ROOT = Path(__file__).parents[1]
_VECTORS = (_ROOT / "tests" / "vectors", _ROOT.parent / "shared" / "protocols" / "vectors")


class Failed(Exception):
    """What must not happen, in one sentence."""


def add(commands: Any) -> None:
    parser = commands.add_parser("fuzz", help="look for inputs that break a codec (needs the extra fuzz)")
    parser.add_argument("protocol", nargs="*", help="which (default: all)")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each protocol (default 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="protocols at a time")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="folder for inputs that broke something"
    )
    parser.set_defaults(do=_fuzz)


def _fuzz(options: argparse.Namespace) -> int:
    known = [one.name for one in FAMILIES.values() if one.explain]
    names: list[str] = options.protocol or known
    for name in names:
        family(name).explainer()
    try:
        import atheris  # noqa: F401 - said here once rather than by every child
    except ModuleNotFoundError:
        raise ConfigError("fuzzing needs atheris: install citybrain[fuzz] (Linux)") from None
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        results = list(pool.map(lambda name: run_one(name, options.minutes * 60, options.keep), names))
    total = sum(result["inputs"] for result in results)
    broken = [result["protocol"] for result in results if not result["ok"]]
    summary = {"protocols": results, "inputs": total, "broken": broken, "max_input_bytes": MAX_INPUT_BYTES}
    print(json.dumps(summary, indent=2, ensure_ascii=False))
    return 1 if broken else 0


def run_one(name: str, for_s: float, keep: Path) -> dict[str, Any]:
    """One protocol in a process of its own: libFuzzer ends its process."""
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for number, seed in enumerate(seeds_of(name)):
            (seeds / str(number)).write_bytes(seed)
        command = [
            *(sys.executable, "-m", "citybrain_cli.fuzz", "coverage", name),
            *(
                f"-max_total_time={max(1, round(for_s * COVERAGE_SHARE))}",
                f"-max_len={MAX_INPUT_BYTES}",
                f"-timeout={HANG_S}",
            ),
            *("-print_final_stats=1", f"-artifact_prefix={keep.resolve()}/{name}-", str(seeds)),
        ]
        began_s = time.monotonic()
        paths = os.pathsep.join((str(_ROOT), str(_ROOT / "firmware-sim")))
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        inputs = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        result: dict[str, Any] = {
            "protocol": name,
            "inputs_by_coverage": int(inputs[1]) if inputs else 0,
            "inputs_by_mutation": 0,
            "ok": done.returncode == 0 and inputs is not None,
        }
        if result["ok"]:
            second = [sys.executable, "-m", "citybrain_cli.fuzz", "mutate", name, str(seeds), str(keep.resolve())]
            left_s = max(1.0, for_s * (1 - COVERAGE_SHARE))
            done = subprocess.run(
                [*second, str(left_s)], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            result["ok"] = done.returncode == 0
            result["inputs_by_mutation"] = int(done.stdout or 0)
    result["inputs"] = result["inputs_by_coverage"] + result["inputs_by_mutation"]
    result["seconds"] = round(time.monotonic() - began_s, 1)
    print(f"fuzz {name}: {result['inputs']} inputs, {'nothing found' if result['ok'] else 'BROKEN'}", file=sys.stderr)
    if not result["ok"]:
        result["tail"] = done.stderr.splitlines()[-40:]
    return result


def seeds_of(name: str) -> list[bytes]:
    """The protocol's vectors, each for every way in."""
    rows: dict[str, dict[str, Any]] = {}
    for folder in _VECTORS:
        if (file := folder / f"{name}.json").is_file():
            rows |= {row["id"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
    data = [from_vector(row).data[: MAX_INPUT_BYTES - 2] for row in rows.values()]
    ways = len(_ways(name))
    return [bytes((way, 0)) + one for one in data for way in range(ways)]


Way = Callable[[bytes, int], None]


def _ways(name: str) -> list[Way]:
    """What an input can be given to."""
    explain = family(name).explainer()

    def tolerant(data: bytes, cut: int) -> None:
        told = explain(Capture(data, request=data[:cut]))
        if not told.ok and not (told.error and told.detail):
            raise Failed("refused without a reason")

    def strict(data: bytes, cut: int) -> None:
        explain(Capture(data[cut:], topic=data[:cut].decode("latin-1"), strict=True))

    ways: list[Way] = [tolerant, strict]
    for entry_name in family(name).endpoints:
        entry = PROTOCOLS[entry_name]
        ways.append(lambda data, cut, entry=entry: _feed(entry.listener(), entry.endpoint(Role.SLAVE), data, cut))  # type: ignore[misc]
        ways.append(lambda data, cut, entry=entry: _feed(entry.endpoint(Role.SLAVE), entry.listener(), data, cut))  # type: ignore[misc]
    return ways


def _feed(endpoint: Endpoint[Any], other: Endpoint[Any], data: bytes, cut: int) -> None:
    found = [*endpoint.feed(data[:cut], 0), *endpoint.feed(data[cut:], 10)]
    held = getattr(getattr(endpoint, "_scanner", None), "held", 0)
    if (held if isinstance(held, int) else len(held)) > MAX_HELD_BYTES:
        raise Failed("more held than allowed")
    found += endpoint.tick(_AFTER_ALL_MS)
    for one in found:
        if isinstance(one, RemoteProtocolError):
            continue
        try:
            other.send(one, 0)
        except LocalProtocolError:
            continue  # what a stranger says may be nothing that we would say


def target(name: str) -> Callable[[bytes], None]:
    """The function that libFuzzer calls."""
    ways = _ways(name)

    def one_input(data: bytes) -> None:
        if len(data) < 2:
            return
        payload = data[2:]
        ways[data[0] % len(ways)](payload, data[1] % (len(payload) + 1))

    return one_input


def warm(name: str) -> Callable[[bytes], None]:
    """The target with everything loaded that loads on demand (an ASN.1 compiler takes seconds, which is no hang)."""
    one_input = target(name)
    for seed in (b"", *(seed[2:] for seed in seeds_of(name)[:1])):
        for way in range(len(_ways(name))):
            one_input(bytes((way, 0)) + seed + b"\0" * 16)
    return one_input


def _mutated(corpus: list[bytes], rng: random.Random) -> bytes:
    """One of the corpus, changed in one to four places, or two of them joined."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2 if at < len(data):
                data[at] = rng.choice((0x00, 0xFF, 0x7F, 0x80, 0x16, 0x68, 0x7E, 0x23, rng.randrange(256)))
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
            case 4:
                del data[at : at + rng.randint(1, 8)]
            case 5:
                other = rng.choice(corpus)
                begin = rng.randrange(len(other) + 1)
                data[at:at] = other[begin : begin + rng.randint(1, 64)]
            case _:
                data = data[:at] + rng.choice(corpus)[2:]
    return bytes(data[:MAX_INPUT_BYTES])


def mutate(name: str, corpus: list[bytes], keep: Path, for_s: float) -> int:
    """Inputs tried. Raises what one of them raised; that one is kept."""

    def hang(*_: object) -> None:
        raise Failed(f"an input took longer than {HANG_S} s")

    signal.signal(signal.SIGALRM, hang)
    one_input = warm(name)
    rng = random.Random(name)  # noqa: S311 - the same inputs again, in the same order
    tried, end_s = 0, time.monotonic() + for_s
    while time.monotonic() < end_s:
        for _ in range(256):
            data = _mutated(corpus, rng)
            signal.setitimer(signal.ITIMER_REAL, HANG_S)
            try:
                one_input(data)
            except BaseException:
                (keep / f"{name}-mutated-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
                raise
            tried += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    return tried


def _child() -> None:
    if sys.argv[1] == "mutate":
        name, folder, keep, for_s = sys.argv[2:6]
        corpus = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
        print(mutate(name, corpus, Path(keep), float(for_s)))
        return
    import atheris

    name = sys.argv[2]
    with atheris.instrument_imports(include=["protocols"]):
        one_input = warm(name)
    atheris.Setup([sys.argv[0], *sys.argv[3:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    _child()
