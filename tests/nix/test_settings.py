# SPDX-License-Identifier: MIT
"""What may be set: typed where Nix reads it, checked by the program itself where it is built."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nix.evaluating import CHECKOUT, Nix, words
from nix.rendered import ENABLED, render
from storewarden.config import KEYS

FIXED = {"audit-log", "runtime-dir", "socket", "state-dir", "store-dir"}
"""The units depend on their defaults."""
OPTIONS = "services.storewarden."
DEFAULTS = {
    key: None if row.default is None else row.metadata["shown"]
    for key, row in KEYS.items()
    if key not in FIXED
}
"""As they would be written in the file."""


def settings(nix: Nix, text: str) -> list[str]:
    return words(nix, f"{{ {ENABLED} {OPTIONS}settings = {{ {text} }}; }}")


@pytest.fixture(scope="session", params=["nixos", "darwin"])
def documented(nix: Nix, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the manual of NixOS or nix-darwin says of each option."""
    found: dict[str, Any] = nix.value(*words(nix), "-A", f"documented.{request.param}")
    return {name.removeprefix(OPTIONS): text for name, text in found.items()}


def as_nix(value: object) -> str:
    """As it is written in Nix, in one line."""
    match value:
        case None:
            return "null"
        case [*several]:
            return " ".join(["[", *map(as_nix, several), "]"])
        case _:
            return json.dumps(value)


def in_a_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("build-group", '""'),
        ("build-group", '"build users"'),
        ("kinds", '[ "foreign" ]'),
        ("kinds", '"lock"'),
        ("max-removals", "-1"),
        ("max-removals", '"many"'),
        ("metrics-listen", '"9913"'),
        ("metrics-textfile", '"/with space/x.prom"'),
        ("metrics-textfile", '"/x.prom"'),
        ("min-age", '"soon"'),
        ("mode", '"bogus"'),
        ("nix", '"nix"'),
        ("nix", '"/opt/my nix/bin/nix"'),
        ("poll-interval", "2"),
        ("sweep-interval", '"1w"'),
    ],
)
def test_a_wrong_type_is_refused_by_the_name_of_the_option(nix: Nix, name: str, wrong: str) -> None:
    said = nix.refusal(*settings(nix, f"{name} = {wrong};"), "-A", "nixos.settings")
    assert f"services.storewarden.settings.{name}" in said
    assert "is not of type" in said


def test_what_is_set_is_what_the_program_reads(nix: Nix) -> None:
    told = 'mode = "report"; kinds = [ "lock" ]; min-age = "1m"; max-removals = 7; nix = null;'
    one = render(nix, f"{OPTIONS}settings = {{ {told} }};")
    assert tomllib.loads(one.text("storewarden/config.toml")) == {
        **{key: default for key, default in DEFAULTS.items() if default is not None},
        "mode": "report",
        "kinds": ["lock"],
        "min-age": "1m",
        "max-removals": 7,
    }


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ('min-aeg = "5s";', "unknown key 'min-aeg'; did you mean 'min-age'?"),
        ('sweep-interval = "0s";', "sweep-interval: '0s' is too short; at least 1s"),
        ('metrics-listen = "localhost:70000";', "metrics-listen: 'localhost:70000' is not"),
    ],
)
def test_what_the_program_refuses_cannot_be_built(nix: Nix, wrong: str, told: str) -> None:
    done = nix.run("nix-build", "--no-out-link", *settings(nix, wrong), "-A", "etc")
    assert done.returncode != 0
    assert told in done.stderr


def test_every_setting_is_an_option_of_the_modules(documented: dict[str, Any]) -> None:
    options = {
        name.removeprefix("settings.") for name in documented if name.startswith("settings.")
    }
    assert options == KEYS.keys() - FIXED, "give nix/options.nix a setting for each key"


def test_the_defaults_are_the_programs(nix: Nix) -> None:
    found = nix.value(*settings(nix, "nix = null;"), "-A", "nixos.settings")
    assert found == {**DEFAULTS, "nix": None}


@pytest.mark.parametrize("key", sorted(KEYS.keys() - FIXED))
def test_the_manual_shows_the_programs_default(documented: dict[str, Any], key: str) -> None:
    row, option = KEYS[key], documented[f"settings.{key}"]
    if key == "nix":
        assert "null" in option["default"]
    else:
        assert in_a_line(option["default"]) == as_nix(DEFAULTS[key])
    if row.default is None:
        assert option["example"] == as_nix(row.metadata["shown"])
    else:
        assert option["example"] is None, "an example beside a default reads as one"


def test_every_option_is_described(documented: dict[str, Any]) -> None:
    assert {"enable", "package", "settings", "extraArgs"} <= documented.keys()
    assert {"storeAccess", "logLevel"} <= documented.keys() or "user" in documented
    assert not {"configFile", "fixed"} & documented.keys()
    for name, option in documented.items():
        text = option["description"]
        assert text, f"{name} has no description"
        assert str(text if isinstance(text, str) else text["text"]).strip().endswith(".")


def test_every_option_stands_in_the_documentation(documented: dict[str, Any]) -> None:
    page = Path(CHECKOUT, "docs/nix.md").read_text(encoding="utf-8")
    rows = (f"| `{name}` | {shown(one['default'])} | " for name, one in documented.items())
    assert [row for row in rows if row not in page] == []


def shown(default: str) -> str:
    """In a table: as it is, if it is prose, which has code in it."""
    return in_a_line(default) if "`" in default else f"`{in_a_line(default)}`"
