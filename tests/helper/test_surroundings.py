# SPDX-License-Identifier: MIT
"""Which files the helper runs: those that nobody but root, or its own user, can exchange."""

import os
from pathlib import Path

import pytest

from helper.serving import ROOT, line_for, serving, stale_lock
from helper.trees import write
from stand_in import write_answering_nix
from storewarden.errors import StorewardenError
from storewarden.helper.surroundings import check_place
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
