# SPDX-License-Identifier: MIT
"""Which files the helper runs: those that nobody but root, or its own user, can exchange."""

import codecs
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import storewarden.processes  # noqa: F401 - nothing can be imported behind another root
from helper.bench import log_is_whole, names, run
from helper.child import (
    among_own_processes,
    as_ordinary_user,
    in_child,
    mount,
    needs_root,
    put_layers,
    take_own_mounts,
)
from helper.serving import ROOT, line_for, serving, stale_lock
from helper.trees import write
from stand_in import write_answering_nix
from storewarden.errors import StoreUnreadableError, StorewardenError
from storewarden.helper.surroundings import (
    check_file_system,
    check_namespace,
    check_place,
    check_view,
)
from storewarden.host import FIRST_ALLOCATED
from storewarden.store.paths import StoreDir
from storewarden.throwaway import ThrowawayStore

root = pytest.mark.skipif(not ROOT, reason="only root can give files away")


def refused(place: Path) -> str:
    with pytest.raises(StorewardenError) as refusal:
        check_place(str(place), "the program")
    return str(refusal.value)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    write(f"{tmp_path}/bin/nix", "x")
    return tmp_path / "bin/nix"


def test_a_program_that_others_cannot_exchange_is_taken_also_through_links(
    program: Path, tmp_path: Path
) -> None:
    check_place(str(program), "the program")
    (tmp_path / "profile").symlink_to("bin")
    (tmp_path / "other").symlink_to(tmp_path / "profile/../bin")
    check_place(f"{tmp_path}/other/nix", "the program")


def test_one_that_is_not_there_is_taken_as_far_as_only_root_can_make_it(program: Path) -> None:
    check_place(f"{program}-store", "the program")
    program.parent.chmod(0o777)
    assert refused(Path(f"{program}-store")).startswith(f"{program.parent}, the program,")


@pytest.mark.parametrize("mode", [0o757, 0o775])
def test_a_program_or_directory_that_others_may_write_is_refused(program: Path, mode: int) -> None:
    program.chmod(mode)
    assert refused(program).startswith(f"{program}, the program,")
    program.chmod(0o755)
    program.parent.chmod(mode)
    assert refused(program).startswith(f"{program.parent}, ")


def test_so_is_what_lies_behind_a_link_and_between_two(program: Path, tmp_path: Path) -> None:
    between = tmp_path / "between"
    between.mkdir()
    (between / "link").symlink_to(program)
    (tmp_path / "first").symlink_to(between / "link")
    check_place(f"{tmp_path}/first", "the program")
    between.chmod(0o777)
    assert refused(tmp_path / "first").startswith(f"{between}, ")
    between.chmod(0o755)
    program.chmod(0o777)
    assert refused(tmp_path / "first").startswith(f"{program}, ")


def test_what_is_above_a_link_is_above_what_it_points_to(program: Path, tmp_path: Path) -> None:
    os.makedirs(tmp_path / "there" / "deep")
    (tmp_path / "first").symlink_to("there/deep")
    (tmp_path / "second").symlink_to("first/../nix")
    write(f"{tmp_path}/nix", "x")  # where `..` would lead if it were cut off with the link
    program.rename(tmp_path / "there" / "nix").chmod(0o777)
    for way in ("first/../nix", "second"):
        assert refused(tmp_path / way).startswith(f"{tmp_path}/there/nix, the program,")


@root
def test_what_belongs_to_another_user_is_refused_but_not_a_sticky_directory_above(
    program: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o1777)  # as /nix/store is writable to build users
    check_place(str(program), "the program")
    (tmp_path / "theirs").symlink_to(program)
    os.lchown(tmp_path / "theirs", 65533, 65533)
    assert refused(tmp_path / "theirs").startswith(f"{tmp_path}/theirs, ")
    os.chown(program, 65533, 65533)
    assert refused(program).startswith(f"{program}, ")


@root
def test_an_ordinary_user_takes_what_is_its_own_below_what_is_roots() -> None:
    def look(directory: str) -> str:
        write(f"{directory}/nix")
        check_place(f"{directory}/nix", "the program")
        os.chmod(directory, 0o777)  # noqa: S103 - the point of the test
        return refused(Path(f"{directory}/nix")).partition(",")[0].removeprefix(directory)

    assert as_ordinary_user(look) == ""


def test_a_nix_that_others_can_exchange_is_never_run_as_root(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    base = near.state_dir.removesuffix("/nix/var/nix")
    nix = f"{base}/bin/nix"
    os.mkdir(f"{base}/bin")
    write_answering_nix(nix)
    with serving(near, "--nix", nix) as helper:
        os.chmod(f"{base}/bin", 0o777)  # noqa: S103 - the point of the test
        [end] = helper.ask(line_for(near, lock))
        assert "can be changed by others" in end["error"]
        assert f"{base}/bin, which would be run as root (another: --nix)" in end["error"]
        assert os.path.lexists(near.path(lock))
        os.chmod(f"{base}/bin", 0o755)  # noqa: S103 - only its owner writes there
        outcome, end = helper.ask(line_for(near, lock))
        assert (outcome["status"], end["error"]) == ("removed", "")


# The root file system of a container: layers, of which only the uppermost is its own.


def enter(root: Path) -> None:
    """Make that directory the root of this process."""
    codecs.lookup("ascii")  # it is imported as well
    os.chroot(root)
    os.chdir("/")


@needs_root
def test_in_a_container_what_was_stranded_goes_and_what_came_with_its_image_stays(
    tmp_path: Path,
) -> None:
    for name in ("image/proc", "upper", "work", "root"):
        os.makedirs(tmp_path / name)

    def in_the_image() -> str:
        enter(tmp_path / "image")
        place = ThrowawayStore.create("/place")
        return place.strand(place.add_derivation("old")).base_name

    old = in_child(in_the_image)

    def in_the_container() -> dict[str, list[str]]:
        take_own_mounts()
        layers = f"lowerdir={tmp_path}/image,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        mount("-t", "overlay", "-o", layers, "none", f"{tmp_path}/root")
        mount("--rbind", "/proc", f"{tmp_path}/root/proc")
        enter(tmp_path / "root")
        store = StoreDir("/place/nix/store")
        place = ThrowawayStore(store, "/place/nix/var/nix", FIRST_ALLOCATED)
        new = place.strand(place.add_derivation("new")).base_name
        last = {outcome.base_name: outcome for outcome in run(place, old, new)}
        assert (old in names(place), new in names(place)) == (True, False)
        return {
            "old": [last[old].status, *last[old].reasons],
            "new": [last[new].status, *last[new].reasons],
        }

    assert in_child(in_the_container) == {
        "old": [
            "failed",
            "the file system cannot move it: on an overlay, it came with the image",
        ],
        "new": ["removed"],
    }
    assert os.path.isdir(f"{tmp_path}/image/place/nix/store/{old}")
    assert log_is_whole(f"{tmp_path}/upper/place/log/audit.jsonl")


@needs_root
def test_in_a_chroot_whose_file_system_cannot_be_told_nothing_is_removed(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "proc")

    def in_the_chroot() -> str:
        take_own_mounts()
        mount("--rbind", "/proc", f"{tmp_path}/proc")
        enter(tmp_path)
        place = ThrowawayStore.create("/place")
        path = place.strand(place.add_derivation("x")).base_name
        with pytest.raises(StoreUnreadableError) as refusal:
            run(place, path)
        assert path in names(place)
        return str(refusal.value)

    assert "which file system /place/nix/store is on cannot be told" in in_child(in_the_chroot)


@needs_root
def test_where_no_mounts_can_be_read_nothing_is_removed(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    def look() -> str:
        enter(tmp_path)  # where there is no /proc
        with pytest.raises(StoreUnreadableError) as refusal:
            check_file_system(place.as_store())
        return str(refusal.value)

    assert "the mounts of this machine cannot be read; nothing is removed" in in_child(look)


@needs_root
def test_layers_over_the_store_are_found_wherever_it_is_looked_at(place: ThrowawayStore) -> None:
    plain, layered = place.state_dir, place.store_dir.path

    def with_layers() -> list[str]:
        take_own_mounts()
        put_layers(place)
        return [why_not(plain, plain), why_not(layered, plain), why_not(plain, layered)]

    def why_not(store_dir: str, view: str) -> str:
        try:
            check_file_system(replace(place.as_store(), store_dir=StoreDir(store_dir), view=view))
        except StoreUnreadableError as cause:
            return str(cause)
        return ""

    neither, *either = in_child(with_layers)
    assert neither == ""
    assert [f"{layered} is on a file system of type overlay" in one for one in either] == [True] * 2


# A daemon that runs where its processes cannot be seen from here.


@contextmanager
def daemon(place: ThrowawayStore) -> Iterator[None]:
    """While this process listens where nix-daemon does."""
    os.mkdir(f"{place.state_dir}/daemon-socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{place.state_dir}/daemon-socket/socket")
        listener.listen(8)
        yield


def test_a_daemon_that_can_be_seen_is_fine(near: ThrowawayStore) -> None:
    path = near.strand(near.add_derivation("x")).base_name
    with daemon(near):
        assert run(near, path)[-1].status == "removed"


def test_a_daemon_that_cannot_be_reached_keeps_everything(near: ThrowawayStore) -> None:
    os.mkdir(f"{near.state_dir}/daemon-socket")
    os.symlink("socket", f"{near.state_dir}/daemon-socket/socket")
    with pytest.raises(StoreUnreadableError, match=r"nix-daemon cannot be reached .*; nothing is"):
        check_namespace(near.as_store())


@needs_root
def test_a_daemon_outside_of_this_container_keeps_everything(near: ThrowawayStore) -> None:
    path = near.strand(near.add_derivation("x")).base_name

    def look() -> str:
        try:
            return run(near, path)[-1].status.value
        except StoreUnreadableError as cause:
            return str(cause)

    with daemon(near):
        assert "runs outside this container" in among_own_processes(look, proc=False)
    assert os.path.exists(near.path(path))


def test_a_store_or_a_view_of_it_that_is_not_there_is_told(place: ThrowawayStore) -> None:
    store_dir = place.store_dir.path
    for both in ((f"{store_dir}/gone", store_dir), (store_dir, f"{store_dir}/gone")):
        with pytest.raises(StoreUnreadableError, match=r"cannot look at the store: .*/gone'"):
            check_view(*both, {})
    check_view(store_dir, store_dir, {})
