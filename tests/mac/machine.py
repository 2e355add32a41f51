# SPDX-License-Identifier: MIT
"""A Mac that runs: its launchd is the first process of a namespace of its own."""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mac.root import (
    ACCOUNTS,
    BUILD_GROUP,
    BUILD_USERS,
    LAUNCHD,
    OWN_CHECKOUT,
    PERSON,
    PROFILE,
    STANDIN,
    UID,
    Root,
    copied,
    mounts,
)
from real import namespace as ns
from real.furniture import CHECKOUT
from real.rig import Rig, answers, nix_version

STOREWARDEN = f"{OWN_CHECKOUT}/.venv/bin/storewarden"
PATH = f"{PROFILE}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
"""As the installers of Nix have a shell of a person's set it."""
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
Done = subprocess.CompletedProcess[str]


@dataclass(slots=True)
class Mac:
    """One; it can be booted more than once."""

    root: Root
    shared: str
    """A directory of one name inside and outside, for what tests and builds tell each other."""
    namespace: ns.Namespace

    @property
    def rig(self) -> Rig:
        """What drives real builds in it."""
        return Rig(
            self.shared,
            self.namespace,
            nix_version(self.namespace),
            root=self.root.volume,
            etc=f"{self.root.top}/private/etc",
            user=PERSON,
            python=f"{OWN_CHECKOUT}/.venv/bin/python",
            build_users=BUILD_USERS,
            build_group=BUILD_GROUP,
        )

    def outside(self, path: str) -> str:
        """Where that path of the Mac is seen from outside; what is mounted there apart."""
        if path.startswith("/nix/"):
            return f"{self.root.volume}{path}"
        return self.root.top + re.sub(r"^/(etc|tmp|var)\b", r"/private/\1", path)

    def run(self, *words: str, user: str = PERSON, seconds: int = 60) -> Done:
        """What that user of it sees who runs that in a terminal; assignments may come first."""
        bounded = ["timeout", "--kill-after=1", str(seconds)]
        return subprocess.run(
            [*self.namespace.enter, *bounded, *in_terminal(user), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )

    def warden(self, *words: str, user: str = PERSON, seconds: int = 60) -> Done:
        """`storewarden WORDS` of the checkout; root is who calls it with sudo."""
        sudo = ("sudo",) if user == "root" else ()
        return self.run(*sudo, STOREWARDEN, *words, user=PERSON if sudo else user, seconds=seconds)

    def set(self, name: str, seconds: float) -> None:
        """How quick launchd is: see there."""
        ns_place = f"{self.root.top}/{STANDIN}/{name}"
        with open(ns_place, "w", encoding="ascii") as file:
            file.write(str(seconds))

    @contextlib.contextmanager
    def failing(self, call: str, number: int) -> Iterator[None]:
        """While that call of libc's fails with that error."""
        place = f"{self.root.top}/{STANDIN}/faults/{call}"
        with open(place, "w", encoding="ascii") as file:
            file.write(str(number))
        try:
            yield
        finally:
            os.unlink(place)

    def switch_off(self) -> None:
        """Every process ends; what is on disk stays."""
        stdin, stdout = self.namespace.holder.stdin, self.namespace.holder.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        self.namespace.holder.wait(20)
        stdout.close()
        ns.reap(self.namespace)


@contextlib.contextmanager
def opened(template: Root, *logins: int, volume_after: float = 0) -> Iterator[Mac]:
    """A new Mac, switched on, with those uids logged in at the screen.

    Its volume of Nix is mounted so many seconds after launchd has loaded its jobs.
    """
    base = tempfile.mkdtemp(prefix="mac-", dir="/tmp")
    os.chmod(base, 0o755)  # noqa: S103 - ordinary users run things in it
    try:
        root = copied(template, f"{base}/disk")
        shared = furnished(f"{base}/shared")
        mac = Mac(root, shared, booted(root, shared, logins, volume_after))
        socket = f"{root.volume}/nix/var/nix/daemon-socket/socket"
        try:
            ns.wait_until(lambda: bool(volume_after) or answers(socket), "nix-daemon")
            yield mac
        finally:
            mac.switch_off()
    finally:
        # Not shutil.rmtree: it gives up at trees as deep as those that the tests make.
        subprocess.run(["rm", "-rf", base], check=True)


def furnished(shared: str) -> str:
    """The places where builds and tests meet."""
    for place in ("signals", "logs", "scratch", "outside", "source/tests/real"):
        os.makedirs(f"{shared}/{place}")
    for user in ("root", PERSON):
        os.makedirs(f"{shared}/home/{user}")
    os.chown(f"{shared}/home/{PERSON}", UID, 20)
    os.chmod(f"{shared}/scratch", 0o1777)  # noqa: S103 - it is everybody's TMPDIR
    subprocess.run(
        ["cp", f"{CHECKOUT}/tests/real/slow.nix", f"{shared}/source/tests/real/"], check=True
    )
    return shared


def booted(root: Root, shared: str, logins: Sequence[int], volume_after: float = 0) -> ns.Namespace:
    """The namespace of a Mac whose launchd has loaded its jobs."""
    pipe = subprocess.PIPE
    words = boot_words(root, shared, logins, volume_after)
    holder = subprocess.Popen(words, stdin=pipe, stdout=pipe)
    assert holder.stdout is not None
    if holder.stdout.readline() != b"ready\n":
        holder.kill()
        raise RuntimeError("the stand-in does not boot")
    return ns.Namespace(
        shared,
        holder,
        first=holder.pid,
        enter=entering(root, holder.pid),
        accounts=f"{root.top}/private/etc",
        sources="",
        started=[],
    )


def boot_words(
    root: Root, shared: str, logins: Sequence[int], volume_after: float = 0
) -> list[str]:
    """The command that is the machine: it runs until its standard input ends."""
    inside = f"{root.top}/private{shared}"
    os.makedirs(inside, exist_ok=True)
    script = f"""
{mounts(root)}
mount --bind '{shared}' '{inside}'
{{ sleep {volume_after}; mount --bind '{root.volume}/nix' '{root.top}/nix'; }} &
[ {volume_after} != 0 ] || wait
rm -rf '{root.top}'/private/var/run/* '{root.top}'/private/var/db/standin/launchd.sock
exec chroot '{root.top}' {" ".join([*LAUNCHD, *map(str, logins)])}
"""
    return [*_UNSHARE, "sh", "-ec", script]


def entering(root: Root, pid: int) -> tuple[str, ...]:
    """The command that runs another one in what that one, of this pid, started."""
    here = f"/proc/{pid}/ns"
    enter = ("nsenter", f"--mount={here}/mnt", f"--pid={here}/pid_for_children")
    return (*enter, "chroot", root.top)


def in_terminal(user: str) -> list[str]:
    """The command, inside, that runs another one as that user has it in a terminal."""
    uid, gid, home = ACCOUNTS[user]
    own = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"] if uid else []
    names = [f"USER={user}", f"LOGNAME={user}", f"HOME={home}"]
    return [*own, "env", "-i", f"PATH={PATH}", *names, "LC_ALL=C.UTF-8"]
