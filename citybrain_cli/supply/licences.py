"""Licences of the installed packages, from their own metadata, held against what may be shipped.

Metadata come in three forms: an SPDX expression (PEP 639), classifiers, or free text. All become SPDX ids here; what
cannot be told is refused by name, so that somebody looks.
"""

from __future__ import annotations

import importlib.metadata
import re

from citybrain_cli.supply.locked import normal

#: Permissive, and the weak copyleft whose terms NOTICE answers. No GPL, no AGPL, nothing that restricts use.
ALLOWED = frozenset(
    {
        "0BSD", "AFL-2.1", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "EPL-2.0", "ISC", "LGPL-3.0-only",
        "LGPL-3.0-or-later", "LGPL-2.1-or-later", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
        "LicenseRef-public-domain",
    }
)  # fmt: skip
_CLASSIFIERS = {
    "MIT License": "MIT", "Apache Software License": "Apache-2.0", "BSD License": "BSD-3-Clause",
    "Python Software Foundation License": "PSF-2.0", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License (ISCL)": "ISC", "Public Domain": "LicenseRef-public-domain",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-2.1-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only", "The Unlicense (Unlicense)": "Unlicense",
    "GNU General Public License (GPL)": "GPL-2.0-or-later",
}  # fmt: skip
_WORDS = {
    "apache 2.0": "Apache-2.0", "apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause",
    "bsd-2-clause": "BSD-2-Clause", "3-clause bsd license": "BSD-3-Clause", "bsd": "BSD-3-Clause",
    "mit or afl-2.1": "MIT OR AFL-2.1", "mit license": "MIT",
}  # fmt: skip
#: Packages whose metadata say nothing, and where their licence was read. Look again when the version changes.
READ_BY_HAND = {"atheris": "Apache-2.0"}  # the header of every source file in its wheel


def of(name: str) -> str | None:
    """The SPDX expression of an installed package; None if it is not installed here. "" if it does not say."""
    try:
        metadata = importlib.metadata.metadata(name).json
    except importlib.metadata.PackageNotFoundError:
        return None
    if known := READ_BY_HAND.get(normal(name)):
        return known
    if expression := metadata.get("license_expression"):
        return str(expression)
    classifiers = [
        _CLASSIFIERS[last]
        for text in metadata.get("classifier", [])
        if text.startswith("License ::") and (last := text.rpartition("::")[2].strip()) in _CLASSIFIERS
    ]
    if classifiers:
        return " OR ".join(dict.fromkeys(classifiers))
    first = str(metadata.get("license", "")).strip().split("\n")[0].strip()
    return _WORDS.get(first.lower(), "")


def allowed(expression: str) -> bool:
    """Whether an SPDX expression leaves us a way: of alternatives one, of parts all must be allowed."""
    tokens = re.findall(r"\(|\)|[A-Za-z0-9.+-]+", expression)
    if not tokens:
        return False
    value, rest = _alternatives(tokens)
    return value and not rest


def _alternatives(tokens: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _parts(tokens)
    while tokens[:1] == ["OR"]:
        other, tokens = _parts(tokens[1:])
        value = value or other
    return value, tokens


def _parts(tokens: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens)
    while tokens[:1] == ["AND"]:
        other, tokens = _one(tokens[1:])
        value = value and other
    return value, tokens


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if not tokens:
        return False, []
    if tokens[0] == "(":
        value, tokens = _alternatives(tokens[1:])
        return value and tokens[:1] == [")"], tokens[1:]
    value = tokens[0] in ALLOWED
    if tokens[1:2] == ["WITH"]:  # an exception only ever allows more
        return value, tokens[3:]
    return value, tokens[1:]
