# SPDX-License-Identifier: MIT
"""The property lists: launchd ignores a key of a wrong type without a word, so types are here."""

import plistlib
from typing import Any

import pytest

from storewarden.config import DEFAULT_CONFIG
from storewarden.setup.code import shipped
from storewarden.setup.darwin import AGENT, DAEMON, PLACES, Person, jobs, person, settings
from storewarden.setup.files import SetupError

TYPES = {
    "EnvironmentVariables": dict,
    "KeepAlive": dict,
    "Label": str,
    "LimitLoadToSessionType": str,
    "LowPriorityIO": bool,
    "ProcessType": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "SoftResourceLimits": dict,
    "StandardErrorPath": str,
    "ThrottleInterval": int,
    "Umask": int,
    "WorkingDirectory": str,
}
"""Of launchd.plist(5)."""
PYTHON = "/opt/storewarden/0.1.0-abc/bin/python"
ALICE = Person("alice", 501, "/Users/alice")


def lists() -> dict[str, dict[str, Any]]:
    return {file.path: plistlib.loads(file.content) for file in jobs(PYTHON, ALICE)}


@pytest.mark.parametrize("label", [DAEMON, AGENT])
def test_every_key_is_known_and_of_its_type(label: str) -> None:
    for found in (plistlib.loads(shipped(f"launchd/{label}.plist")), lists()[PLACES[label]]):
        assert {key: type(value) for key, value in found.items()} == {
            key: TYPES[key] for key in found
        }
        assert found["Label"] == label
        assert found["RunAtLoad"] is True
        assert found["KeepAlive"] == {"SuccessfulExit": False}
        assert found["Umask"] == 0o077
        assert all(isinstance(word, str) for word in found["ProgramArguments"])


@pytest.mark.parametrize("label", [DAEMON, AGENT])
def test_it_waits_for_the_program_and_runs_it_isolated(label: str) -> None:
    shell, option, script, *words = lists()[PLACES[label]]["ProgramArguments"]
    assert (shell, option) == ("/bin/sh", "-c")
    assert "/bin/wait4path /nix/store && " in script
    at = words.index(PYTHON)
    assert f'/bin/wait4path "${at}" && exec "$' in script
    assert words[at + 1 : at + 3] == ["-I", "-m"]


def test_the_helper_takes_requests_of_the_one_who_set_it_up() -> None:
    words = lists()[PLACES[DAEMON]]["ProgramArguments"]
    assert words[words.index("--allow-user") + 1] == "alice"
    assert words[words.index("--config") + 1] == DEFAULT_CONFIG
    assert settings(ALICE)["socket"] == "/var/run/storewarden/helper.sock"


def test_the_watcher_is_of_use_to_that_one_alone() -> None:
    words = lists()[PLACES[AGENT]]["ProgramArguments"]
    assert words[2].startswith('test "$(/usr/bin/id -un)" = "$0" || exit 0; ')
    assert words[3] == "alice"
    assert words[-2:] == ["storewarden", "watch"]


def test_nobody_stands_in_them_who_did_not_set_it_up() -> None:
    for document in lists().values():
        assert "/usr/bin/python3" not in document["ProgramArguments"]
        assert document["ProgramArguments"].count("storewarden") <= 1


@pytest.mark.parametrize("name", ["", "root", "no-such-user"])
def test_it_is_set_up_by_a_user_with_sudo(name: str) -> None:
    with pytest.raises(SetupError):
        person({"SUDO_USER": name})
