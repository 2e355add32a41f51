# SPDX-License-Identifier: MIT
"""`python -m fuzz.child TARGET DIRECTORY …`: one target under libFuzzer, whose options follow.

atheris has to instrument what it shall guide itself by before that is imported, and never returns.
"""

import copy
import json
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import atheris

with atheris.instrument_imports(include=["storewarden", "tomllib"]):
    from fuzz.targets import TARGETS

_ODD: tuple[object, ...] = (
    *(None, True, 0, -1, 2**64, [], {}, [[]]),
    *("", "1", "\u00e9", "\ud800", "a\n\x1b[2J"),
)


def mutated(content: bytes, longest: int, seed: int) -> bytes:
    """Some bytes changed; or, of a line that is JSON, some value, so that it is JSON still."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    with suppress(ValueError, RecursionError):
        places = [*_places(document := json.loads(lines[at]))]
        if places and chance.random() < 0.7:
            members, key = chance.choice(places)
            others, other = chance.choice(places)
            members[key] = chance.choice((*_ODD, copy.deepcopy(others[other])))
            if isinstance(members, dict) and chance.random() < 0.2:
                del members[key]
            lines[at] = json.dumps(document).encode()
            return b"\n".join(lines)[:longest]
    return bytes(atheris.Mutate(content, longest))


def _places(document: object) -> Iterator[tuple[Any, Any]]:
    """Each value within, as what it stands in and where."""
    if isinstance(document, list):
        inside: list[tuple[Any, Any]] = [*enumerate(document)]
    else:
        inside = [*document.items()] if isinstance(document, dict) else []
    for key, value in inside:
        yield document, key
        yield from _places(value)


name, place, *options = sys.argv[1:]
[law] = [target.law for target in TARGETS if target.name == name]
atheris.Setup([name, *options], lambda data: law(data, place), custom_mutator=mutated)
atheris.Fuzz()
