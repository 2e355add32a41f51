# SPDX-License-Identifier: MIT
"""The configuration that setup writes where there is none."""

import os
import re
import tomllib
from pathlib import Path

from storewarden import setup
from storewarden.config import Config, load_config, parse_config
from storewarden.setup.darwin import Person, first_settings

FIRST = Path(os.path.dirname(setup.__file__), "config.toml")


def test_it_says_nothing_but_the_defaults() -> None:
    assert load_config(str(FIRST)) == Config()
    assert not [line for line in FIRST.read_text().splitlines() if not re.match("#|$", line)]


def test_what_is_commented_out_is_the_default() -> None:
    lines = re.findall(r"^#([a-z-]+ = .*)$", FIRST.read_text(), re.MULTILINE)
    shown = {line.split(" = ")[0]: line for line in lines}
    optional = {"min-age", "metrics-textfile", "metrics-listen"}
    assert optional <= shown.keys()
    said = parse_config(tomllib.loads("\n".join(shown[key] for key in shown.keys() - optional)))
    assert said == Config()
    parse_config(tomllib.loads("\n".join(shown.values())))


def test_on_macos_it_names_places_that_are_there() -> None:
    text = FIRST.read_text() + first_settings(Person("alice", 501, "/Users/alice"))
    config = parse_config(tomllib.loads(text))
    assert config.socket == "/var/run/storewarden/helper.sock"
    assert config.runtime_dir.startswith("/Users/alice/Library/")
