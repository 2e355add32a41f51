# SPDX-License-Identifier: MIT
"""The configuration as the helper reads it: only root's, strictly, anew for each request."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from helper.bench import log_of, names
from helper.serving import (
    CLIENT,
    HAND_OVER,
    HELPER,
    ROOT,
    Helper,
    command,
    ended,
    line_for,
    serving,
    socket_of,
    stale_lock,
    started,
)
from storewarden.throwaway import ThrowawayStore

WRONG = [
    ("mood = 1", "unknown key 'mood'; did you mean 'mode'?"),
    ("max-removals = true", "max-removals: True is not a number of entries"),
    ('runtime-dir = "nix"', "runtime-dir: 'nix' is not an absolute"),
    ("[", "Invalid"),
]


def base_of(place: ThrowawayStore) -> str:
    return place.state_dir.removesuffix("/nix/var/nix")


def written(place: ThrowawayStore, more: str = "", **changes: str) -> str:
    """A configuration for that store, with a stand-in for Nix; gives its path."""
    words = command(place)
    settings = {
        key: words[words.index(f"--{key}") + 1]
        for key in ("socket", "store-dir", "state-dir", "nix", "build-group", "audit-log")
    }
    settings |= {key.replace("_", "-"): value for key, value in changes.items()}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    os.makedirs(f"{base_of(place)}/etc", exist_ok=True)
    config = Path(base_of(place), "etc/config.toml")
    config.write_text("".join([more, "\n", *lines]), encoding="utf-8")
    return str(config)


def told_by(config: str, *words: str) -> list[str]:
    """The command of a helper that is told nothing else than who may ask, and no age."""
    return [*HELPER, "--config", config, "--allow-uid", str(CLIENT), "--min-age", "0", *words]


def removes(helper: Helper, place: ThrowawayStore, name: str) -> bool:
    """Whether it removes a stale lock file that is there now."""
    lock = stale_lock(place, name)
    answers = helper.ask(line_for(place, lock))
    assert answers[-1]["error"] == ""
    return answers[0]["status"] == "removed" and not os.path.lexists(place.path(lock))


def test_all_that_it_needs_to_know_may_stand_there(near: ThrowawayStore) -> None:
    with started(told_by(written(near))) as process:
        assert removes(Helper(process, socket_of(near)), near, "x")
    assert os.path.exists(log_of(near))


def test_the_age_that_is_set_there_is_waited_for(near: ThrowawayStore) -> None:
    words = [*HELPER, "--config", written(near, min_age="1h"), "--allow-uid", str(CLIENT)]
    with started(words) as process:
        told, end = Helper(process, socket_of(near)).ask(line_for(near, stale_lock(near)))
    assert (told["status"], end["error"]) == ("kept", "")
    assert "waiting until 3600 s old" in told["reasons"][0]


def test_an_argument_wins(near: ThrowawayStore) -> None:
    elsewhere = f"{base_of(near)}/elsewhere/audit.jsonl"
    os.mkdir(os.path.dirname(elsewhere))
    with started(told_by(written(near), "--audit-log", elsewhere)) as process:
        assert removes(Helper(process, socket_of(near)), near, "x")
    assert os.path.exists(elsewhere)
    assert not os.path.exists(log_of(near))


def test_where_there_is_none_arguments_and_defaults_hold(near: ThrowawayStore) -> None:
    with serving(near, "--config", f"{base_of(near)}/nowhere/config.toml") as helper:
        assert removes(helper, near, "x")


def test_without_a_word_of_it_none_is_read(near: ThrowawayStore) -> None:
    """As an older version's unit starts it."""
    assert "--config" not in command(near)
    with serving(near) as helper:
        assert removes(helper, near, "x")


def test_a_change_is_in_force_with_the_next_request(near: ThrowawayStore) -> None:
    elsewhere = f"{base_of(near)}/elsewhere/audit.jsonl"
    os.mkdir(os.path.dirname(elsewhere))
    with started(told_by(written(near))) as process:
        assert removes(Helper(process, socket_of(near)), near, "x")
        written(near, audit_log=elsewhere)
        assert removes(Helper(process, socket_of(near)), near, "y")
    assert len(Path(elsewhere).read_text(encoding="utf-8").splitlines()) == 2
    assert len(Path(log_of(near)).read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_with_a_wrong_one_it_does_not_start(text: str, why: str, near: ThrowawayStore) -> None:
    before = names(near)
    config = written(near, text)
    status, said = ended(told_by(config))
    assert status == 2
    assert f"<3>storewarden-helper: error: {config}: " in said
    assert why in said
    assert names(near) == before
    assert not os.path.exists(socket_of(near))


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_one_that_becomes_wrong_has_nothing_removed_until_it_is_mended(
    text: str, why: str, near: ThrowawayStore
) -> None:
    lock = stale_lock(near)
    config = written(near)
    with started(told_by(config)) as process:
        written(near, text)
        [end] = Helper(process, socket_of(near)).ask(line_for(near, lock))
        assert end["error"].startswith(f"{config}: ")
        assert why in end["error"]
        assert os.path.lexists(near.path(lock))
        written(near)
        assert removes(Helper(process, socket_of(near)), near, "y")


def test_another_store_than_the_view_shows_is_not_touched(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    os.mkdir(f"{base_of(near)}/other")
    with started(told_by(written(near), "--view", near.store_dir.path)) as process:
        written(near, store_dir=f"{base_of(near)}/other")
        [end] = Helper(process, socket_of(near)).ask(line_for(near, lock))
        assert f"{near.store_dir.path} is not the directory {base_of(near)}/other" in end["error"]
        written(near, store_dir=f"{base_of(near)}/absent")
        [end] = Helper(process, socket_of(near)).ask(line_for(near, lock))
        assert "cannot look at the store" in end["error"]
    assert os.path.lexists(near.path(lock))


def test_who_waits_at_a_socket_that_is_handed_over_hears_why(near: ThrowawayStore) -> None:
    config = written(near, "mood = 1")
    path = f"{near.state_dir}/handed-over"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        listener.bind(path)
        listener.listen()
        client.connect(path)
        fd = listener.fileno()
        words = [sys.executable, "-I", "-S", "-c", HAND_OVER, str(fd), *told_by(config)]
        status, _ = ended(words, pass_fds=[fd])
        assert status == 2
        client.settimeout(20)
        end = json.loads(client.makefile("rb").readline())
    assert f"the helper cannot work: {config}: unknown key 'mood'" in end["error"]


def _file(config: str) -> str:
    os.chmod(config, 0o664)
    return config


def _directory(config: str) -> str:
    os.chmod(os.path.dirname(config), 0o777)  # noqa: S103 - the point of the test
    return os.path.dirname(config)


def _file_behind_a_link(config: str) -> str:
    os.rename(config, f"{config}-elsewhere")
    os.symlink(f"{config}-elsewhere", config)
    return _file(f"{config}-elsewhere")


def _directory_of_a_link(config: str) -> str:
    loose = f"{os.path.dirname(os.path.dirname(config))}/loose"
    os.mkdir(loose)
    os.rename(config, f"{config}-elsewhere")
    os.symlink(f"{config}-elsewhere", f"{loose}/link")
    os.symlink(f"{loose}/link", config)
    os.chmod(loose, 0o777)  # noqa: S103 - the point of the test
    return loose


def _owner(config: str) -> str:
    if not ROOT:
        pytest.skip("only root can give a file away")
    os.chown(config, 65533, -1)
    return config


WAYS = [_file, _directory, _file_behind_a_link, _directory_of_a_link, _owner]


@pytest.mark.parametrize("loosen", WAYS)
def test_one_that_others_can_change_is_never_read(loosen: object, near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    config = written(near)
    assert callable(loosen)
    with started(told_by(config)) as process:
        place = os.path.realpath(loosen(config))
        [end] = Helper(process, socket_of(near)).ask(line_for(near, lock))
        assert end["error"].startswith(f"{place}, which says what is done as root, can be changed")
    status, said = ended(told_by(config))
    assert status == 2
    assert f"{place}, which says what is done as root, can be changed by others" in said
    assert os.path.lexists(near.path(lock))


def test_none_may_be_made_by_others_where_there_is_none(near: ThrowawayStore) -> None:
    config = written(near)
    os.unlink(config)
    place = _directory(config)
    status, said = ended(told_by(config))
    assert (status, f"{place}, which says" in said) == (2, True)
