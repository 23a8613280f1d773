"""`citybrain test`: every gate in turn; the first that fails is the answer, but all of them are run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(pytest_arguments: list[str]) -> int:
    """Format, lint, types, import law, tests. Returns 0 only if all passed."""
    python = sys.executable
    # One more than cores: much of a test is waiting for a server. Files are begun in the order tests/conftest.py gives.
    workers = str(max(2, os.cpu_count() or 2) + 1)
    spread = ["-n", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
    gates: list[tuple[str, list[str]]] = [
        ("format", [python, "-m", "ruff", "format", "--check", "-q", "."]),
        ("lint", [python, "-m", "ruff", "check", "-q", "."]),
        ("types", [python, "-m", "mypy"]),
        ("import law", [str(Path(python).with_name("lint-imports"))]),
        ("dependencies", [python, "-m", "citybrain_cli.main", "deps"]),
        ("tests", [python, "-m", "pytest", *spread, *pytest_arguments]),
    ]
    failed: list[str] = []
    for name, command in gates:
        started = time.monotonic()
        print(f"== {name}", flush=True)
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        verdict = "ok" if code == 0 else f"FAILED ({code})"
        print(f"== {name}: {verdict}, {time.monotonic() - started:.0f} s", flush=True)
        if code:
            failed.append(name)
    if failed:
        print(f"citybrain test: failed: {', '.join(failed)}")
        return 1
    print("citybrain test: all gates passed")
    return 0
