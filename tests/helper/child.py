# SPDX-License-Identifier: MIT
"""Work done in a forked process: to be killed there, limited there, or given mounts of its own.

And work that meets what another process might do at just that moment, or runs out of descriptors.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import pytest

from storewarden.throwaway import ThrowawayStore

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount or change owners")
_CLONE_NEWNS = 0x20000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWUSER = 0x10000000
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _IF_EQUAL, _RETURN, _ALLOW, _ERROR = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}.get(platform.machine(), 0)
can_forbid_renameat2 = pytest.mark.skipif(
    sys.platform != "linux" or not _RENAMEAT2, reason="the call, or its number, is not known here"
)


def in_child(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - anything that JSON can carry
    """What `work` gives in a process of its own; its traceback where it fails."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = json.dumps({"gave": work()})
        except BaseException:  # noqa: BLE001 - told to the parent
            answer = json.dumps({"failed": traceback.format_exc()})
        try:
            os.write(writing, answer.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = file.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"
    told = json.loads(answer)
    assert "failed" not in told, told.get("failed")
    return told["gave"]


def become_user(uid: int) -> None:
    """Be that user from now on, for good, in the group of that number and no other."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def as_ordinary_user(work: Callable[[str], Any]) -> Any:  # noqa: ANN401 - as `in_child`
    """What `work` gives in a process of somebody who is not root, with a directory of its own."""
    user = os.geteuid() or 65534
    with TemporaryDirectory(prefix="sw-") as directory:
        os.chown(directory, user, -1)

        def become() -> Any:  # noqa: ANN401
            if os.geteuid() != user:
                become_user(user)
            return work(directory)

        return in_child(become)


def killed(work: Callable[[], object]) -> None:
    """Do `work` in a process of its own, which must end by SIGKILL before the work does."""
    assert dies(work), "the child was not killed"


def dies(work: Callable[[], object]) -> bool:
    """Whether SIGKILL ends the process in which `work` is done before the work is done."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - told to whoever reads the test's output
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0, f"the child ended with {status}"
    return False


def kill_self() -> None:
    """End as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def traced(work: Callable[[], object], *functions: str) -> list[str]:
    """In which order `work` returned from those functions, of Python's or of the system's."""
    order: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "c_return" and getattr(argument, "__name__", "") in functions:
            order.append(str(getattr(argument, "__name__", "")))
        elif event == "return" and frame.f_code.co_name in functions:
            order.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return order


def kill_self_after(count: int, *functions: str) -> None:
    """From now on, end as by `kill -9` once these functions have returned so often in all."""
    left = [count]

    def note(frame: FrameType, event: str, argument: object) -> None:
        name = getattr(argument, "__name__", "") if event == "c_return" else ""
        if event == "return":
            name = frame.f_code.co_name
        left[0] -= name in functions
        if left[0] == 0:
            kill_self()

    sys.setprofile(note)


@contextmanager
def beside(
    acts: Iterable[Callable[[], object]], *functions: str, before: bool = False
) -> Iterator[None]:
    """While another might act here: one act each time that one of those functions is left.

    Whether it gave something or failed; or each time `before` it is called. They are the system's.
    """
    events = {"c_call"} if before else {"c_return", "c_exception"}
    left = iter(acts)

    def note(_frame: FrameType, event: str, called: object) -> None:
        if event in events and getattr(called, "__name__", "") in functions:
            next(left, lambda: None)()

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """While this process can have so many more descriptors, and none beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = max(map(int, os.listdir("/dev/fd"))) + 1
    filled = []
    while (fd := os.open(os.devnull, os.O_RDONLY)) < top:
        filled.append(fd)
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filled:
            os.close(fd)


def forbid_renameat2(error: int = errno.ENOSYS) -> None:
    """From now on, for good, the kernel says that to renameat2(2); ENOSYS, as one without it."""
    program = [
        (_LOAD, 0, 0, 0),
        (_IF_EQUAL, 0, 1, _RENAMEAT2),
        (_RETURN, 0, 0, _ERROR | error),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    of = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((_NO_NEW_PRIVS, 1, 0), (_SET_SECCOMP, _FILTER, ctypes.addressof(of))):
        if libc.prctl(*map(ctypes.c_ulong, words), 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def take_own_mounts() -> None:
    """Give this process mounts that nobody else sees, as `unshare -m` does."""
    _unshare(_CLONE_NEWNS)
    mount("--make-rprivate", "/")


def take_own_users() -> None:
    """Let this process see every user but its own as one that nobody can tell from another."""
    me = os.geteuid()
    _unshare(_CLONE_NEWUSER)
    with open("/proc/self/uid_map", "w", encoding="ascii") as file:
        file.write(f"{me} {me} 1")


def among_own_processes(work: Callable[[], Any], *, proc: bool = True) -> Any:  # noqa: ANN401
    """What `work` gives where it sees no process but its children (`unshare --pid`)."""

    def as_first_process() -> Any:  # noqa: ANN401
        if proc:
            take_own_mounts()
            mount("-t", "proc", "none", "/proc")
        return work()

    def in_between() -> Any:  # noqa: ANN401
        _unshare(_CLONE_NEWPID)
        return in_child(as_first_process)

    return in_child(in_between)


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def mount(*words: str) -> None:
    """Run mount(8)."""
    subprocess.run(["mount", *words], check=True)


def put_layers(place: ThrowawayStore) -> None:
    """Mount an overlay on that store, with the store as its lower layer."""
    store, state = place.store_dir.path, place.state_dir
    for name in ("upper", "work"):
        os.mkdir(f"{state}/{name}")
    layers = f"lowerdir={store},upperdir={state}/upper,workdir={state}/work"
    mount("-t", "overlay", "-o", layers, "none", store)
