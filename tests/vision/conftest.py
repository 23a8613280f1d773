"""What the vision tests share: the registry of real weights (if there), the drawn lane, an RTSP camera that runs."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.vision.models import Manifest, Recipe, add_model
from tests.vision.support import SHARED

cv2.setNumThreads(1)

_SUMS = {
    "nanodet_m_416": "739db3929e9213b26e9e2fa07bf2bdf1cf978cfd810c4e1dfdbd7f9a9762a78b",
    "yolox_nano_416": "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14",
}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NanoDet and YOLOX, added as an installer would."""
    weights = SHARED / "weights"
    if not weights.is_dir():
        pytest.skip("../shared/vision is not here")
    folder = tmp_path_factory.mktemp("models")
    papers = {"licence": "Apache-2.0", "source": "see ../shared/vision/README.md", "purpose": "object_detection"}
    nanodet = Manifest(
        id="nanodet_m_416",
        file="nanodet_m_416.onnx",
        sha256=_SUMS["nanodet_m_416"],
        family="nanodet",
        width=416,
        height=416,
        recipe=Recipe(mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395), pad=0.0),
        **papers,
    )
    yolox = Manifest(
        id="yolox_nano_416",
        file="yolox_nano_416.onnx",
        sha256=_SUMS["yolox_nano_416"],
        family="yolox",
        width=416,
        height=416,
        **papers,
    )
    for manifest in (nanodet, yolox):
        add_model(folder, weights / manifest.file, manifest)
    return folder


@pytest.fixture
def own_registry(registry: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(registry, tmp_path / "models"))


@pytest.fixture
def on_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine on an event loop in a thread, as the rig's loop would beside the agent's camera thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rig-loop")
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
