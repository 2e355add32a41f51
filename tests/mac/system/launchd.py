# SPDX-License-Identifier: MIT
"""A launchd: the first process of the stand-in, which starts its jobs and keeps them alive.

It does what launchd.plist(5) says of the keys that are used here, and answers launchctl(1) with the
numbers of the real one: 113 for a label that it does not know, 125 for a domain that is not there,
5 for a job that is loaded already, also while it is being booted out, 134 for one that is not of
that kind of session, 119 for one that is disabled, 122 for a list that others could have written,
3 for ending what is not there. The machine ends with its standard input.

What is quicker here than on a Mac, or as slow as a test wants it, is in files of STATE, in seconds:
`spawn` from the request to the start of the process (0.3), `leave` from a process's end until its
label is free (0.5), `throttle` at most between two starts of one job (1).
"""

import contextlib
import heapq
import itertools
import json
import os
import plistlib
import pwd
import resource
import selectors
import signal
import socket
import stat
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STATE = "/private/var/db/standin"
PLACES = {"daemons": "/Library/LaunchDaemons", "agents": "/Library/LaunchAgents"}
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_DEFAULTS = {"spawn": 0.3, "leave": 0.5, "throttle": 1.0}
_EXIT_TIMEOUT = 20
"""Seconds from SIGTERM to SIGKILL (launchd.plist(5), ExitTimeOut)."""


def note(text: str) -> None:
    """A line in this launchd's own log."""
    os.write(1, f"{text}\n".encode())


def seconds(name: str) -> float:
    with (
        contextlib.suppress(OSError, ValueError),
        open(f"{STATE}/{name}", encoding="ascii") as file,
    ):
        return float(file.read())
    return _DEFAULTS[name]


class RefusedError(Exception):
    """What launchctl prints, and its exit status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class Job:
    domain: str
    path: str
    plist: dict[str, Any]
    pid: int = 0
    leaves: bool = False
    """It is being booted out: only its label is still there."""
    began: float = -1e9
    runs: int = 0
    ended: int | None = None
    """The status of its last process, as wait(2) has it."""

    @property
    def label(self) -> str:
        return str(self.plist["Label"])

    @property
    def state(self) -> str:
        if self.leaves:
            return "SIGTERMed"
        return "running" if self.pid else "not running"

    def wanted(self) -> bool:
        """Whether it is to be started anew."""
        keep = self.plist.get("KeepAlive", False)
        if isinstance(keep, dict):
            well = self.ended == 0
            return self.ended is None or keep.get("SuccessfulExit", well) is well
        return bool(keep)


@dataclass(slots=True)
class Launchd:
    jobs: dict[str, Job] = field(default_factory=dict)
    """By domain and label, with a slash between."""
    logins: set[int] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def later(self, after: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (time.monotonic() + after, next(self.numbers), what))

    def wait(self) -> float | None:
        """Do what is due; gives how long it is until the next."""
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()
        return self.timers[0][0] - time.monotonic() if self.timers else None

    # --- what launchctl asks for ---

    def answer(self, uid: int, words: list[str]) -> str:
        match words:
            case ["bootstrap", domain, path]:
                self.bootstrap(uid, domain, path)
            case ["bootout", target]:
                self.bootout(uid, target)
            case ["bootout", domain, path]:
                self.bootout(uid, f"{domain}/{plist_of(path)['Label']}")
            case ["print", target]:
                return self.described(target)
            case ["kickstart" | "kill", *_]:
                self.signal(words)
            case ["enable" | "disable" as what, target]:
                {"enable": self.disabled.discard, "disable": self.disabled.add}[what](target)
            case ["standin-login" | "standin-logout" as what, number]:
                {"login": self.log_in, "logout": self.log_out}[what[8:]](int(number))
            case _:
                raise RefusedError(64, f"Unrecognized subcommand or usage: {' '.join(words)}")
        return ""

    def signal(self, words: list[str]) -> None:
        match words:
            case ["kickstart", target]:
                self.kickstart(target)
            case ["kickstart", "-k", target]:
                if pid := self.job(target).pid:
                    os.kill(pid, signal.SIGTERM)
                self.kickstart(target)
            case ["kill", name, target]:
                if pid := self.job(target).pid:
                    os.kill(pid, signal.Signals[f"SIG{name.removeprefix('SIG')}"])
            case _:
                raise RefusedError(64, f"Unrecognized subcommand or usage: {' '.join(words)}")

    def check_domain(self, domain: str) -> None:
        kind, _, number = domain.partition("/")
        if kind == "system" and not number:
            return
        if number.isdecimal():
            if kind == "gui" and int(number) in self.logins:
                return
            with contextlib.suppress(KeyError):
                if kind == "user" and pwd.getpwuid(int(number)):
                    return
        raise RefusedError(125, "125: Domain does not support specified action")

    def job(self, target: str) -> Job:
        domain, _, label = target.rpartition("/")
        self.check_domain(domain)
        if target not in self.jobs:
            where = "system" if domain == "system" else domain.replace("/", ": ")
            text = f'Bad request.\nCould not find service "{label}" in domain for {where}'
            raise RefusedError(113, text)
        return self.jobs[target]

    def bootstrap(self, uid: int, domain: str, path: str) -> None:
        try:
            plist = self.loadable(uid, domain, path)
        except RefusedError as cause:
            raise RefusedError(cause.status, f"Bootstrap failed: {cause}") from None
        except (OSError, ValueError, KeyError):
            traceback.print_exc()
            raise RefusedError(5, "Bootstrap failed: 5: Input/output error") from None
        job = self.jobs[f"{domain}/{plist['Label']}"] = Job(domain, path, plist)
        if plist.get("RunAtLoad") or plist.get("KeepAlive"):
            self.later(seconds("spawn"), lambda: self.start(job))

    def loadable(self, uid: int, domain: str, path: str) -> dict[str, Any]:
        """The property list in that file, if that user may have it loaded there now."""
        self.check_domain(domain)
        if uid not in {0, int(domain.partition("/")[2] or 0)}:
            hint = "Try re-running the command as root for richer errors."
            raise RefusedError(5, f"5: Input/output error\n{hint}")
        found = os.stat(path)
        if found.st_uid not in {0, uid} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RefusedError(122, "122: Path had bad ownership/permissions")
        plist = plist_of(path)
        target = f"{domain}/{plist['Label']}"
        if target in self.disabled:
            raise RefusedError(119, "119: Service is disabled")
        sessions = plist.get("LimitLoadToSessionType", "Aqua")
        kind = {"gui": "Aqua", "user": "Background"}.get(domain.partition("/")[0])
        if kind and kind not in (sessions if isinstance(sessions, list) else [sessions]):
            raise RefusedError(134, "134: Service cannot load in requested session")
        if target in self.jobs:
            raise RefusedError(5, "5: Input/output error")
        return plist

    def bootout(self, uid: int, target: str) -> None:
        try:
            job = self.job(target)
        except RefusedError as cause:
            number = 3 if cause.status == 113 else cause.status
            text = "3: No such process" if number == 3 else str(cause)
            raise RefusedError(number, f"Boot-out failed: {text}") from None
        if uid not in {0, int(job.domain.partition("/")[2] or 0)}:
            raise RefusedError(1, "Boot-out failed: 1: Operation not permitted")
        if job.leaves:
            raise RefusedError(37, "Boot-out failed: 37: Operation already in progress")
        job.leaves = True
        if not job.pid:
            self.later(seconds("leave"), lambda: self.forget(job))
            return
        pid = job.pid
        os.kill(pid, signal.SIGTERM)
        self.later(job.plist.get("ExitTimeOut", _EXIT_TIMEOUT), lambda: self.kill(job, pid))

    def kickstart(self, target: str) -> None:
        job = self.job(target)
        if job.leaves:
            raise RefusedError(37, "Could not kickstart: 37: Operation already in progress")
        self.later(seconds("spawn"), lambda: self.start(job))

    def described(self, target: str) -> str:
        if target.count("/") < (1 if target.startswith("system") else 2):
            self.check_domain(target)
            labels = "".join(
                f"\t\t{job.pid or 0}\t-\t{job.label}\n"
                for job in self.jobs.values()
                if job.domain == target
            )
            return f"{target} = {{\n\tservices = {{\n{labels}\t}}\n}}\n"
        job = self.job(target)
        lines = [
            f"{target} = {{",
            f"\tactive count = {int(bool(job.pid))}",
            f"\tpath = {job.path}",
            f"\ttype = {'LaunchDaemon' if job.domain == 'system' else 'LaunchAgent'}",
            f"\tstate = {job.state}",
            "",
            f"\tprogram = {job.plist['ProgramArguments'][0]}",
            f"\truns = {job.runs}",
            *([f"\tpid = {job.pid}"] if job.pid else []),
            f"\tlast exit code = {_exit_text(job.ended)}",
            "}",
        ]
        return "\n".join(lines) + "\n"

    # --- sessions ---

    def log_in(self, uid: int) -> None:
        """A person logs in at the screen: every agent is loaded for them."""
        self.logins.add(uid)
        self.load(PLACES["agents"], f"gui/{uid}")

    def log_out(self, uid: int) -> None:
        for target in [target for target in self.jobs if target.startswith(f"gui/{uid}/")]:
            with contextlib.suppress(RefusedError):
                self.bootout(0, target)
        self.logins.discard(uid)

    def load(self, directory: str, domain: str) -> None:
        for name in sorted(os.listdir(directory)):
            if name.endswith(".plist"):
                try:
                    self.bootstrap(0, domain, f"{directory}/{name}")
                except RefusedError as cause:
                    note(f"{directory}/{name}: {cause}")

    # --- processes ---

    def start(self, job: Job) -> None:
        if job.pid or job.leaves or self.jobs.get(f"{job.domain}/{job.label}") is not job:
            return
        throttle = min(job.plist.get("ThrottleInterval", 10), seconds("throttle"))
        if (soon := job.began + throttle - time.monotonic()) > 0:
            self.later(soon, lambda: self.start(job))
            return
        job.began, job.runs = time.monotonic(), job.runs + 1
        job.pid = os.fork()
        if job.pid == 0:
            try:
                become(job)
            except BaseException:  # noqa: BLE001 - whatever it is, this must not go on as launchd
                traceback.print_exc()
            os._exit(78)  # EX_CONFIG

    def reap(self) -> None:
        """Every process that has ended; orphans come here as well."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for job in [job for job in self.jobs.values() if job.pid == pid]:
                job.pid, job.ended = 0, status
                # launchd ends what a job leaves of its process group (AbandonProcessGroup).
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                if job.leaves:
                    self.later(seconds("leave"), lambda job=job: self.forget(job))  # type: ignore[misc]
                elif job.wanted():
                    self.start(job)

    def forget(self, job: Job) -> None:
        self.jobs.pop(f"{job.domain}/{job.label}", None)

    def kill(self, job: Job, pid: int) -> None:
        if job.pid == pid:
            os.kill(pid, signal.SIGKILL)


def _exit_text(status: int | None) -> str:
    if status is None:
        return "(never exited)"
    return str(os.waitstatus_to_exitcode(status))


def plist_of(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        plist: dict[str, Any] = plistlib.load(file)
    return plist


def become(job: Job) -> None:
    """What a child becomes: the job's program."""
    plist = job.plist
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    uid = int(job.domain.partition("/")[2] or 0)
    user = pwd.getpwnam(plist["UserName"]) if "UserName" in plist else pwd.getpwuid(uid)
    environment = {"PATH": _PATH, "XPC_SERVICE_NAME": job.label, "XPC_FLAGS": "0x0"}
    if user.pw_uid:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        names = ("HOME", "USER", "LOGNAME", "SHELL")
        values = (user.pw_dir, user.pw_name, user.pw_name, user.pw_shell)
        environment |= dict(zip(names, values, strict=True))
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd, key in ((0, "StandardInPath"), (1, "StandardOutPath"), (2, "StandardErrorPath")):
        place = plist.get(key)
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND if fd else os.O_RDONLY
        os.dup2(os.open(place, how, 0o644) if place else null, fd)
    for name, number in (plist.get("SoftResourceLimits") or {}).items():
        limit = {"NumberOfFiles": resource.RLIMIT_NOFILE, "Core": resource.RLIMIT_CORE}[name]
        resource.setrlimit(limit, (number, resource.getrlimit(limit)[1]))
    if plist.get("LowPriorityIO") is True:
        os.nice(1)
    os.umask(plist.get("Umask", 0o022))
    os.chdir(plist.get("WorkingDirectory", "/"))
    os.closerange(3, 256)
    words = plist["ProgramArguments"]
    environment |= plist.get("EnvironmentVariables", {})
    os.execve(words[0], words, environment)  # noqa: S606 - that is what it is for


def serve(launchd: Launchd, connection: socket.socket) -> None:
    with connection:
        connection.settimeout(5)
        size = struct.calcsize("3i")
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        words = json.loads(connection.makefile("rb").readline())
        note(" ".join(["launchctl", *words]))
        try:
            answer = [0, launchd.answer(struct.unpack("3i", peer)[1], words), ""]
        except RefusedError as cause:
            answer = [cause.status, "", f"{cause}\n"]
        connection.sendall(json.dumps(answer).encode())


def main() -> None:
    os.umask(0o022)
    launchd = Launchd()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    place = f"{STATE}/launchd.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    os.chmod(place, 0o666)  # noqa: S103 - everybody may ask it
    listener.listen(16)
    chosen = selectors.DefaultSelector()
    for one in (reading, listener, sys.stdin):
        chosen.register(one, selectors.EVENT_READ)
    launchd.load(PLACES["daemons"], "system")
    for uid in sys.argv[1:]:
        launchd.log_in(int(uid))
    os.write(1, b"ready\n")
    os.dup2(
        os.open(
            "/private/var/log/standin-launchd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        ),
        1,
    )
    os.dup2(1, 2)
    while True:
        for key, _ in chosen.select(launchd.wait()):
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                try:
                    serve(launchd, listener.accept()[0])
                except Exception:  # noqa: BLE001 - no request may end the first process
                    traceback.print_exc()
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(reading, 4096)
        launchd.reap()


if __name__ == "__main__":
    main()
