# SPDX-License-Identifier: MIT
"""The configuration that setup writes where there is none."""

import re
import tomllib

from storewarden.config import KEYS, Config, parse_config
from storewarden.setup.darwin import Person, settings
from storewarden.setup.run import first_config

FIRST = first_config({})


def test_it_says_nothing_but_the_defaults() -> None:
    assert parse_config(tomllib.loads(FIRST)) == Config()
    assert not [line for line in FIRST.splitlines() if not re.match("#|$", line)]


def test_what_is_commented_out_is_the_default_or_an_example_that_is_read() -> None:
    lines = re.findall(r"^#([a-z-]+ = .*)$", FIRST, re.MULTILINE)
    shown = {line.split(" = ")[0]: tomllib.loads(line) for line in lines}
    assert shown.keys() == KEYS.keys()
    for key, row in KEYS.items():
        value = getattr(parse_config(shown[key]), row.name)
        assert (value == row.default) is (row.default is not None)


def test_on_macos_it_names_places_that_are_there() -> None:
    ours = settings(Person("alice", 501, "/Users/alice"))
    config = parse_config(tomllib.loads(first_config(ours)))
    assert config == parse_config(ours) != Config()
    assert config.socket == "/var/run/storewarden/helper.sock"
    assert config.runtime_dir.startswith("/Users/alice/Library/")
