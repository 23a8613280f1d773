"""The bill of materials: CycloneDX 1.6 JSON made from a lock, the same bytes each time for the same lock.

Every component carries version, package URL, the SHA-256 of each file that may be installed, and its licence; who
needs whom comes from the installed packages' own metadata.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import uuid
from typing import Any

from citybrain_cli.supply import licences, locked

_SPACE = uuid.UUID("6f0f6b5c-6d0c-5a63-9c2e-5d2f5e0a2b11")  # ours; serial numbers derive from the content


def make(lock: str, version: str) -> str:
    """JSON text. Raises ConfigError for a lock that cannot be read."""
    packages = locked.read(lock)
    by_ref = {_ref(package): package for package in packages}
    name_to_refs: dict[str, list[str]] = {}
    for ref, package in by_ref.items():
        name_to_refs.setdefault(package.name, []).append(ref)
    needs = {ref: sorted(_needs(package.name, name_to_refs)) for ref, package in by_ref.items()}
    needed = {ref for refs in needs.values() for ref in refs}
    root = f"citybrain@{version}"
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "citybrain",
                "version": version,
                "description": f"install `{lock}` (locks/{lock}.txt)",
                "licenses": [{"expression": "Apache-2.0"}],
            }
        },
        "components": [_component(ref, package) for ref, package in sorted(by_ref.items())],
        "dependencies": [
            {"ref": root, "dependsOn": sorted(set(by_ref) - needed)},
            *({"ref": ref, "dependsOn": refs} for ref, refs in sorted(needs.items())),
        ],
    }
    body = json.dumps(document, sort_keys=True, ensure_ascii=False)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_SPACE, body)}"
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _ref(package: locked.Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version}"


def _component(ref: str, package: locked.Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": ref,
        "name": package.name,
        "version": package.version,
        "purl": ref,
        # A lock names every file of a release; a component's own hashes are for one file, so they stand beside it.
        "externalReferences": [
            {
                "type": "distribution",
                "url": ref,
                "hashes": [{"alg": "SHA-256", "content": value} for value in package.hashes],
            }
        ],
    }
    if package.marker:
        component["properties"] = [{"name": "citybrain:marker", "value": package.marker}]
    expression = licences.of(package.name)
    if expression:
        component["licenses"] = [{"expression": expression}]
    return component


def _needs(name: str, name_to_refs: dict[str, list[str]]) -> set[str]:
    try:
        required = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    names = {
        locked.normal(re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0]) for text in required if "extra ==" not in text
    }
    return {ref for needed in names - {name} for ref in name_to_refs.get(needed, [])}
