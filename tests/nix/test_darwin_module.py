# SPDX-License-Identifier: MIT
"""On nix-darwin: the property lists that are shipped, with what differs between machines."""

import plistlib
import re
from typing import Any

import pytest

from nix.evaluating import CHECKOUT, NIX_DARWIN, Nix, words
from storewarden.config import DEFAULT_CONFIG
from storewarden.setup.code import shipped
from storewarden.setup.darwin import HELPER, WATCHER, Person, jobs, settings

ALICE = 'system.primaryUser = "alice"; services.storewarden.enable = true;'
JOBS = {HELPER: "storewarden-helper", WATCHER: "storewarden"}


def plists(nix: Nix, more: str = "") -> dict[str, dict[str, Any]]:
    """The jobs by their labels, as launchd would read them."""
    told = words(nix, f"{{ {ALICE} {more} }}", nix_darwin=NIX_DARWIN)
    texts = nix.value(*told, "-A", "darwin.plists")
    return {label: plistlib.loads(texts[name].encode()) for label, name in JOBS.items()}


def by_setup(python: str) -> dict[str, dict[str, Any]]:
    """The same as `storewarden setup` writes them."""
    files = jobs(python, Person("alice", 501, "/Users/alice"))
    documents = [plistlib.loads(file.content) for file in files]
    return {document["Label"]: document for document in documents}


@pytest.mark.parametrize("label", JOBS)
def test_a_property_list_is_read_as_python_reads_it(nix: Nix, label: str) -> None:
    text = f'builtins.readFile "{CHECKOUT}/launchd/{label}.plist"'
    value = nix.value("-E", f'import "{CHECKOUT}/nix/plist.nix" ({text})')
    assert value == plistlib.loads(shipped(f"launchd/{label}.plist"))


@pytest.mark.parametrize("label", JOBS)
def test_a_job_is_the_one_that_setup_writes_but_for_the_name_of_the_configuration(
    nix: Nix, label: str
) -> None:
    found = plists(nix)[label]
    arguments = found["ProgramArguments"]
    [python] = [word for word in arguments if word.endswith("/libexec/storewarden/bin/python3")]
    expected = by_setup(python)[label]
    more = {HELPER: [], WATCHER: ["--config", DEFAULT_CONFIG]}[label]
    words = [*expected["ProgramArguments"], *more]
    config = arguments[arguments.index("--config") + 1]
    assert re.fullmatch(r"/\S+-storewarden\.toml", config)
    assert [DEFAULT_CONFIG if word == config else word for word in arguments] == words
    assert {**found, "ProgramArguments": expected["ProgramArguments"]} == expected


def test_the_watcher_has_a_place_of_its_own(nix: Nix) -> None:
    told = words(nix, f"{{ {ALICE} }}")
    found = nix.value(*told, "-A", "darwin.settings")
    assert found.items() >= settings(Person("alice", 501, "/Users/alice")).items()


def test_the_watchers_places_are_in_the_home_that_the_user_has(nix: Nix) -> None:
    elsewhere = 'users.users.alice.home = "/Volumes/home/alice";'
    told = words(nix, f"{{ {ALICE} {elsewhere} }}")
    found = nix.value(*told, "-A", "darwin.settings")
    assert found["runtime-dir"] == "/Volumes/home/alice/Library/Application Support/storewarden"
    log = plists(nix, elsewhere)[WATCHER]["ProgramArguments"][3]
    assert log == "/Volumes/home/alice/Library/Logs/storewarden.log"


def test_where_determinate_has_nix_the_usual_places_are_asked(nix: Nix) -> None:
    told = words(nix, f"{{ {ALICE} nix.enable = false; }}")
    assert nix.value(*told, "-A", "darwin.settings")["nix"] is None


def test_without_a_user_it_is_refused_with_the_cure(nix: Nix) -> None:
    said = nix.refusal(*words(nix, "{ services.storewarden.enable = true; }"), "-A", "darwin")
    assert 'Say who it is: system.primaryUser = "you";' in said


def test_a_wrong_type_is_refused_by_the_name_of_the_option(nix: Nix) -> None:
    configuration = f'{{ {ALICE} services.storewarden.settings.mode = "bogus"; }}'
    said = nix.refusal(*words(nix, configuration), "-A", "darwin.settings")
    assert "services.storewarden.settings.mode" in said


def test_a_key_of_the_users_own_needs_no_force(nix: Nix) -> None:
    own = "launchd.daemons.storewarden-helper.serviceConfig.ThrottleInterval = 5;"
    if NIX_DARWIN is None:
        pytest.skip(
            "STOREWARDEN_NIX_DARWIN does not name a checkout of nix-darwin, whose types decide this"
        )
    assert plists(nix, own)[HELPER]["ThrottleInterval"] == 5
