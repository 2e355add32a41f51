# SPDX-License-Identifier: MIT
"""Programs that stand in for Nix's own: real executables that answer what a test tells them to."""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psutil

SHELL = "#!/bin/sh\n"


def write_program(path: str, body: str) -> str:
    """An executable shell script at `path`; gives its path."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(SHELL + body)
    return path


def write_answering_nix(path: str, valid: Iterable[str] = ()) -> str:
    """A `nix` whose path-info knows these full paths as valid, and no other."""
    known = "|".join(valid)
    return write_program(
        path,
        f"""
separator='{{'
for word in "$@"; do
    case $word in
    /*)
        case '|{known}|' in
        *"|$word|"*) said='{{"narHash":"sha256-x"}}' ;;
        *) said=null ;;
        esac
        printf '%s"%s":%s' "$separator" "$word" "$said"
        separator=,
        ;;
    esac
done
echo '}}'
""",
    )


def ends(pid: int) -> bool:
    """Whether a process is at its end, or comes to it soon; one that nobody reaps has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """Somebody who listens there."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield listener
