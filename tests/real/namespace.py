# SPDX-License-Identifier: MIT
"""A place of its own for a Nix: private mounts, and private process ids.

Private mounts, so that nothing lands in the machine's own /nix. Private process ids, because Nix
ends a build by sending SIGKILL to every process of its build user: without them it would end the
builds of another Nix on the same machine as well. All of it lives only as long as the process
whose standard input we hold, so nothing outlives the tests even when those are killed.
"""

import contextlib
import os
import pwd
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL, Signals

_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# The first process ignores SIGCHLD: the kernel then reaps the orphans that it inherits.
_FIRST = "echo ready; trap '' CHLD; exec cat"


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
    started: list[subprocess.Popen[bytes]]


def refusal() -> str | None:
    """Why no namespace can be made here, or None."""
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"unshare is refused: {tried.stderr.strip()}"


def open_namespace(base: str, mounts: str) -> Namespace:
    """A new namespace in which the shell commands `mounts` have been run."""
    script = f"{mounts}\n{_FIRST}"
    pipe = subprocess.PIPE
    holder = subprocess.Popen([*_UNSHARE, "sh", "-ec", script], stdin=pipe, stdout=pipe)
    namespace = Namespace(base, holder, [])
    assert holder.stdout is not None
    if holder.stdout.readline() != b"ready\n":
        close(namespace)
        raise RuntimeError(f"the private namespace could not be set up by:\n{mounts}")
    return namespace


def close(namespace: Namespace) -> None:
    """End every process in it; its mounts go with the last of them."""
    holder = namespace.holder
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.close()
    holder.wait(10)
    holder.stdout.close()
    _reap(namespace)


def end_everything(namespace: Namespace) -> None:
    """SIGKILL to all that runs in it, but not to its first process."""
    run(namespace, ["sh", "-c", "kill -KILL -1"])
    _reap(namespace)


def run(
    namespace: Namespace, command: Sequence[str], *, user: str = "root", seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. One that takes longer is killed; its status is 124 or 137 then."""
    # `timeout` inside: killing nsenter would leave the command alive, with our pipes in its hands.
    bounded = ["timeout", "--kill-after=1", str(seconds), *_as_user(user), *command]
    return subprocess.run(
        _enter(namespace, bounded),
        env=_environment(namespace, user),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
    )


def start(namespace: Namespace, command: Sequence[str], *, log: str, user: str = "root") -> Child:
    """Start a command; its pid and then both its outputs go to the new file `log`."""
    # What a shell put into the background ignores SIGINT, and so would our children.
    exact = ["env", "--default-signal=INT", *_as_user(user), *command]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            _enter(namespace, ["sh", "-c", 'echo $$ && exec "$@"', "sh", *exact]),
            env=_environment(namespace, user),
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
    with subprocess.Popen(_enter(namespace, command), stdin=pipe, stdout=pipe) as process:
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
    proc = f"/proc/{namespace.holder.pid}/root/proc"
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


def _enter(namespace: Namespace, command: Sequence[str]) -> list[str]:
    here = f"/proc/{namespace.holder.pid}/ns"
    return ["nsenter", f"--mount={here}/mnt", f"--pid={here}/pid_for_children", *command]


def _as_user(user: str) -> list[str]:
    if user == "root":
        return []
    entry = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def _environment(namespace: Namespace, user: str) -> dict[str, str]:
    """None of ours: a NIX_REMOTE or a PYTHONPATH of the developer's has no business inside."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": f"{namespace.base}/home/{user}",
        "TMPDIR": f"{namespace.base}/scratch",
        "PYTHONPATH": f"{namespace.base}/source/src",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _reap(namespace: Namespace) -> None:
    for process in namespace.started:
        # nsenter stops itself when its command is stopped, and does not notice that it goes on.
        process.send_signal(SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, SIGKILL)
            process.wait()
    namespace.started.clear()
