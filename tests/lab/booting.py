# SPDX-License-Identifier: MIT
"""How a root is booted: systemd-nspawn in mounts of its own, with its network and pids apart."""

import contextlib
import os
import subprocess
import time
from signal import SIGKILL

from lab.places import root
from real import namespace as ns
from real.furniture import CHECKOUT
from real.rig import Rig, nix_version

_SPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
# systemd refuses to run where /sys/fs/cgroup is the old hierarchy (from version 258 on), so it is
# mounted anew, for this container alone. A control group of its own lets several run at once, and
# tells what is left of tests that were killed: that ends first. (Not by cgroup.kill: after it, what
# systemd starts from a group that stays in one that is new is killed at once, on Linux 6.18.)
_BOOT = r"""
if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -R -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
while grep -qs 'populated 1' "/sys/fs/cgroup/$1/cgroup.events"; do
    find "/sys/fs/cgroup/$1" -name cgroup.procs -exec cat {} + | xargs -r kill -KILL || true
    sleep 0.1
done
mkdir -p "/sys/fs/cgroup/$1"
echo $$ > "/sys/fs/cgroup/$1/cgroup.procs"
exec systemd-nspawn --quiet --boot --register=no --keep-unit --machine="$1" --directory="$2" \
    --private-network --link-journal=no --console=read-only --bind="$3" \
    --bind-ro="$4/src:$3/source/src" --bind-ro="$4/tests:$3/source/tests"
"""


def boot(suite: str, base: str) -> Rig:
    """Boot that root with `base` bound into it; returns when systemd has come up."""
    where = root(suite)
    words = [_group(suite), where, base, CHECKOUT]
    # nspawn dies with us. Its container does not when we are killed: the next boot ends it.
    private = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private"]
    with open(f"{base}.console", "wb") as console:
        nspawn = subprocess.Popen(
            [*private, "bash", "-ec", _BOOT, "bash", *words],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    first = _first_process(nspawn, f"{base}.console")
    namespace = ns.Namespace(
        base,
        nspawn,
        first,
        enter=("nsenter", f"--target={first}", *_SPACES),
        accounts=f"{where}/etc",
        sources=f"{base}/source/src",
        started=[],
    )
    _wait_for_systemd(namespace)
    group, members = _build_group(where)
    accounts = (line.split(":") for line in ns.read(f"{where}/etc/passwd").splitlines())
    return Rig(
        base,
        namespace,
        nix_version(namespace),
        root=where,
        etc=f"{where}/etc",
        user="alice",
        python="/usr/bin/python3",
        build_users={int(uid): name for name, _, uid, *_ in accounts if name in members},
        build_group=group,
    )


def _build_group(where: str) -> tuple[int, list[str]]:
    """The number and the members of nixbld in that root."""
    lines = (line.split(":") for line in ns.read(f"{where}/etc/group").splitlines())
    [(gid, members)] = [(fields[2], fields[3]) for fields in lines if fields[0] == "nixbld"]
    return int(gid), members.split(",")


def _first_process(nspawn: subprocess.Popen[bytes], console: str) -> int:
    """The container's own systemd, by its pid here."""
    found: list[int] = []

    def came() -> bool:
        assert nspawn.poll() is None, f"systemd-nspawn has ended:\n{ns.read(console)}"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = ns.read(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").split()
            found[:] = [int(c) for c in children if ns.read(f"/proc/{c}/comm") == "systemd\n"]
        return bool(found)

    ns.wait_until(came, "systemd to start")
    return found[0]


def _wait_for_systemd(namespace: ns.Namespace) -> None:
    asked = ["systemctl", "is-system-running"]
    ns.wait_until(
        lambda: ns.run(namespace, asked).stdout.strip() in {"running", "degraded"}, "systemd", 60
    )


def cut(rig: Rig) -> None:
    """End all that runs in it at the same moment."""
    os.kill(rig.namespace.first, SIGKILL)
    rig.namespace.holder.wait(30)
    ns.reap(rig.namespace)


def _group(suite: str) -> str:
    return f"storewarden-lab-{suite}"


def remove_control_group(suite: str) -> None:
    """What its boots have left in the machine's tree of control groups."""
    said = subprocess.run(
        ["findmnt", "-rnt", "cgroup2", "-o", "TARGET"], capture_output=True, text=True, check=False
    )
    for top in said.stdout.split()[:1]:
        for _ in range(20):
            # Deepest first; the kernel needs a moment after the last process.
            for place, _, _ in os.walk(f"{top}/{_group(suite)}", topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(place)
            if not os.path.exists(f"{top}/{_group(suite)}"):
                return
            time.sleep(0.1)
