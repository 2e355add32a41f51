# SPDX-License-Identifier: MIT
"""The property lists: launchd ignores a key of a wrong type without a word, so types are here."""

import os
import plistlib
import pwd
import time
from typing import Any

import pytest

from helper.child import in_child
from storewarden.config import DEFAULT_CONFIG
from storewarden.helper.purge import deadlines
from storewarden.host import darwin
from storewarden.setup.code import shipped
from storewarden.setup.darwin import HELPER, LOCK, PLACES, WATCHER, Person, jobs, person, settings
from storewarden.setup.files import SetupError

TYPES = {
    "EnvironmentVariables": dict,
    "ExitTimeOut": int,
    "KeepAlive": dict,
    "Label": str,
    "LowPriorityIO": bool,
    "ProcessType": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "SoftResourceLimits": dict,
    "StandardErrorPath": str,
    "ThrottleInterval": int,
    "Umask": int,
    "UserName": str,
    "WorkingDirectory": str,
}
"""Of launchd.plist(5)."""
PYTHON = "/opt/storewarden/0.1.0-abc/bin/python"
ALICE = Person("alice", 501, "/Users/alice")


def lists() -> dict[str, dict[str, Any]]:
    return {file.path: plistlib.loads(file.content) for file in jobs(PYTHON, ALICE)}


@pytest.mark.parametrize("label", PLACES)
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


@pytest.mark.parametrize("label", PLACES)
def test_it_waits_for_the_program_and_runs_it_isolated(label: str) -> None:
    shell, option, script, *words = lists()[PLACES[label]]["ProgramArguments"]
    assert (shell, option) == ("/bin/sh", "-c")
    assert "/bin/wait4path /nix/store && " in script
    at = words.index(PYTHON)
    assert f'/bin/wait4path "${at}" && exec "$' in script
    assert words[at + 1 : at + 3] == ["-I", "-m"]


def test_the_helper_takes_requests_of_the_one_who_set_it_up() -> None:
    words = lists()[PLACES[HELPER]]["ProgramArguments"]
    assert words[words.index("--allow-user") + 1] == "alice"
    assert words[words.index("--config") + 1] == DEFAULT_CONFIG


def test_the_helper_ends_what_it_is_at_and_holds_no_lock_with_the_least_of_the_machine() -> None:
    helper = lists()[PLACES[HELPER]]
    assert helper["ExitTimeOut"] > 60, "what a purge takes at most, before it is killed"
    assert max(deadlines(1)) - time.monotonic() <= 60
    assert not {"ProcessType", "LowPriorityIO", "Nice"} & helper.keys()


def test_the_watcher_runs_as_that_one_whether_anybody_is_logged_in_or_not() -> None:
    found = lists()[PLACES[WATCHER]]
    assert found["UserName"] == "alice"
    assert PLACES[WATCHER].startswith("/Library/LaunchDaemons/")
    assert "LimitLoadToSessionType" not in found
    assert found["ProgramArguments"][-2:] == ["storewarden", "watch"]


def test_the_watchers_log_is_opened_by_that_one_and_not_by_root() -> None:
    found = lists()[PLACES[WATCHER]]
    assert "StandardErrorPath" not in found
    words = found["ProgramArguments"]
    assert words[2].startswith('exec 2>>"$0"; ')
    assert words[3] == "/Users/alice/Library/Logs/storewarden.log"


def test_the_watchers_places_are_its_users_and_the_socket_is_where_root_alone_makes_names() -> None:
    assert settings(ALICE) == {
        "runtime-dir": "/Users/alice/Library/Application Support/storewarden"
    }
    assert darwin.SOCKET == "/private/var/db/storewarden/helper.sock"
    assert os.path.dirname(LOCK) == "/private/var/db/storewarden"


def test_nobody_stands_in_them_who_did_not_set_it_up() -> None:
    for document in lists().values():
        assert "/usr/bin/python3" not in document["ProgramArguments"]
        assert document["ProgramArguments"].count("storewarden") <= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="it is root who must say for whom")
@pytest.mark.parametrize("name", ["", "root", "no-such-user"])
def test_root_sets_it_up_for_whoever_called_sudo(name: str) -> None:
    with pytest.raises(SetupError, match="sudo storewarden setup"):
        person({"SUDO_USER": name})
    assert person({"SUDO_USER": "nobody"}).name == "nobody"


def test_who_only_looks_without_sudo_is_the_one() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid

    def as_nobody() -> list[object]:
        if os.geteuid() == 0:
            os.setuid(nobody)
        return [person({"SUDO_USER": "root"}).uid, os.geteuid()]

    asked, own = in_child(as_nobody)
    assert asked == own
