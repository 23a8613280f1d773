"""`citybrain bench [NAME ...]`: runs the measurements in bench/ one after another and prints one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from protocols.core.errors import ConfigError

BENCH = Path(__file__).parents[1] / "bench"
#: Several measurements under one name.
GROUPS = {"protocols": ("codecs", "modbus_tcp", "serial")}


def run(names: list[str]) -> int:
    known = sorted(path.stem for path in BENCH.glob("*.py") if not path.stem.startswith("_"))
    names = [one for name in names for one in GROUPS.get(name, (name,))]
    for name in names:
        if name not in known:
            raise ConfigError(f"no measurement {name!r}; there are {', '.join([*known, *GROUPS])}")
    results: dict[str, object] = {}
    worst = 0
    for name in names or known:
        print(f"bench {name} ...", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, str(BENCH / f"{name}.py")], cwd=BENCH.parent, stdout=subprocess.PIPE, check=False
        )
        worst = max(worst, abs(done.returncode))
        try:
            results[name] = json.loads(done.stdout)
        except ValueError:
            results[name] = {"error": f"no JSON (exit {done.returncode})"}
            worst = max(worst, 1)
    print(json.dumps(results, indent=2, ensure_ascii=False))
    return min(worst, 1)
