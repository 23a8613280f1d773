"""The install steps of a gateway and of the images, for real, in empty environments. Minutes, and a package index."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not os.environ.get("CITYBRAIN_SLOW"), reason="minutes and a package index: CITYBRAIN_SLOW=1")
@pytest.mark.timeout(1800)
def test_install_in_empty_environments() -> None:
    done = subprocess.run([ROOT / "deploy" / "check_install.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = {row["extra"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert sizes.keys() == {"edge", "vision", "cloud"}
    for name, most_mib in (("edge", 120), ("vision", 550)):
        assert sizes[name]["installed_kib"] < most_mib * 1024
        assert sizes[name]["trimmed_kib"] < sizes[name]["installed_kib"]
