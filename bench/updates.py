"""An update of the agent over a thin link: bytes and seconds of the difference against the whole bundle, in one run.

Two builds of our own: the agent's packages at HEAD and at an earlier commit (``--back N``, default 30), laid out as
their wheels are, with the dependencies of an agent as they are installed here. The limit is what a general tool makes
of the same bytes: one zstd frame of the new build, level 15, with the whole old build as its prefix.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

from backports import zstd

from cloud.updates import bundles
from edge.updates.unpack import unpack
from protocols.updates.bundle import content_id, write_manifest

PACKAGES = ("protocols", "scenarios", "edge", "citybrain_cli")
#: What an agent without cameras is installed with (extra `edge`), the larger ones.
DEPENDENCIES = (
    "numpy", "protobuf", "backports-zstd", "msgspec", "paho-mqtt", "pymodbus", "pyserial", "psutil", "cryptography",
    "tuf", "securesystemslib", "urllib3", "cffi",
)  # fmt: skip
LINK_KBIT_S = 1000  # a common metered uplink of a cabinet


def _ours(root: Path, revision: str) -> dict[str, bytes]:
    data = subprocess.run(["git", "archive", revision, *PACKAGES], cwd=root, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {f"site/{m.name}": _read(tar, m) for m in tar if m.isreg() and not m.name.endswith(".md")}


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()


def _theirs() -> dict[str, bytes]:
    tree = {}
    for name in DEPENDENCIES:
        for file in distribution(name).files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_file() and path.suffix not in (".pyc",):
                tree[f"site/{file}"] = path.read_bytes()
    return tree


def _timed(bundle: bytes, folder: Path, name: str, content: str, base: Path | None) -> tuple[Path, float]:
    packed = folder / f"{name}.tar.zst"
    packed.write_bytes(bundle)
    begun = time.perf_counter()
    unpack(packed, folder / name, content, base)
    return folder / name, time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--back", type=int, default=30, help="commits between the two builds")
    options = parser.parse_args()
    root = Path(__file__).parents[1]
    theirs = _theirs()
    trees = [{**theirs, **_ours(root, revision)} for revision in (f"HEAD~{options.back}", "HEAD")]
    print(f"{len(trees[1])} files, {sum(map(len, trees[1].values())) / 1e6:.0f} MB", file=sys.stderr)
    old, new = (
        bundles.manifest_of("agent", "citybrain", version, tree, entry=["-m", "citybrain_cli.main", "edge", "run"])
        for version, tree in zip(("1", "2"), trees, strict=True)
    )
    whole = bundles.pack(new, trees[1])
    begun = time.perf_counter()
    delta = bundles.pack_delta(old, trees[0], new, trees[1])
    made_s = time.perf_counter() - begun
    raw = [b"".join(tree[path] for path in sorted(tree)) for tree in trees]
    parameter = zstd.CompressionParameter
    general: dict[int, int] = {
        parameter.compression_level: 15, parameter.window_log: 28, parameter.enable_long_distance_matching: 1,
    }  # fmt: skip
    limit = zstd.compress(raw[1], options=general, zstd_dict=zstd.ZstdDict(raw[0], is_raw=True).as_prefix)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = [content_id(write_manifest(manifest)) for manifest in (old, new)]
        base, _ = _timed(bundles.pack(old, trees[0]), folder, "old", ids[0], None)
        _, whole_s = _timed(whole, folder, "whole", ids[1], None)
        _, delta_s = _timed(delta, folder, "delta", ids[1], base)
    changed = sum(trees[0].get(path) != data for path, data in trees[1].items())
    link = LINK_KBIT_S * 125
    print(
        json.dumps(
            {
                "commits_between": options.back,
                "files": len(trees[1]),
                "files_changed": changed,
                "unpacked_bytes": sum(map(len, trees[1].values())),
                "whole_bytes": len(whole),
                "delta_bytes": len(delta),
                "delta_share_of_whole": round(len(delta) / len(whole), 4),
                "limit_one_frame_bytes": len(limit),
                "delta_over_limit": round(len(delta) / len(limit), 2),
                "delta_made_s": round(made_s, 2),
                "whole_unpack_s": round(whole_s, 2),
                "delta_unpack_s": round(delta_s, 2),
                "link_kbit_s": LINK_KBIT_S,
                "whole_in_all_s": round(len(whole) / link + whole_s, 1),
                "delta_in_all_s": round(len(delta) / link + delta_s, 1),
            },
            indent=2,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
