# SPDX-License-Identifier: MIT
"""A place of its own for a Nix: private mounts, and private process ids.

One is made by `unshare` (real.unshared), or by booting a root (lab.booting).

Private mounts, so that nothing lands in the machine's own /nix. Private process ids, because Nix
ends a build by sending SIGKILL to every process of its build user: without them it would end the
builds of another Nix on the same machine as well. All of it lives only as long as the process
whose standard input we hold, so nothing outlives the tests even when those are killed.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL, Signals


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    uid: int
    command: str


@dataclass(frozen=True, slots=True)
class Child:
    """A command started in a namespace and not waited for; `pid` is the one it has inside."""

    process: subprocess.Popen[bytes]
    pid: int


@dataclass(frozen=True, slots=True)
class Namespace:
    base: str
    """A directory that every user may enter, of the same name inside and outside."""
    holder: subprocess.Popen[bytes]
    first: int
    """A process that lives as long as it does, by its pid outside."""
    enter: tuple[str, ...]
    """The command that runs another one inside."""
    accounts: str
    """The directory with its `passwd`, seen from outside."""
    sources: str
    """Where storewarden's sources are, seen from inside."""
    started: list[subprocess.Popen[bytes]]


def end_everything(namespace: Namespace) -> None:
    """SIGKILL to all that runs in it, but not to its first process."""
    run(namespace, ["sh", "-c", "kill -KILL -1"])
    reap(namespace)


def run(
    namespace: Namespace, command: Sequence[str], *, user: str = "root", seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. One that takes longer is killed; its status is 124 or 137 then."""
    # `timeout` inside: killing nsenter would leave the command alive, with our pipes in its hands.
    bounded = ["timeout", "--kill-after=1", str(seconds), *as_user(namespace, user), *command]
    return subprocess.run(
        [*namespace.enter, *bounded],
        env=environment(namespace, user),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )


def start(namespace: Namespace, command: Sequence[str], *, log: str, user: str = "root") -> Child:
    """Start a command; its pid and then both its outputs go to the new file `log`."""
    # What a shell put into the background ignores SIGINT, and so would our children.
    exact = ["env", "--default-signal=INT", *as_user(namespace, user), *command]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*namespace.enter, "sh", "-c", 'echo $$ && exec "$@"', "sh", *exact],
            env=environment(namespace, user),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    namespace.started.append(process)
    wait_until(lambda: "\n" in read(log), f"{command[0]} to start")
    return Child(process, int(read(log).split("\n", 1)[0]))


@contextlib.contextmanager
def holding(namespace: Namespace, command: Sequence[str]) -> Iterator[None]:
    """While a command runs that says "held" once it has what it wants, and ends with its input."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*namespace.enter, *command], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield


def flocked(namespace: Namespace, path: str) -> contextlib.AbstractContextManager[None]:
    """While another process holds the flock on that file."""
    return holding(namespace, ["flock", "--exclusive", path, "sh", "-c", "echo held; exec cat"])


def kill(namespace: Namespace, which: Signals, *pids: int) -> None:
    """Send a signal to processes, by their pids inside; to one that has ended is fine."""
    run(namespace, ["sh", "-c", f"kill -{which.value} {' '.join(map(str, pids))}"])


def processes(namespace: Namespace) -> list[Process]:
    """All that lives in it. Not zombies: they write no more, and only wait for their parent."""
    found = []
    proc = f"/proc/{namespace.first}/root/proc"
    for pid in filter(str.isdigit, os.listdir(proc)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = (line.split(":", 1) for line in read(f"{proc}/{pid}/status").splitlines())
            status = {name: value.split() for name, value in lines}
            if status["State"][0] != "Z":
                parent, uid = int(status["PPid"][0]), int(status["Uid"][0])
                found.append(Process(int(pid), parent, uid, status["Name"][0]))
    return found


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Return as soon as it has happened."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def read(path: str) -> str:
    """The text of a file; bytes that are not UTF-8 are escaped."""
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.read()


def as_user(namespace: Namespace, user: str) -> list[str]:
    """The command that runs another one as that user."""
    if user == "root":
        return []
    lines = (line.split(":") for line in read(f"{namespace.accounts}/passwd").splitlines())
    [(uid, gid)] = [(fields[2], fields[3]) for fields in lines if fields[0] == user]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"]


def environment(namespace: Namespace, user: str) -> dict[str, str]:
    """None of ours: a NIX_REMOTE or a PYTHONPATH of the developer's has no business inside."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:"
        # Where Nix is that its own installers have put there, as on a Mac.
        "/nix/var/nix/profiles/default/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": f"{namespace.base}/home/{user}",
        "TMPDIR": f"{namespace.base}/scratch",
        "PYTHONPATH": namespace.sources,
        # The sources are somebody's checkout, and often read by another Python than the tests'.
        "PYTHONPYCACHEPREFIX": f"{namespace.base}/pycache",
    }


def reap(namespace: Namespace) -> None:
    """Wait for all that was started in it and has been ended."""
    for process in namespace.started:
        # nsenter stops itself when its command is stopped, and does not notice that it goes on.
        process.send_signal(SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, SIGKILL)
            process.wait()
    namespace.started.clear()
