# SPDX-License-Identifier: MIT
"""The configuration that setup writes where there is none."""

import re
import tomllib

from storewarden.config import KEYS, Config, document_of, parse_config
from storewarden.setup.darwin import Person, settings
from storewarden.setup.run import first_config

FIRST = first_config(Config())


def test_it_says_nothing_but_the_defaults() -> None:
    assert parse_config(tomllib.loads(FIRST)) == Config()
    assert not [line for line in FIRST.splitlines() if not re.match("#|$", line)]
    assert max(map(len, FIRST.splitlines())) <= 100


def test_what_is_commented_out_is_the_default_or_an_example_that_is_read() -> None:
    lines = re.findall(r"^#([a-z-]+ = .*)$", FIRST, re.MULTILINE)
    shown = {line.split(" = ")[0]: line for line in lines}
    assert shown.keys() == KEYS.keys()
    defaults = document_of(Config())
    assert parse_config(tomllib.loads("\n".join(shown[key] for key in defaults))) == Config()
    every = parse_config(tomllib.loads("\n".join(shown.values())))
    assert document_of(every).keys() == KEYS.keys(), "a key without a default needs an example"


def test_on_macos_it_names_places_that_are_there() -> None:
    config = settings(Person("alice", 501, "/Users/alice"))
    assert parse_config(tomllib.loads(first_config(config))) == config
    assert config.socket == "/var/run/storewarden/helper.sock"
    assert config.runtime_dir.startswith("/Users/alice/Library/")
