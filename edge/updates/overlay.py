"""Content of an update comes into force: device types and packs beside the built-in ones, models into the registry.

It happens once, before the configuration is read: a device type or a pack is never another one in the middle of a run.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from edge.vision.models import add_model, read_manifest
from protocols import devices
from protocols.core.errors import CityBrainError, ContractError
from scenarios.packs import loader as packs

log = logging.getLogger("citybrain.edge.updates")


def install_from_environment() -> None:
    """The content the launcher names, if any."""
    if content := os.environ.get("CITYBRAIN_CONTENT"):
        install(Path(content))


def install(content: Path) -> None:
    """Device types and packs of a content folder."""
    devices.also_from(content / "templates")
    packs.also_from(content / "packs")


def install_models(content: Path, registry: Path) -> None:
    """Models of a content folder, by way of the registry that refuses what it must. One that does not fit is logged
    and left out: the cameras that need it say so themselves."""
    for papers in sorted((content / "models").glob("*.toml")):
        try:
            manifest = read_manifest(papers)
            known = registry / papers.name
            if known.exists() and read_manifest(known).sha256 == manifest.sha256:
                continue
            add_model(registry, papers.with_name(manifest.file), manifest)
        except (CityBrainError, OSError) as error:
            log.error("model %s: %s", papers.stem, error)


def check(content: Path) -> None:
    """Whether all of it can come into force. Raises ContractError naming the file.

    Packs and device types are data: a bundle that brings code along is refused, whoever signed it."""
    new_types = (content / "templates").is_dir()
    for path in sorted(p for p in content.rglob("*") if p.is_file() and p.parent != content):
        kind, _, name = path.relative_to(content).as_posix().partition("/")
        try:
            if kind == "templates":
                type_id = name.removesuffix(".toml")
                devices.parse(path.read_text("utf-8"), type_id=type_id, where=name)
            elif kind == "packs" and path.name == "pack.toml":
                if new_types:  # it may be about a type that comes along: the trial finds out
                    continue
                packs.parse(path.read_text("utf-8"), pack_id=str(Path(name).parent), where=name)
            elif kind == "models" and name.endswith(".toml"):
                if not (path.with_name(read_manifest(path).file)).is_file():
                    raise ContractError(f"{name}: its model file is not in the bundle", reason="content")
            elif not (kind == "models" and name.endswith(".onnx")) and not (
                kind == "packs" and name.endswith(".toml") and "/stories/" in name
            ):
                raise ContractError(f"{kind}: {name} is not allowed there", reason="content")
        except (CityBrainError, UnicodeDecodeError, OSError) as error:
            raise ContractError(f"{kind}/{name}: {error}", reason="content") from error
