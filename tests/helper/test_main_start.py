# SPDX-License-Identifier: MIT
"""How the helper starts and ends, and where it refuses to."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from helper.bench import names, request
from helper.child import in_child, mount, needs_root, take_own_mounts, take_own_users
from helper.serving import (
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
from helper.trees import write
from storewarden import __file__ as package
from storewarden.client import encode_request
from storewarden.config import Config
from storewarden.errors import StorewardenError
from storewarden.helper.__main__ import checked_store, prepare
from storewarden.host import RESTART_HELPER, hidden_uid
from storewarden.throwaway import ThrowawayStore


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_removes_its_socket(
    number: signal.Signals, near: ThrowawayStore
) -> None:
    with started(command(near)) as process:
        assert os.path.exists(socket_of(near))
        process.send_signal(number)
        assert process.wait(20) == 0
    assert not os.path.lexists(socket_of(near))


def test_idle_for_long_enough_it_ends(near: ThrowawayStore) -> None:
    with started(command(near, "--idle-exit", "0.3")) as process:
        assert process.wait(20) == 0
    assert not os.path.lexists(socket_of(near))


def test_a_stale_socket_is_replaced(near: ThrowawayStore) -> None:
    os.mkdir(os.path.dirname(socket_of(near)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(socket_of(near))
    os.chmod(os.path.dirname(socket_of(near)), 0o711)  # noqa: S103 - clients are other users
    lock = stale_lock(near)
    with serving(near) as helper:
        assert helper.ask(line_for(near, lock))[0]["status"] == "removed"


def _file(path: str) -> None:
    write(path, "precious")


def _link(path: str) -> None:
    write(f"{path}-elsewhere", "precious")
    os.symlink(f"{path}-elsewhere", path)


@pytest.mark.parametrize("make", [_file, _link, os.mkdir, os.mkfifo])
def test_what_is_no_socket_is_left_where_it_is(make: object, near: ThrowawayStore) -> None:
    path = socket_of(near)
    os.mkdir(os.path.dirname(path))
    assert callable(make)
    make(path)
    before = os.lstat(path)
    status, said = ended(command(near))
    assert status == 3
    assert f"{path} exists and is not a socket" in said
    assert os.lstat(path) == before


def test_a_second_one_is_refused_and_the_first_serves_on(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    with serving(near) as helper:
        status, said = ended(command(near))
        assert status == 3
        assert "another helper serves" in said
        assert helper.ask(line_for(near, lock))[0]["status"] == "removed"


def test_a_socket_that_is_handed_over_is_served_and_left(near: ThrowawayStore) -> None:
    path = f"{near.state_dir}/handed-over"
    words = command(near)
    lock = stale_lock(near)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - as systemd does it with SocketMode=
        listener.listen()
        fd = listener.fileno()
        words = [sys.executable, "-I", "-S", "-c", HAND_OVER, str(fd), *words]
        with started(words, pass_fds=[fd]) as process:
            assert not os.path.exists(socket_of(near))
            outcome, end = Helper(process, path).ask(line_for(near, lock))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert (outcome["status"], end["error"]) == ("removed", "")
    assert os.path.exists(path)


def test_a_socket_handed_to_another_process_is_none_of_its_business(near: ThrowawayStore) -> None:
    environment = {**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"}
    with started(command(near), env=environment) as process:
        assert os.path.exists(socket_of(near))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_it_does_not_start_where_the_environment_could_change_it(near: ThrowawayStore) -> None:
    words = [word for word in command(near) if word != "-I"]
    status, said = ended(words)
    assert status == 3
    assert "start it as: python -I -m storewarden.helper" in said
    assert not os.path.exists(socket_of(near))


def test_no_module_from_the_environment_or_the_directory_is_loaded(near: ThrowawayStore) -> None:
    evil = f"{near.state_dir}/evil"
    os.mkdir(evil)
    for name in ("json.py", "sitecustomize.py", "usercustomize.py", "storewarden.py"):
        write(f"{evil}/{name}", f"open({evil + '/loaded'!r}, 'w')")
    environment = {**os.environ, "PYTHONPATH": evil, "PYTHONSTARTUP": f"{evil}/json.py"}
    status, _ = ended([*HELPER, "--help"][:-1], env=environment)
    assert status == 2
    assert not os.path.exists(f"{evil}/loaded")


def test_it_does_not_run_from_where_others_can_write(near: ThrowawayStore) -> None:
    environment = f"{near.state_dir}/environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = f"{environment}/bin/python"
    places = subprocess.run(
        [python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    source = os.path.dirname(os.path.realpath(package))
    shutil.copytree(source, f"{places}/storewarden", ignore=shutil.ignore_patterns("__pycache__"))
    os.mkdir(f"{environment}/more")
    write(f"{places}/more.pth", f"{environment}/more\n")
    words = [python, *command(near)[1:]]
    with started(words) as process:
        process.kill()
    # What is above all, the interpreter's, a place to import from, a module's.
    module = f"{places}/storewarden/store"
    for place in (environment, f"{environment}/bin", f"{environment}/more", module):
        os.chmod(place, 0o777)  # noqa: S103 - the point of the test
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=20, cwd="/"
        )
        assert done.returncode == 3
        assert f"{os.path.realpath(place)}, where this program is" in done.stderr
        os.chmod(place, 0o755)  # noqa: S103 - only its owner writes there


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--allow-uid", "one"),
        ("--allow-ui", "1", "--socket", f"{os.devnull}/socket"),
        ("--allow-uid", "1", "--force"),
    ],
)
def test_wrong_use_is_told(words: tuple[str, ...]) -> None:
    status, said = ended([*HELPER, *words])
    assert status == 2
    assert "usage" in said


@needs_root
@pytest.mark.parametrize(("through", "stays"), [("", False), ("store", False), ("view", True)])
def test_a_read_only_store_is_made_writable_unless_a_view_of_it_is_named(
    through: str,
    stays: bool,  # noqa: FBT001 - a case
    near: ThrowawayStore,
) -> None:
    store, view = near.store_dir.path, f"{near.state_dir}/view"
    named = {"": None, "store": store, "view": view}[through]
    os.mkdir(view)

    def in_own_mounts() -> bool:
        take_own_mounts()
        mount("--bind", store, view)
        mount("--bind", store, store)
        mount("-o", "remount,bind,ro", store)
        prepare(Config(store_dir=near.store_dir), named, {})
        return bool(os.statvfs(store).f_flag & os.ST_RDONLY)

    assert in_child(in_own_mounts) is stays


@needs_root
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has namespaces of users")
def test_a_read_only_store_that_it_may_not_make_writable_is_told(near: ThrowawayStore) -> None:
    store = near.store_dir.path

    def without_the_right() -> str:
        take_own_mounts()
        mount("--bind", store, store)
        mount("-o", "remount,bind,ro", store)
        take_own_users()
        with pytest.raises(StorewardenError) as told:
            prepare(Config(store_dir=near.store_dir), None, {})
        return str(told.value)

    why = "is mounted read-only and cannot be made writable here: operation not permitted"
    assert in_child(without_the_right) == f"{store} {why}"


@needs_root
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has namespaces of users")
def test_it_knows_the_uid_of_whom_it_cannot_tell_apart(near: ThrowawayStore) -> None:
    words = command(near)
    nix = words[words.index("--nix") + 1]
    config = Config(store_dir=near.store_dir, state_dir=near.state_dir, nix=nix)

    def in_own_users() -> list[int | None]:
        take_own_users()
        return [checked_store({}, config, None).hidden_uid, hidden_uid()]

    assert in_child(in_own_users) == [65534, 65534]


def test_a_store_is_seen_through_the_view_that_is_named(near: ThrowawayStore) -> None:
    words, store, view = command(near), near.store_dir.path, f"{near.state_dir}/view"
    nix = words[words.index("--nix") + 1]
    config = Config(store_dir=near.store_dir, state_dir=near.state_dir, nix=nix)
    os.symlink(store, view)
    assert checked_store({}, config, view).view == view
    assert checked_store({}, config, None).view == store


def test_a_view_of_something_else_is_refused(near: ThrowawayStore) -> None:
    status, said = ended(command(near, "--view", near.state_dir))
    assert status == 3
    assert said.startswith("<3>storewarden-helper: error: ")
    assert "is not the directory" in said


@pytest.mark.skipif(not ROOT, reason="only root can give a directory away")
def test_a_store_of_another_user_is_refused(near: ThrowawayStore) -> None:
    stale_lock(near)
    before = names(near)
    os.chown(near.store_dir.path, 65533, 65533)
    status, said = ended(command(near))
    assert status == 3
    assert "belongs to uid 65533" in said
    assert names(near) == before


def test_a_store_that_was_replaced_below_it_is_left_alone_with_the_cure(
    near: ThrowawayStore,
) -> None:
    lock, store = stale_lock(near), near.store_dir.path
    with serving(near) as helper:
        wanted = request(near, lock)
        os.rename(store, f"{store}.before")
        shutil.copytree(f"{store}.before", store)
        [end] = helper.ask(encode_request([wanted]))
        assert "is another directory than when this helper began" in end["error"]
        assert end["error"].endswith(RESTART_HELPER)
        assert lock in names(near)
        shutil.rmtree(store)
        os.rename(f"{store}.before", store)
        assert helper.ask(encode_request([wanted]))[-1]["error"] == ""
    assert lock not in names(near)
