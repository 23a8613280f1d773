"""What a gateway's configuration may look like, as JSON Schema (draft 2020-12): a wrong one is refused at the desk.

``config.schema.json`` is made from the agent's own structures (docs/generate.py) and a test holds the two together; the
agent has the last word all the same, for it also knows what no schema says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match


@cache
def _validator() -> Draft202012Validator:
    text = files(__package__).joinpath("config.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def first_error(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """(JSON pointer, what is wrong) of the most telling fault; None if there is none."""
    error = best_match(_validator().iter_errors(document))
    if error is None:
        return None
    path = "".join(f"/{part}" for part in error.absolute_path)
    return path, error.message[:500]
