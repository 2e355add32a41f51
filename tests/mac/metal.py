# SPDX-License-Identifier: MIT
"""What `storewarden.host` makes of this Mac itself: `python -m mac.metal DIRECTORY`.

Works in that directory, which it empties again; prints a JSON list of what was looked at: whether
it is as storewarden takes it to be (null: it copes with both), and what was seen.
"""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from storewarden import host

Seen = tuple[bool | None, str]
_NOBODYS_UID = 4242


def sockets(place: str) -> Iterator[Seen]:
    """Who is at the other end of a socket."""
    own = os.geteuid(), os.getpid()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with suppress(OSError):
            yield None, f"of a socket that is not connected the peer is {host.peer(client)}"
        server.bind(f"{place}/socket")
        server.listen()
        client.connect(f"{place}/socket")
        accepted = server.accept()[0]
        yield host.peer(accepted) == own, f"who connected is {host.peer(accepted)}, {own} did"
        yield host.peer(client) == own, f"who listens is {host.peer(client)}, {own} does"
        accepted.close()
    os.unlink(f"{place}/socket")
    one, other = socket.socketpair()
    with one, other:
        yield host.peer(one) == own, f"the peer of a socketpair is {host.peer(one)}"
        found = os.fstat(one.fileno())
        yield found.st_uid == own[0], f"a socketpair belongs to uid {found.st_uid}"
        yield not one.getsockname(), f"its name is {one.getsockname()!r}"


def processes(place: str) -> Iterator[Seen]:
    """Whose processes run."""
    del place
    own = host.processes_of([os.geteuid()])
    yield own is not None and os.getpid() in own, f"of this user {len(own or [])}, this one too"
    roots = host.processes_of([0])
    yield roots is not None and 1 in roots, f"of root {len(roots or [])}, pid 1 among them"
    nobodys = host.processes_of([_NOBODYS_UID])
    yield nobodys == [], f"of uid {_NOBODYS_UID}, which nobody has: {nobodys}"
    child = subprocess.Popen(["/bin/sh", "-c", "exit"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    listed = child.pid in (host.processes_of([os.geteuid()]) or [])
    child.wait()
    yield None, f"a child that may just have ended is {'' if listed else 'not '}listed"


def mounts(place: str) -> Iterator[Seen]:
    """What is mounted where."""
    found = host.mounts()
    yield found is not None, f"mount(8) is understood: {len(found or [])} mounts"
    for path in ("/nix/store", place):
        point, kind = host.mount_of(os.path.realpath(path), found or [])[:2]
        yield kind == "apfs", f"{path} is on {point}, of type {kind}"


def renames(place: str) -> Iterator[Seen]:
    """Moving a name only to where there is none."""
    for name in ("a", "b"):
        with open(f"{place}/{name}", "w", encoding="ascii") as file:
            file.write(name)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        number = _refused(lambda: host.rename_exclusive(fd, "a", fd, "b"))
        yield number == errno.EEXIST, f"onto another file: {_name(number)}"
        kept = open(f"{place}/b", encoding="ascii").read() == "b" and os.path.exists(f"{place}/a")  # noqa: SIM115
        yield kept, "both are as they were"
        number = _refused(lambda: host.rename_exclusive(fd, "a", fd, "c"))
        yield number is None, f"to a free name: {_name(number)}"
        yield not os.path.exists(f"{place}/a"), "it is not at its old name any more"
        os.makedirs(f"{place}/tree/App.app/Contents")
        os.makedirs(f"{place}/private")
        os.chmod(f"{place}/tree/App.app", 0o555)  # noqa: S103 - as Nix leaves it
        os.chmod(f"{place}/tree", 0o555)  # noqa: S103 - likewise
        number = _refused(lambda: host.rename_exclusive(fd, "tree", fd, "private/tree"))
        # Anybody else must be able to write to a directory that is to get another parent.
        right = number is None if os.geteuid() == 0 else None
        yield right, f"a directory of mode 0555 with an .app: {_name(number)}"
        for name in ("private/tree", "tree"):
            with suppress(FileNotFoundError):
                os.chmod(f"{place}/{name}", 0o755)  # noqa: S103 - to be removed
                os.chmod(f"{place}/{name}/App.app", 0o755)  # noqa: S103 - likewise
        number = _refused(lambda: os.unlink(f"{place}/private"))
        yield number == errno.EPERM, f"unlink(2) of a directory: {_name(number)}"
    finally:
        os.close(fd)


def flags(place: str) -> Iterator[Seen]:
    """Files that their owner made immutable."""
    path = f"{place}/immutable"
    os.makedirs(path)
    with open(f"{path}/file", "w", encoding="ascii"):
        pass
    subprocess.run(["/usr/bin/chflags", "uchg", f"{path}/file", path], check=True)
    fd = os.open(f"{path}/file", os.O_RDONLY)
    try:
        number = _refused(lambda: os.unlink(f"{path}/file"))
        yield number == errno.EPERM, f"it cannot be removed: {_name(number)}"
        above = os.open(place, os.O_RDONLY)
        number = _refused(lambda: host.rename_exclusive(above, "immutable", above, "moved"))
        os.close(above)
        yield number == errno.EPERM, f"nor moved: {_name(number)}"
        directory = os.open(path, os.O_RDONLY)
        cleared = [host.clear_flags(one) for one in (fd, directory, fd)]
        os.close(directory)
        yield cleared == [True, True, False], f"its flags are cleared, once: {cleared}"
        number = _refused(lambda: os.unlink(f"{path}/file"))
        yield number is None, f"then it can be removed: {_name(number)}"
    finally:
        os.close(fd)


def files(place: str) -> Iterator[Seen]:
    """Locks, syncs, times of change, names."""
    path = f"{place}/file"
    with open(path, "w", encoding="ascii") as one, open(path, encoding="ascii") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        number = _refused(lambda: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB))
        yield number == errno.EWOULDBLOCK, f"a lock that is held: {_name(number)}"
        number = _refused(lambda: host.sync(one.fileno()))
        yield number is None, f"a file is synced: {_name(number)}"
        number = _refused(lambda: fcntl.fcntl(one.fileno(), 51))
        yield None, f"F_FULLFSYNC: {_name(number)}"
    os.symlink("file", f"{place}/link")
    number = _refused(lambda: os.open(f"{place}/link", os.O_DIRECTORY | os.O_NOFOLLOW))
    yield number in {errno.ELOOP, errno.ENOTDIR}, f"a link opened as a directory: {_name(number)}"
    before = os.stat(place).st_mtime_ns
    os.rename(path, f"{place}/renamed")
    yield os.stat(place).st_mtime_ns != before, "a rename changes the time of its directory"
    yield None, f"its times of change end in {os.stat(place).st_mtime_ns % 1000:03} ns"
    yield None, f"case is {'not ' if os.path.exists(f'{place}/RENAMED') else ''}told apart"
    number = _refused(lambda: os.mkdir(os.fsencode(place) + b"/\xff"))
    yield None, f"a name that is not UTF-8: {_name(number)}"


LOOKS: tuple[Callable[[str], Iterator[Seen]], ...] = (
    sockets,
    processes,
    mounts,
    renames,
    flags,
    files,
)


def _refused(act: Callable[[], object]) -> int | None:
    try:
        act()
    except OSError as cause:
        return cause.errno
    return None


def _name(number: int | None) -> str:
    return "done" if number is None else errno.errorcode.get(number, str(number))


def main(directory: str) -> None:
    """Look at all of it."""
    seen: list[Seen] = []
    for look in LOOKS:
        place = f"{directory}/{look.__name__}"
        os.mkdir(place)
        try:
            for right, what in look(place):
                seen.append((right, f"{look.__name__}: {what}"))
        except Exception as cause:  # noqa: BLE001 - whatever it is, it is what was to be seen
            seen.append((False, f"{look.__name__}: {type(cause).__name__}: {cause}"))
        subprocess.run(["/bin/rm", "-rf", place], check=False)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
