# SPDX-License-Identifier: MIT
"""Trees as a hostile builder would make them, taken and purged as the engine does it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from storewarden.helper.purge import Private, Purged, new_private, purge, remove_from_store
from storewarden.store.entries import PRIVATE_PREFIX, open_directory
from storewarden.throwaway import ThrowawayStore


@contextmanager
def taken(place: ThrowawayStore, base_name: str) -> Iterator[Private]:
    """While that entry lies in a private directory."""
    store_fd = open_directory(place.store_dir.path)
    try:
        with new_private(store_fd) as private:
            remove_from_store(store_fd, base_name, private)
            yield private
    finally:
        os.close(store_fd)


def take_and_purge(place: ThrowawayStore, base_name: str) -> Purged:
    """Remove that entry whatever it is."""
    with taken(place, base_name) as private:
        return purge(private, Purged())


def left_private(place: ThrowawayStore) -> list[str]:
    """The private directories that still stand in the store."""
    return [n for n in os.listdir(place.store_dir.path) if n.startswith(PRIVATE_PREFIX)]


def dig(top: str, levels: int) -> None:
    """Make a directory with so many levels below it: far longer than a path may be."""
    os.mkdir(top)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def spread(top: str, directories: int, files: int) -> None:
    """Make a directory with so many directories in it, each with so many files."""
    for number in range(directories):
        os.makedirs(f"{top}/{number}")
        for file in range(files):
            write(f"{top}/{number}/{file}")


def write(path: str, content: str = "content\n") -> None:
    """Make a file."""
    with open(path, "x", encoding="utf-8") as file:
        file.write(content)


def descriptors() -> set[str]:
    """The descriptors that this process has open."""
    return set(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
