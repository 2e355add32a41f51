# SPDX-License-Identifier: MIT
"""A build's chroot goes only when all locks of its derivation are ours and nobody is in it."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from helper.bench import audit_is_whole, kept, live_temp_root, names, records, run
from helper.child import among_own_processes, in_child, mount, needs_root, take_own_mounts
from helper.trees import spread
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import holding

_MNT_DETACH = 2
LIVE_IN = """
import os, sys
if sys.argv[2] == "root":
    os.chroot(sys.argv[1])
os.chdir("/" if sys.argv[2] == "root" else sys.argv[1])
print("in", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def known(place: ThrowawayStore) -> StorePath:
    """The path of an output that is known before the build."""
    return place.invent("known")


@pytest.fixture
def derivation(place: ThrowawayStore, known: StorePath) -> StorePath:
    """One with a floating and a known output."""
    outputs = f'("dev","","r:sha256",""),("out","{place.path(known.base_name)}","","")'
    return place.add_valid("x.drv", f'Derive([{outputs}],[],[],"x86_64-linux","/bin/sh",[],[])')


@pytest.fixture
def chroot(place: ThrowawayStore, derivation: StorePath) -> str:
    name = f"{derivation.base_name}.chroot"
    os.mkdir(place.path(name), 0o700)
    spread(f"{place.path(name)}/root/nix/store", 3, 3)
    return name


def why(place: ThrowawayStore, chroot: str) -> tuple[str, bool]:
    """Why it stays, and whether for want of proof."""
    outcome = kept(place, chroot)
    (reason,) = outcome.reasons
    return reason, outcome.unproved


@needs_root
def test_a_chroot_that_nothing_claims_goes_and_its_locks_stay_as_they_were(
    place: ThrowawayStore, derivation: StorePath, chroot: str
) -> None:
    place.add_lock(output_lock(derivation, "dev"))
    before = names(place)
    assert among_own_processes(lambda: [o.status for o in run(place, chroot)]) == [
        "taken",
        "removed",
    ]
    assert names(place) == before - {chroot}
    (intent,) = records(place, "intent")
    assert intent["kind"] == "chroot"
    assert audit_is_whole(place)


@needs_root
def test_one_that_is_itself_the_root_of_the_build_goes_too(
    place: ThrowawayStore, chroot: str
) -> None:
    os.rename(place.path(f"{chroot}/root/nix"), place.path(f"{chroot}/nix"))
    os.rmdir(place.path(f"{chroot}/root"))
    told = among_own_processes(lambda: [o.status for o in run(place, chroot)])
    assert told == ["taken", "removed"]


@needs_root
def test_a_link_in_the_place_of_its_root_puts_nobody_into_it(
    place: ThrowawayStore, chroot: str
) -> None:
    os.rename(place.path(f"{chroot}/root"), place.path(f"{chroot}/aside"))
    os.symlink("/", place.path(f"{chroot}/root"))
    told = among_own_processes(lambda: [o.status for o in run(place, chroot)])
    assert told == ["taken", "removed"]


def test_the_lock_of_any_output_keeps_it(
    place: ThrowawayStore, derivation: StorePath, known: StorePath, chroot: str
) -> None:
    for lock in (output_lock(derivation, "dev"), path_lock(known)):
        with holding(place.path(lock)):
            reason, unproved = why(place, chroot)
        assert f"{lock} is held" in reason
        assert not unproved


@needs_root
def test_a_temp_root_on_its_derivation_keeps_it(
    place: ThrowawayStore, derivation: StorePath, chroot: str
) -> None:
    with live_temp_root(place, derivation):
        assert "(process 77)" in among_own_processes(lambda: why(place, chroot))[0]


@needs_root
@pytest.mark.parametrize("below", ["", "/root", "/root/nix"])
@pytest.mark.parametrize("how", ["root", "cwd"])
def test_a_process_that_lives_in_it_keeps_it(
    how: str, below: str, place: ThrowawayStore, chroot: str
) -> None:
    words = [sys.executable, "-I", "-S", "-c", LIVE_IN, f"{place.path(chroot)}{below}", how]

    def while_it_lives() -> str:
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            reason, unproved = why(place, chroot)
            assert f"(process {process.pid})" in reason
            assert not unproved
            process.communicate()
        assert run(place, chroot)[-1].status == "removed"
        return reason

    reason = among_own_processes(while_it_lives)
    assert "a process has its root or its directory in it" in reason


@needs_root
def test_a_sandboxed_process_keeps_it(place: ThrowawayStore, chroot: str) -> None:
    def live_in_it_as_nixs_sandbox_does() -> list[str]:
        waiting, go = os.pipe()
        said, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            pivot_into(f"{place.path(chroot)}/root")
            os.write(say, b"!")
            os.read(waiting, 1)
            os._exit(0)
        assert os.read(said, 1) == b"!"
        assert os.readlink(f"/proc/{pid}/root") == "/", "its own name for it tells nothing"
        (outcome,) = run(place, chroot)
        os.close(go)
        os.waitpid(pid, 0)
        return list(outcome.reasons)

    (reason,) = among_own_processes(live_in_it_as_nixs_sandbox_does)
    assert "a process has its root or its directory in it" in reason
    assert chroot in names(place)


def pivot_into(top: str) -> None:
    """Make `top` the root of this process as Nix's sandbox does, and of nobody else."""
    system = ctypes.CDLL(None, use_errno=True)
    take_own_mounts()
    mount("--bind", top, top)
    os.mkdir(f"{top}/old")
    subprocess.run(["pivot_root", top, f"{top}/old"], check=True)
    os.chdir("/")
    assert system.umount2(b"/old", _MNT_DETACH) == 0
    os.rmdir("/old")


def _gone(path: str) -> None:
    os.unlink(path)


def _unreadable(path: str) -> None:
    os.chmod(path, 0o600)
    with open(path, "w", encoding="ascii") as file:
        file.write("DrvWithVersion(")


def _link(path: str) -> None:
    os.rename(path, f"{path}.away")
    os.symlink(f"{path}.away", path)


def _of_a_build_user(path: str) -> None:
    os.chown(path, 872415232, 872415232)


@pytest.mark.parametrize(
    "event", [_gone, _unreadable, _link, pytest.param(_of_a_build_user, marks=needs_root)]
)
def test_a_derivation_that_cannot_be_read_or_believed_keeps_it(
    event: Callable[[str], None], place: ThrowawayStore, derivation: StorePath, chroot: str
) -> None:
    event(place.path(derivation.base_name))
    reason, unproved = why(place, chroot)
    assert "its lock could not be tested" in reason
    assert "(its derivation is not there to tell which)" in reason
    assert unproved


@needs_root
def test_a_mount_in_it_keeps_it(place: ThrowawayStore, chroot: str) -> None:
    def in_own_mounts() -> list[str]:
        take_own_mounts()
        mount("-t", "tmpfs", "none", f"{place.path(chroot)}/root/nix")
        return list(run(place, chroot)[0].reasons)

    assert in_child(in_own_mounts) == ["something is mounted on it or in it"]
    assert chroot in names(place)
