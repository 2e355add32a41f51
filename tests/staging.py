# SPDX-License-Identifier: MIT
"""`storewarden setup --root DIR` as a packager runs it: by an ordinary user."""

import os
import signal
import subprocess
from pathlib import Path

UNITS = "etc/systemd/system"
WATCHER = f"{UNITS}/storewarden.service"
HELPER = f"{UNITS}/storewarden-helper.service"
CONFIG = "etc/storewarden/config.toml"
MANIFEST = "etc/storewarden/manifest.json"
USER = 65534 if os.geteuid() == 0 else os.geteuid()


def words(python: str, top: str, *more: str) -> list[str]:
    return [python, "-I", "-B", "-m", "storewarden", "setup", "--root", top, *more]


def run(python: str, top: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        words(python, top, *more),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
        user=USER,
        env={"PATH": "/usr/bin:/bin"},
    )


def set_up(python: str, top: str, *more: str) -> str:
    done = run(python, top, *more)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def tree(top: str) -> dict[str, tuple[int, bytes]]:
    """Mode and content, or target, of all below that directory."""
    found = {}
    for place, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = f"{place}/{name}"
            if os.path.islink(path):
                content = os.fsencode(os.readlink(path))
            else:
                content = Path(path).read_bytes() if os.path.isfile(path) else b""
            found[path.removeprefix(top)] = (os.lstat(path).st_mode, content)
    return found


def picture(top: str) -> dict[str, tuple[int, int]]:
    """Inode and time of change of all below that directory."""
    places = (f"{place}/{name}" for place, ds, fs in os.walk(top) for name in (*ds, *fs))
    return {path: (os.lstat(path).st_ino, os.lstat(path).st_ctime_ns) for path in places}


def interrupted_at(python: str, top: str, path: str, how: signal.Signals, *more: str) -> str:
    """What it says when it gets that signal as soon as `path` has come, or gone."""
    there = os.path.lexists(f"{top}{path}")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words(python, top, *more), cwd="/", user=USER, stdout=subprocess.DEVNULL, stderr=pipe
    ) as process:
        ended = False
        while os.path.lexists(f"{top}{path}") is there:
            assert not ended, f"it ended, and {path} has neither come nor gone"
            ended = process.poll() is not None  # what it did last is looked at after that
        process.send_signal(how)
        assert process.stderr is not None
        return process.stderr.read().decode()
