# SPDX-License-Identifier: MIT
"""The stand-in for who wants to look at it: see `tests/mac/enter`."""

import contextlib
import os
import signal
import subprocess
import sys

from mac import machine, root
from real import namespace as ns

_BASE = os.environ.get("MAC", "/var/tmp/storewarden-mac")  # noqa: S108 - a directory of root's
_PID = f"{_BASE}/pid"


def main(words: list[str]) -> None:
    if reason := root.missing():
        sys.exit(f"no stand-in here: {reason}")
    if words[:1] in (["--off"], ["--new"]):
        _switch_off()
        if words == ["--new"]:
            subprocess.run(["rm", "-rf", _BASE], check=True)
        return
    user = root.PERSON
    while words[:1] in (["--root"], ["--as"]):
        user = "root" if words[0] == "--root" else words[1]
        words = words[1 if words[0] == "--root" else 2 :]
    made, pid = _running()
    root.take_over_checkout(f"{made.top}{root.OWN_CHECKOUT}")
    activated = f"PATH={root.OWN_CHECKOUT}/.venv/bin:{machine.PATH}"
    terminal = [*machine.in_terminal(user), "env", "-C", root.ACCOUNTS[user][2], activated]
    inside = [*machine.entering(made, pid), *terminal, *(words or ["sh", "-i"])]
    os.execvp(inside[0], inside)  # noqa: S606 - it is that command from now on


def _running() -> tuple[root.Root, int]:
    made, shared = root.Root(f"{_BASE}/disk"), f"{_BASE}/shared"
    if not os.path.exists(shared):
        os.makedirs(_BASE, exist_ok=True)
        os.chmod(_BASE, 0o755)  # noqa: S103 - ordinary users run things in it
        root.make(made.base)
        machine.furnished(shared)
    pid = _pid()
    if pid is None:
        os.mkfifo(f"{_BASE}/input") if not os.path.exists(f"{_BASE}/input") else None
        # Open for both, so that it never ends.
        stdin = os.open(f"{_BASE}/input", os.O_RDWR)
        holder = subprocess.Popen(
            machine.boot_words(made, shared, [root.UID]),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # else it would keep open what this one was given
            start_new_session=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", "the stand-in does not boot"
        pid = holder.pid
        with open(_PID, "w", encoding="ascii") as file:
            file.write(str(pid))
    return made, pid


def _pid() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        pid = int(ns.read(_PID))
        if ns.read(f"/proc/{pid}/comm").strip() == "unshare":
            return pid
    return None


def _switch_off() -> None:
    if pid := _pid():
        os.kill(pid, signal.SIGKILL)
        ns.wait_until(lambda: _pid() is None, "the end of it")


if __name__ == "__main__":
    main(sys.argv[1:])
