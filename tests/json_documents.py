# SPDX-License-Identifier: MIT
"""JSON as commands print it, held against the schema of it in docs/schemas."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from grammar import commands
from storewarden.readable import json_text

SCHEMAS = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/docs/schemas"
LOG = "explain-log"
"""`explain` prints another document of a log than of paths."""


def checked(text: str | bytes, *words: str) -> Any:  # noqa: ANN401 - JSON
    """The one JSON object in that text, which `storewarden WORDS` printed; as its schema says."""
    document = json.loads(text)
    name = schema_name(words)
    errors = _validator(name).iter_errors(document)
    wrong = [f"{one.json_path}: {one.message:.300}" for one in errors]
    assert not wrong, f"not as docs/schemas/{name}.json says: {'; '.join(wrong)}"
    return document


def checked_records(records: Sequence[Mapping[str, object]]) -> None:
    """Hold records of an audit log against the schema of them."""
    checked(json_text({"records": records}), "audit", "show")


def schema_name(words: Sequence[str]) -> str:
    """The schema of what that command prints."""
    said = " ".join(words) + " "
    fitting = [one.name for one in commands() if said.startswith(f"{one.name} ".lstrip())]
    name = max(fitting, key=len).replace(" ", "-")
    of_a_log = name == "explain" and any(one == "-" or one.startswith("--log") for one in words)
    return LOG if of_a_log else name


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema with that name."""
    with open(f"{SCHEMAS}/{name}.json", encoding="utf-8") as file:
        read: dict[str, Any] = json.load(file)
    return read


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schema(name))
