# SPDX-License-Identifier: MIT
"""What may be set: typed where Nix reads it, checked by the program itself where it is built."""

from pathlib import Path
from typing import Any

import pytest

from nix.evaluating import CHECKOUT, Nix, words
from nix.rendered import ENABLED, render
from storewarden.config import KEYS

FIXED = {"audit-log", "runtime-dir", "socket", "state-dir", "store-dir"}
"""The units depend on their defaults."""
OPTIONS = "services.storewarden."


def settings(nix: Nix, text: str) -> list[str]:
    return words(nix, f"{{ {ENABLED} {OPTIONS}settings = {{ {text} }}; }}")


@pytest.fixture(scope="session")
def documented(nix: Nix) -> dict[str, Any]:
    found: dict[str, Any] = nix.value(*words(nix), "-A", "documented")
    return {name.removeprefix(OPTIONS): text for name, text in found.items()}


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
    assert set(one.text("storewarden/config.toml").splitlines()) == {
        'mode = "report"',
        'kinds = ["lock"]',
        'min-age = "1m"',
        "max-removals = 7",
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


def test_every_option_is_described(documented: dict[str, Any]) -> None:
    assert {"enable", "package", "settings", "storeAccess"} <= documented.keys()
    assert "configFile" not in documented
    for name, text in documented.items():
        assert text, f"{name} has no description"
        assert str(text if isinstance(text, str) else text["text"]).strip().endswith(".")


def test_every_option_stands_in_the_documentation(documented: dict[str, Any]) -> None:
    page = Path(CHECKOUT, "docs/nix.md").read_text(encoding="utf-8")
    assert [name for name in documented if f"| `{name}` |" not in page] == []
