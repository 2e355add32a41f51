# SPDX-License-Identifier: MIT
"""Every Python of the stand-in starts with this, isolated or not, and is a Mac's from then on."""

import ctypes
import fcntl
import importlib.util
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_LINUX = ("psutil", "watchdog")
"""They choose what they are made of when they are loaded, and here it is Linux below."""
_ABSENT = {
    os: "fdatasync pipe2 pidfd_open memfd_create getxattr listxattr setxattr removexattr setns"
    " unshare eventfd copy_file_range splice posix_fadvise posix_fallocate sched_setaffinity"
    " sched_getaffinity O_PATH O_TMPFILE O_DIRECT O_NOATIME getresuid getresgid setresuid",
    select: "epoll",
    signal: "pidfd_send_signal sigtimedwait sigwaitinfo",
    socket: "SO_PEERCRED SO_PASSCRED",
}
_libc = ctypes.CDLL(None, use_errno=True)
_stat = os.stat
_AT_FDCWD = -100


class _Stat:
    """What stat(2) says, with st_flags besides."""

    def __init__(self, found: os.stat_result, flags: int) -> None:
        self._found, self.st_flags = found, flags

    def __getattr__(self, name: str) -> object:
        return getattr(self._found, name)

    def __getitem__(self, at: int) -> float:
        return self._found[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stat) and self._found == other._found

    def __hash__(self) -> int:
        return hash(self._found)

    def __repr__(self) -> str:
        return f"{self._found!r} with flags {self.st_flags}"


def _with_flags(look: Callable[..., os.stat_result], *, follow: bool) -> Callable[..., object]:
    def looked(
        what: "int | str | bytes | os.PathLike[str]",
        *,
        dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> object:
        link = not (follow and follow_symlinks)
        if isinstance(what, int):
            return _Stat(look(what), _libc.standin_flags(what, None, 1))
        name, at = os.fsencode(what), _AT_FDCWD if dir_fd is None else dir_fd
        if dir_fd is not None:
            found = _stat(what, dir_fd=dir_fd, follow_symlinks=not link)
        else:
            found = _stat(what, follow_symlinks=not link)
        return _Stat(found, _libc.standin_flags(at, name, not link))

    return looked


class _Finder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in _LINUX:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            vars(spec.loader)["exec_module"] = _as_linux(spec.loader.exec_module)
        return spec


def _as_linux(load: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def loaded(module: ModuleType) -> None:
        before, sys.platform = sys.platform, "linux"
        try:
            load(module)
        finally:
            sys.platform = before
        if module.__name__ == "psutil":
            vars(module)["PROCFS_PATH"] = "/opt/linux/proc"

    return loaded


def _chflags(path: str, flags: int, *, follow_symlinks: bool = True) -> None:
    call = _libc.chflags if follow_symlinks else _libc.lchflags
    if call(os.fsencode(path), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _become_a_mac() -> None:
    import selectors  # noqa: F401, PLC0415 - it looks for epoll as it is loaded
    import subprocess  # noqa: F401, PLC0415 - likewise

    sys.meta_path.insert(0, _Finder)
    for module, names in _ABSENT.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    vars(os).update(chflags=_chflags, lchflags=partial(_chflags, follow_symlinks=False))
    vars(os).update(
        stat=_with_flags(os.stat, follow=True),
        lstat=_with_flags(os.lstat, follow=False),
        fstat=_with_flags(os.fstat, follow=True),
    )
    for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        able.add(os.stat)
    # Linux opens a link itself with O_PATH, which is O_SYMLINK's number by chance.
    vars(os).update(O_EVTONLY=os.O_RDONLY, O_SYMLINK=0x200000 | os.O_NOFOLLOW)
    vars(fcntl).update(F_GETPATH=50, F_FULLFSYNC=51, F_NOCACHE=48)
    sys.platform = "darwin"


if importlib.util.find_spec("_ctypes") is not None:
    _become_a_mac()
