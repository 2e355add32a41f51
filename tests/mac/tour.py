# SPDX-License-Identifier: MIT
"""`make mac`: what somebody with a Mac runs once, so that it is known what holds there.

    make mac                         # asks before the first step that changes anything
    make mac TOUR="--yes --tests tests/host"

Each step says what it proves, what it does and what it saw. All of it goes into one file, to be
attached to an issue: there is nothing in it but what the commands print. A step that goes wrong
does not end it. What is set up is removed again at the end; where storewarden is set up already,
those steps are left out.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REPORT = f"{CHECKOUT}/storewarden-on-a-mac.txt"
_PYTHON = f"{CHECKOUT}/.venv/bin/python"
_STOREWARDEN = f"{CHECKOUT}/.venv/bin/storewarden"
_PLACES = (
    "/private/var/run /private/var/db /private/var/log /private/tmp /Library /Library/LaunchDaemons"
    " /Library/LaunchAgents /nix /nix/store /nix/var/nix /nix/var/nix/userpool /usr/local"
    " /usr/local/bin /opt /usr/bin/python3"
)
_OURS = (
    "/etc/storewarden /opt/storewarden /usr/local/bin/storewarden /private/var/db/storewarden"
    " /nix/var/nix/gcroots/storewarden /Library/LaunchDaemons/org.storewarden.helper.plist"
    " /Library/LaunchDaemons/org.storewarden.watch.plist"
)
_BUILDER = re.compile(r"^builder uid=(\d+) pid=(\d+) out=(\S+) ", re.MULTILINE)
_SECONDS = 900
Done = subprocess.CompletedProcess[str]


@dataclass(slots=True)
class Tour:
    """One run."""

    report: IO[str]
    tests: Sequence[str]
    scratch: str
    """An empty directory of the person's."""
    odd: list[str] = field(default_factory=list)
    """What was not as expected."""

    def say(self, text: str) -> None:
        """A line for the screen and the report."""
        print(text, flush=True)  # noqa: T201 - this is what it is for
        self.report.write(f"{text}\n")
        self.report.flush()

    def note(self, text: str) -> None:
        """Lines for the report alone."""
        self.report.write("".join(f"    {line}\n" for line in text.splitlines()))

    def expect(self, true: object, what: str) -> None:
        """Say whether it is as expected."""
        self.say(f"  {'ok ' if true else 'ODD'}  {what}")
        if not true:
            self.odd.append(what)

    def run(self, *words: str, seconds: int = _SECONDS) -> Done:
        """Run that; what it prints goes into the report."""
        self.note(f"$ {' '.join(words)}")
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                cwd=CHECKOUT,
                timeout=seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as cause:
            done = Done(words, 127, "", str(cause))
        self.note(done.stdout + done.stderr)
        self.note(f"(status {done.returncode})")
        return done

    def warden(self, *words: str) -> Done:
        """`storewarden WORDS` of this checkout."""
        return self.run(_STOREWARDEN, *words)

    def root(self, *words: str) -> Done:
        """`sudo storewarden WORDS` of this checkout."""
        return self.run("sudo", _STOREWARDEN, *words)


def machine(tour: Tour) -> None:
    """What machine this is: its system, its Nix and who installed it, its volume, its users."""
    tour.run("sw_vers")
    tour.run("uname", "-a")
    tour.expect(tour.run("nix", "--version").returncode == 0, "Nix runs")
    tour.run("diskutil", "info", "/nix")
    tour.run("ls", "-l", "/Library/LaunchDaemons")
    tour.run("sh", "-c", "id; for n in 1 2 3; do id _nixbld$n; done")
    tour.run("sh", "-c", "cat /etc/nix/nix.conf /etc/nix/nix.custom.conf")
    tour.say(f"  {sys.version.split()[0]} is the Python, at {os.path.realpath(sys.executable)}")


def places(tour: Tour) -> None:
    """Which directories root alone can change, which setup takes for granted."""
    seen = {}
    for path in _PLACES.split():
        if os.path.exists(path):
            found = os.stat(path)
            mode = f"{found.st_mode & 0o7777:04o}"
            seen[path] = f"{mode} {found.st_uid}:{found.st_gid}"
            tour.say(f"       {path}  {seen[path]}")
    tour.expect(seen.get("/private/var/db", "").endswith(("755 0:0",)), "/private/var/db is root's")
    tour.expect(seen.get("/Library/LaunchDaemons") == "0755 0:0", "so are launchd's jobs")
    for name in ("etc", "tmp", "var"):
        tour.expect(os.path.realpath(f"/{name}") == f"/private/{name}", f"/{name} is a link")


def launchd(tour: Tour) -> None:
    """What launchctl answers of what is not there, and which sessions there are."""
    status = tour.run("launchctl", "print", "system/org.storewarden.no-such-job").returncode
    tour.expect(status == 113, f"an unknown label: {status}, taken for 113")
    for domain in (f"gui/{os.getuid()}", f"user/{os.getuid()}"):
        there = tour.run("launchctl", "print", domain).returncode == 0
        tour.say(f"       {domain} is {'' if there else 'not '}there")


def metal(tour: Tour) -> None:
    """That sockets, libproc, mount(8), renames, flags and locks are as host/darwin.py has them."""
    place = f"/nix/var/storewarden-tour-{os.getpid()}"
    tour.run("sudo", "mkdir", "-m", "0755", place)
    runs = {tour.scratch: [], place: ["sudo"]}
    for directory, before in runs.items():
        words = ["env", f"PYTHONPATH={CHECKOUT}/tests", _PYTHON, "-m", "mac.metal", directory]
        done = tour.run(*before, *words)
        tour.expect(done.returncode == 0, f"it was looked at in {directory}")
        for right, what in json.loads(done.stdout or "[]"):
            if right is None:
                tour.say(f"       {what}")
            else:
                tour.expect(right, what)
    tour.run("sudo", "rmdir", place)


def lists(tour: Tour) -> None:
    """That macOS itself finds nothing wrong with the property lists."""
    for name in sorted(os.listdir(f"{CHECKOUT}/launchd")):
        done = tour.run("plutil", "-lint", f"{CHECKOUT}/launchd/{name}")
        tour.expect(done.returncode == 0, f"plutil -lint {name}")


def demo(tour: Tour) -> None:
    """That a removal works from end to end, on a store made for it."""
    done = tour.warden("demo")
    tour.expect(done.returncode == 0 and "all in order" in done.stdout, "storewarden demo")


def tests(tour: Tour) -> None:
    """What of the tests fails on a Mac."""
    words = ("-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", *tour.tests)
    done = tour.run(_PYTHON, *words, seconds=3600)
    tour.expect(done.returncode == 0, (done.stdout.strip().splitlines() or ["nothing"])[-1])


def looks(tour: Tour) -> None:
    """That the store is seen, by this user and by root, and nothing is done."""
    tour.expect(tour.warden("scan", "--dry-run").returncode == 0, "storewarden scan --dry-run")
    tour.expect(tour.root("scan", "--dry-run").returncode == 0, "the same as root")
    tour.warden("doctor")


@dataclass(frozen=True, slots=True)
class Build:
    """One that has begun to write."""

    client: subprocess.Popen[str]
    log: str
    signals: str
    name: str
    uid: int
    pid: int
    out: str


def begun(tour: Tour, name: str) -> Build | None:
    """A build of a content-addressed output by the recipe of NixOS/nix#13703, that writes."""
    signals = f"{tour.scratch}/signals"
    os.makedirs(signals, exist_ok=True)
    os.chmod(tour.scratch, 0o755)  # noqa: S103 - the builder has to look into it
    given = {"kind": "ca", "name": f"{name}-{os.getpid()}", "signals": signals, "outside": signals}
    words = ["nix-build", "--no-out-link", f"{CHECKOUT}/tests/real/slow.nix"]
    words += [word for pair in given.items() for word in ("--argstr", *pair)]
    words += ["--option", "extra-experimental-features", "ca-derivations"]
    log = f"{tour.scratch}/{name}.log"
    tour.note(f"$ {' '.join(words)}")
    with open(log, "w", encoding="utf-8") as file:
        client = subprocess.Popen(words, stdout=file, stderr=file, text=True)
    said = None
    for _ in range(600):
        with open(log, encoding="utf-8", errors="backslashreplace") as file:
            said = _BUILDER.search(file.read())
        if said or client.poll() is not None:
            break
        time.sleep(0.1)
    if said is None:
        with open(log, encoding="utf-8", errors="backslashreplace") as file:
            tour.note(file.read())
        client.kill()
        client.wait()
        tour.expect(None, "a build began; it does with ca-derivations in nix.conf and no sandbox")
        return None
    return Build(client, log, signals, given["name"], int(said[1]), int(said[2]), said[3])


def stranded(tour: Tour, name: str) -> Build | None:
    """The same, interrupted, so that it leaves its output."""
    build = begun(tour, name)
    if build is None:
        return None
    build.client.send_signal(signal.SIGINT)
    build.client.wait()
    ended = soon(lambda: not alive(build), 5)
    tour.say(f"       its builder {'ends' if ended else 'does not end'} with its client")
    if not ended:
        with open(f"{build.signals}/{build.name}.fail", "w", encoding="ascii"):
            pass
    tour.expect(soon(lambda: not alive(build), 30), "the builder has ended")
    return build


def alive(build: Build) -> bool:
    """Whether its builder still runs, as ps(1) has it."""
    found = subprocess.run(["ps", "-p", str(build.pid)], capture_output=True, check=False)
    return found.returncode == 0


def soon(happened: Callable[[], bool], seconds: float) -> bool:
    """Whether it happens within that time."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def debris(tour: Tour) -> None:
    """That what a real build is writing is kept, and removed once it has been interrupted."""
    build = begun(tour, "running")
    if build is None:
        return
    tour.say(f"       it builds as uid {build.uid}, with pid {build.pid}")
    ask = f"import storewarden.host as h; print(h.processes_of([{build.uid}]))"
    for before in ([], ["sudo"]):
        done = tour.run(*before, _PYTHON, "-c", ask)
        tour.expect(str(build.pid) in done.stdout, f"its process is seen {' '.join(before)}")
    done = tour.root("scan", "--yes", "--min-age", "0")
    tour.expect(os.path.lexists(build.out), "sudo storewarden scan --yes keeps it")
    tour.expect("a process of its owner is alive" in done.stdout, "because of its process")
    with open(f"{build.signals}/{build.name}.finish", "w", encoding="ascii"):
        pass
    tour.expect(build.client.wait() == 0, "and the build ends well")
    left = stranded(tour, "interrupted")
    if left is None:
        return
    tour.expect(os.path.lexists(left.out), f"and left {left.out}")
    tour.run("sudo", "chflags", "uchg", *_scratch_files(left.out))
    tour.root("explain", left.out)
    tour.root("scan", "--yes", "--min-age", "0")
    tour.expect(not os.path.lexists(left.out), "sudo storewarden scan --yes removes it")
    tour.expect(tour.root("audit", "verify").returncode == 0, "the audit log is in order")
    again = begun(tour, "interrupted")
    if again:
        with open(f"{again.signals}/{again.name}.finish", "w", encoding="ascii"):
            pass
        tour.expect(again.client.wait() == 0, "the same is built again")


def _scratch_files(out: str) -> list[str]:
    return [f"{out}/{name}" for name in os.listdir(out)]


def setup(tour: Tour) -> None:
    """That the service is set up, runs, and a second setup finds nothing to do."""
    tour.expect(tour.warden("setup", "--dry-run").returncode == 0, "a look at it, without sudo")
    first = tour.root("setup")
    tour.expect(first.returncode == 0, "sudo storewarden setup")
    tour.expect("nothing to change" in tour.root("setup").stdout, "the second changes nothing")
    tour.expect(tour.warden("status").returncode == 0, "storewarden status says that all is well")
    for path in _OURS.split():
        tour.run("ls", "-ld", path)
        if path.endswith(".plist"):
            tour.expect(tour.run("plutil", "-lint", path).returncode == 0, f"plutil -lint {path}")
            tour.run("launchctl", "print", f"system/{os.path.basename(path)[:-6]}")
    tour.warden("doctor")


def service(tour: Tour) -> None:
    """That the watcher finds what a real build left, and the helper removes it for it."""
    if tour.warden("status").returncode != 0:
        tour.expect(None, "the service runs")
        return
    build = stranded(tour, "served")
    if build is None:
        return
    began = time.monotonic()
    gone = soon(lambda: not os.path.lexists(build.out), 300)
    tour.expect(gone, f"it is gone after {time.monotonic() - began:.0f} s")
    tour.expect(tour.root("audit", "verify").returncode == 0, "the audit log is in order")
    told = tour.root("audit", "log", build.out).stdout
    tour.expect(os.path.basename(build.out) in told, "and its removal is on record")
    tour.warden("status")
    tour.run("sudo", "cat", "/private/var/log/storewarden-helper.log")
    log = os.path.expanduser("~/Library/Logs/storewarden.log")
    tour.run("tail", "-n", "50", log)


def upgrade(tour: Tour) -> None:
    """That a setup of other code leaves a service that runs it."""
    place = f"{CHECKOUT}/src/storewarden/errors.py"
    with open(place, encoding="utf-8") as file:
        before = file.read()
    try:
        with open(place, "a", encoding="utf-8") as file:
            file.write(f'\nTOUR = "{os.getpid()}"\n')
        tour.expect(tour.root("setup").returncode == 0, "sudo storewarden setup, of changed code")
        tour.expect(tour.warden("status").returncode == 0, "all is well")
        tour.expect(len(os.listdir("/opt/storewarden")) == 1, "the code of before is gone")
    finally:
        with open(place, "w", encoding="utf-8") as file:
            file.write(before)


def uninstall(tour: Tour) -> None:
    """That nothing stays of it but the audit log."""
    tour.expect(tour.root("setup", "--uninstall").returncode == 0, "setup --uninstall")
    left = [path for path in _OURS.split() if os.path.lexists(path)]
    tour.expect(not left, f"of its files is left: {', '.join(left) or 'none'}")
    tour.run("sudo", "ls", "-l", "/private/var/log/storewarden")


LOOKING = (machine, places, launchd, metal, lists, demo, tests, looks)
"""The steps that change nothing but files of their own."""
CHANGING = (debris, setup, service, upgrade, uninstall)
"""Those that build, remove, and set up."""


def main(arguments: Sequence[str]) -> int:
    """Take all steps; 1 if something was not as expected."""
    words = argparse.ArgumentParser(prog="make mac", allow_abbrev=False)
    words.add_argument("--yes", action="store_true", help="do not ask before what changes things")
    words.add_argument("--tests", nargs="*", default=["tests"], help="the tests to run")
    words.add_argument("--report", default=REPORT, help="the file to write (%(default)s)")
    given = words.parse_args(arguments)
    if sys.platform != "darwin":
        sys.exit("make mac is for a Mac; on Linux, tests/mac/enter has a stand-in for one")
    if os.geteuid() == 0:
        sys.exit("run it as yourself: it calls sudo where it has to")
    # Not in TMPDIR: build users may not look into it.
    scratch = tempfile.mkdtemp(prefix="sw-tour-", dir="/private/tmp")
    try:
        with open(given.report, "w", encoding="utf-8") as report:
            tour = Tour(report, given.tests, scratch)
            tour.say(f"storewarden on a Mac, {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
            tour.run("git", "log", "-1", "--oneline")
            subprocess.run(["sudo", "-v"], check=True)
            for step in LOOKING:
                take(tour, step)
            if may_change(tour, yes=given.yes):
                for step in CHANGING:
                    take(tour, step)
            tour.say(f"\n{len(tour.odd)} not as expected; all of it is in {given.report}")
            for what in tour.odd:
                tour.say(f"  ODD  {what}")
            return 1 if tour.odd else 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def take(tour: Tour, step: Callable[[Tour], None]) -> None:
    """Take a step, whatever comes of it."""
    tour.say(f"\n{step.__name__}\n  proves: {step.__doc__}")
    try:
        step(tour)
    except Exception as cause:  # noqa: BLE001 - the next steps have something to tell as well
        tour.expect(None, f"{type(cause).__name__}: {cause}")


def may_change(tour: Tour, *, yes: bool) -> bool:
    """Whether to go on with what changes things on this machine."""
    manifest = "/etc/storewarden/manifest.json"
    if os.path.exists(manifest):
        tour.say("\nstorewarden is set up here already, so nothing is built, removed or set up")
        return False
    if yes:
        return True
    tour.say(
        "\nNext: debris is made and removed with sudo, the service set up, changed and taken away."
    )
    return sys.stdin.isatty() and input("Go on? [y/N] ").strip().lower() in {"y", "yes"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
