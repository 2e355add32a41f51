# SPDX-License-Identifier: MIT
"""On nix-darwin: the property lists that are shipped, with what differs between machines."""

import plistlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nix.evaluating import CHECKOUT, NIX_DARWIN, Nix, words
from storewarden.config import DEFAULT_CONFIG, MANIFEST
from storewarden.host.darwin import RUNTIME_DIR
from storewarden.setup.code import shipped
from storewarden.setup.darwin import HELPER, WATCHER, Person, jobs, settings

ALICE = 'system.primaryUser = "alice"; services.storewarden.enable = true;'
HEADLESS = "services.storewarden.enable = true;"
LIMIT = "{ SoftResourceLimits.Core = 0; }"
OWN = "_storewarden"
JOBS = {HELPER: "storewarden-helper", WATCHER: "storewarden"}


def value(nix: Nix, configuration: str, attribute: str) -> Any:  # noqa: ANN401 - as of JSON
    told = words(nix, f"{{ {configuration} }}", nix_darwin=NIX_DARWIN)
    return nix.value(*told, "-A", f"darwin.{attribute}")


def refusal(nix: Nix, configuration: str) -> str:
    return nix.refusal(*words(nix, f"{{ {configuration} }}", nix_darwin=NIX_DARWIN), "-A", "darwin")


def plists(nix: Nix, configuration: str = ALICE) -> dict[str, dict[str, Any]]:
    """The jobs by their labels, as launchd would read them."""
    texts = value(nix, configuration, "plists")
    return {label: plistlib.loads(texts[name].encode()) for label, name in JOBS.items()}


def written(nix: Nix, configuration: str = ALICE) -> dict[str, Any]:
    """The configuration that both halves read."""
    return tomllib.loads(value(nix, configuration, "written"))


def nix_darwin_types() -> None:
    if NIX_DARWIN is None:
        pytest.skip(
            "STOREWARDEN_NIX_DARWIN does not name a checkout of nix-darwin, whose types decide this"
        )


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
    assert written(nix).items() >= settings(Person("alice", 501, "/Users/alice")).items()


def test_the_watchers_places_are_in_the_home_that_the_user_has(nix: Nix) -> None:
    elsewhere = f'{ALICE} users.users.alice.home = "/Volumes/home/alice";'
    person = Person("alice", 501, "/Volumes/home/alice")
    assert written(nix, elsewhere).items() >= settings(person).items()
    assert person.log in plists(nix, elsewhere)[WATCHER]["ProgramArguments"]


@pytest.mark.parametrize("key", ["runtime-dir", "socket", "state-dir", "store-dir"])
def test_what_the_jobs_depend_on_cannot_be_set(nix: Nix, key: str) -> None:
    said = refusal(nix, f'{ALICE} services.storewarden.settings.{key} = "/elsewhere";')
    assert f"services.storewarden.settings.{key} cannot be set" in said


def test_more_arguments_are_the_helpers(nix: Nix) -> None:
    found = plists(nix, f'{ALICE} services.storewarden.extraArgs = [ "--min-age" "60" ];')
    assert found[HELPER]["ProgramArguments"] == [
        *plists(nix)[HELPER]["ProgramArguments"],
        "--min-age",
        "60",
    ]
    assert found[WATCHER] == plists(nix)[WATCHER]


def test_where_determinate_has_nix_the_usual_places_are_asked(nix: Nix) -> None:
    assert "nix" not in written(nix, f"{ALICE} nix.enable = false;")


def test_an_account_that_is_declared_without_a_home_has_the_usual_one(nix: Nix) -> None:
    declared = f"{ALICE} users.users.alice.uid = 501;"
    assert written(nix, declared) == written(nix)


def test_another_user_than_the_primary_one_may_be_said(nix: Nix) -> None:
    found = plists(nix, f'{ALICE} services.storewarden.user = "bob";')
    assert found[WATCHER]["UserName"] == "bob"
    allowed = found[HELPER]["ProgramArguments"]
    assert allowed[allowed.index("--allow-user") + 1] == "bob"


def test_where_nobody_is_said_the_watcher_has_an_account_of_its_own(nix: Nix) -> None:
    found, usual = plists(nix, HEADLESS), plists(nix)
    place = RUNTIME_DIR
    others = {"alice": OWN, Person("alice", 501, "/Users/alice").log: f"{place}/storewarden.log"}
    for label, whose in ((HELPER, {}), (WATCHER, {"UserName": OWN})):
        words = [others.get(word, word) for word in usual[label]["ProgramArguments"]]
        at = words.index("--config") + 1
        words[at] = found[label]["ProgramArguments"][at]
        assert found[label] == {**usual[label], **whose, "ProgramArguments": words}
    assert "runtime-dir" not in written(nix, HEADLESS), "the default is what is made for it"
    assert value(nix, HEADLESS, "knownUsers") == value(nix, HEADLESS, "knownGroups") == [OWN]
    assert value(nix, HEADLESS, "nix")["extra-allowed-users"] == [OWN]
    assert value(nix, ALICE, "knownUsers") == value(nix, ALICE, "nix")["extra-allowed-users"] == []
    made = f"install -d -m 0755 -o {OWN} -g {OWN} {place}\n"
    assert made in value(nix, HEADLESS, "activation")


def test_what_setup_left_stops_an_activation_with_the_cure(nix: Nix, tmp_path: Path) -> None:
    [script] = re.findall(
        rf"^if \[\[ -e {MANIFEST} [^$]*?\nfi$", value(nix, ALICE, "checks"), re.MULTILINE
    )
    manifest = tmp_path / "manifest.json"
    command = ["bash", "-euc", script.replace(f"-e {MANIFEST}", f"-e {manifest}")]
    assert subprocess.run(command, check=False).returncode == 0
    manifest.write_text("{}", encoding="ascii")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "/bin/storewarden setup --uninstall\n" in done.stderr


def test_a_wrong_type_is_refused_by_the_name_of_the_option(nix: Nix) -> None:
    said = refusal(nix, f'{ALICE} services.storewarden.settings.mode = "bogus";')
    assert "services.storewarden.settings.mode" in said


def test_a_key_of_the_users_own_needs_no_force(nix: Nix) -> None:
    nix_darwin_types()
    own = f"{ALICE} launchd.daemons.storewarden-helper.serviceConfig"
    assert plists(nix, f"{own}.ThrottleInterval = 5;")[HELPER]["ThrottleInterval"] == 5
    assert plists(nix, f"{own}.KeepAlive = true;")[HELPER]["KeepAlive"] is True


def test_a_variable_or_limit_of_the_users_own_leaves_the_others(nix: Nix) -> None:
    nix_darwin_types()
    shipped_job, job = plists(nix)[HELPER], "launchd.daemons.storewarden-helper"
    found = plists(nix, f'{ALICE} {job} = {{ environment.TZ = "UTC"; serviceConfig = {LIMIT}; }};')
    path = shipped_job["EnvironmentVariables"]["PATH"]
    assert found[HELPER]["EnvironmentVariables"] == {"PATH": path, "TZ": "UTC"}
    limits = {**shipped_job["SoftResourceLimits"], "Core": 0}
    assert found[HELPER]["SoftResourceLimits"] == limits
    found = plists(nix, f'{ALICE} {job}.path = [ "/opt/bin" ];')
    assert found[HELPER]["EnvironmentVariables"] == {"PATH": "/opt/bin"}
