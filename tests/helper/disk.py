# SPDX-License-Identifier: MIT
"""What a disk holds, and what a run that strace has recorded did to it, operation by operation."""

import itertools
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

CHANGING = (
    *("open", "openat", "creat", "mkdir", "mkdirat", "mknod", "mknodat", "rmdir"),
    *("unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat"),
    *("symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown"),
    *("fchownat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "truncate"),
    *("ftruncate", "fallocate", "copy_file_range", "sendfile"),
    *("fsync", "fdatasync", "sync", "syncfs", "sync_file_range"),
)
"""System calls that change files, or have it on disk."""
_OPENING = ("close", "dup", "dup2", "dup3", "fcntl", "umask")
_LONGEST = 1 << 20
TRACED = (
    *("-xx", "-s", str(_LONGEST), "-e", "signal=none", "-e"),
    "trace=" + ",".join(f"?{call}" for call in (*CHANGING, *_OPENING)),
)
"""As strace is told to record what `follow` reads."""
_CALL = re.compile(rb"^(\w+)\((.*)\) += (\d+)", re.MULTILINE)
_HERE = "AT_FDCWD"
ALL = 0
"""The node that stands for all of them."""


@dataclass(slots=True)
class Node:
    """A file, a link or a directory."""

    mode: int
    uid: int
    gid: int
    data: bytes = b""
    """Of a link what it points to."""
    names: dict[str, int] = field(default_factory=dict)
    """Of a directory the nodes in it."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on files: make, remove, rename, write, size, mode, sync."""

    what: str
    node: int
    places: tuple[tuple[int, str], ...] = ()
    """The directories that it changes, and the name in each."""
    number: int = 0
    """Mode, size or offset."""
    data: bytes = b""

    def has_on_disk(self, other: "Op") -> bool:
        """Whether this, a sync, has that on disk, which came before it."""
        if self.what != "sync" or self.node == ALL:
            return self.what == "sync"
        nodes = [directory for directory, _ in other.places] or [other.node]
        return self.node in nodes


@dataclass(slots=True)
class Disk:
    """What lies below a directory; a node that was there has its inode's number."""

    root: int
    nodes: dict[int, Node]

    def copy(self) -> "Disk":
        """Another one to be changed."""
        nodes = {n: replace(node, names={**node.names}) for n, node in self.nodes.items()}
        return Disk(self.root, nodes)

    def find(self, path: str, start: int | None = None) -> int | None:
        """The node at that relative path, if there is one."""
        here = self.root if start is None else start
        for part in path.split("/"):
            if part not in {"", "."}:
                names = self.nodes[here].names
                if part not in names:
                    return None
                here = names[part]
        return here

    def below(self, start: int, path: str = "") -> dict[str, tuple[int, int, int, bytes]]:
        """All of a node, to be compared."""
        node = self.nodes[start]
        found = {path: (node.mode, node.uid, node.gid, node.data)}
        for name, child in node.names.items():
            found |= self.below(child, f"{path}/{name}")
        return found

    def do(self, op: Op) -> None:
        """Change it so; not at all, where what is there does not allow it."""
        names = [self.nodes[at].names for at, _ in op.places if at in self.nodes]
        if len(names) < len(op.places):
            return
        node = self.nodes.get(op.node)
        match op.what, [name for _, name in op.places]:
            case "make", [name] if name not in names[0]:
                self.nodes[op.node] = Node(op.number, os.geteuid(), os.getegid())
                names[0][name] = op.node
            case "remove", [name] if names[0].get(name) == op.node and node and not node.names:
                del names[0][name]
            case "rename", [old, new] if names[0].get(old) == op.node and new not in names[1]:
                names[1][new] = names[0].pop(old)
            case "mode", [] if node:
                node.mode = stat.S_IFMT(node.mode) | op.number
            case "size", [] if node:
                node.data = node.data[: op.number].ljust(op.number, b"\0")
            case "write", [] if node:
                before = node.data[: op.number].ljust(op.number, b"\0")
                node.data = before + op.data + node.data[op.number + len(op.data) :]


def read_disk(top: str) -> Disk:
    """What lies below that directory now."""
    nodes: dict[int, Node] = {}

    def look(path: str) -> int:
        found = os.lstat(path)
        node = nodes[found.st_ino] = Node(found.st_mode, found.st_uid, found.st_gid)
        if stat.S_ISDIR(found.st_mode):
            node.names = {name: look(f"{path}/{name}") for name in sorted(os.listdir(path))}
        elif stat.S_ISLNK(found.st_mode):
            node.data = os.fsencode(os.readlink(path))
        else:
            with open(path, "rb") as file:
                node.data = file.read()
        return found.st_ino

    return Disk(look(top), nodes)


def make_disk(disk: Disk, top: str) -> dict[int, int]:
    """Make it in that empty directory, owners and modes too; the inode that each node has now."""
    made: dict[int, int] = {}

    def make(number: int, path: str) -> None:
        node = disk.nodes[number]
        if stat.S_ISLNK(node.mode):
            os.symlink(node.data, os.fsencode(path))
        elif stat.S_ISDIR(node.mode):
            if number != disk.root:
                os.mkdir(path)
            for name, child in node.names.items():
                make(child, f"{path}/{name}")
        else:
            with open(path, "xb") as file:
                file.write(node.data)
        os.lchown(path, node.uid, node.gid)
        if not stat.S_ISLNK(node.mode):
            os.chmod(path, stat.S_IMODE(node.mode))
        made[number] = os.lstat(path).st_ino

    make(disk.root, top)
    return made


def follow(disk: Disk, top: str, trace: bytes) -> list[Op]:
    """The operations of a process that strace recorded as TRACED; they are done to the disk, too.

    Left out is what was done outside of the directory `top`, whose disk it is, and to the bytes of
    files that had lost their last name.
    """
    one = _Follower(disk, top)
    ops = []
    for call, arguments, result in _CALL.findall(trace):
        words = _from_here(name := call.decode(), arguments.decode().split(", "))
        for op in one.ops(name, words, int(result)):
            disk.do(op)
            ops.append(op)
    return ops


class _Follower:
    def __init__(self, disk: Disk, top: str) -> None:
        self.disk, self.top = disk, top
        self.opened: dict[int, int] = {}
        """The node behind each descriptor."""
        self.offsets: dict[int, int] = {}
        """Where the next write goes; at the end where there is none."""
        self.new = itertools.count(min(*disk.nodes, 0) - 1, -1)
        self.umask = os.umask(0)
        os.umask(self.umask)

    def ops(self, call: str, words: list[str], result: int) -> Iterator[Op]:
        """What that call did."""
        match call, words:
            case (("open" | "openat"), [at, path, flags, *mode]):
                yield from self.open(self.place(at, path), flags, mode, result)
            case (("mkdir" | "mkdirat"), [at, path, mode]):
                yield from self.make(self.place(at, path), stat.S_IFDIR, mode)
            case (("rmdir" | "unlink" | "unlinkat"), [at, path, *_]):
                yield from self.remove(self.place(at, path))
            case (("rename" | "renameat" | "renameat2"), [at, path, to, new, *_]):
                yield from self.rename(self.place(at, path), self.place(to, new))
            case (("chmod" | "fchmodat"), [at, path, mode, *_]):
                if (place := self.place(at, path)) is not None:
                    node = self.disk.nodes[place[0]].names[place[1]]
                    yield Op("mode", node, number=int(mode, 8))
            case (("sync" | "syncfs"), _):
                yield Op("sync", ALL)
            case _ if call in _OPENING:
                self.note(call, words, result)
            case _, [fd, *_] if (known := self.opened.get(int(fd))) is not None:
                yield from self.ops_of(known, call, words, result)

    def note(self, call: str, words: list[str], result: int) -> None:
        """What it changed in the process alone."""
        match call, words:
            case "umask", [mask]:
                self.umask = int(mask, 8)
            case "close", [fd]:
                self.opened.pop(int(fd), None)
            case (("dup" | "dup2" | "dup3"), [fd, *_]) | ("fcntl", [fd, "F_DUPFD_CLOEXEC", *_]):
                self.opened.pop(result, None)
                if (of := self.opened.get(int(fd))) is not None:
                    self.opened[result] = of

    def ops_of(self, node: int, call: str, words: list[str], result: int) -> Iterator[Op]:
        """What it did by a descriptor of that node."""
        match call, words:
            case "write", [fd, data, _]:
                offset = self.offsets.get(int(fd), len(self.disk.nodes[node].data))
                if int(fd) in self.offsets:
                    self.offsets[int(fd)] += result
                yield from self.data("write", node, offset, _bytes(data)[:result])
            case "pwrite64", [_, data, _, offset]:
                yield from self.data("write", node, int(offset), _bytes(data)[:result])
            case "ftruncate", [_, size]:
                yield from self.data("size", node, int(size))
            case "fchmod", [_, mode]:
                yield Op("mode", node, number=int(mode, 8))
            case (("fsync" | "fdatasync"), _):
                yield Op("sync", node)
            case "fchown", [_, uid, gid]:  # SQLite gives its files the database's owner
                assert (int(uid), int(gid)) == (os.geteuid(), os.getegid())
            case _:
                raise AssertionError(f"{call} is not followed yet: {words}")

    def place(self, at: str, path: str) -> tuple[int, str] | None:
        """The directory, and the name in it; None where that is elsewhere."""
        name = os.fsdecode(_bytes(path))
        start: int | None = self.disk.root
        if not name.startswith("/"):
            start = self.opened.get(int(at)) if at != _HERE else None
        elif name == self.top or name.startswith(f"{self.top}/"):
            name = name.removeprefix(self.top)
        else:
            return None
        directory, _, name = name.rstrip("/").rpartition("/")
        node = None if start is None else self.disk.find(directory, start)
        return None if node is None else (node, name)

    def open(
        self, place: tuple[int, str] | None, flags: str, mode: list[str], result: int
    ) -> Iterator[Op]:
        self.opened.pop(result, None)
        self.offsets.pop(result, None)
        if place is None:
            return
        node = self.disk.find(place[1], place[0])
        if node is None:
            assert "O_CREAT" in flags, f"{place} was opened, and is not known"
            [made] = self.make(place, stat.S_IFREG, *mode)
            yield made
            node = made.node
        elif "O_TRUNC" in flags:
            yield from self.data("size", node, 0)
        self.opened[result] = node
        if "O_APPEND" not in flags:
            self.offsets[result] = 0

    def data(self, what: str, node: int, number: int, data: bytes = b"") -> Iterator[Op]:
        if any(node in one.names.values() for one in self.disk.nodes.values()):
            yield Op(what, node, (), number, data)

    def make(self, place: tuple[int, str] | None, kind: int, mode: str) -> Iterator[Op]:
        if place:
            yield Op("make", next(self.new), (place,), kind | (int(mode, 8) & ~self.umask))

    def remove(self, place: tuple[int, str] | None) -> Iterator[Op]:
        if place:
            yield Op("remove", self.disk.nodes[place[0]].names[place[1]], (place,))

    def rename(self, old: tuple[int, str] | None, new: tuple[int, str] | None) -> Iterator[Op]:
        assert bool(old) == bool(new), "renamed into another tree, or out of one"
        if old and new:
            yield Op("rename", self.disk.nodes[old[0]].names[old[1]], (old, new))


def _from_here(call: str, words: list[str]) -> list[str]:
    """As its sibling has it that is told a directory too."""
    if call in {"open", "mkdir", "rmdir", "unlink", "chmod"}:
        return [_HERE, *words]
    return [_HERE, words[0], _HERE, words[1]] if call == "rename" else words


def _bytes(word: str) -> bytes:
    assert word.endswith('"'), f"{word[:80]} was not recorded whole"
    return bytes.fromhex(word.strip('"').replace("\\x", ""))
