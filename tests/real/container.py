# SPDX-License-Identifier: MIT
"""A container without systemd as a rig: an overlay as its root, own processes, own first process.

What Docker makes of an image, made of the same namespaces; its programs are this machine's /usr.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

from real import namespace as ns
from real.furniture import BUILD_GROUP, BUILD_USERS, CHECKOUT, furnish, own_python, shown
from real.rig import Rig, nix_version, start_daemon

_UNSHARE = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
_ENTER = ("--mount", "--pid", "--ipc", "--uts", "--root", "--wd")
FIRST = ("cat",)
"""The first process: a program that knows nothing of being one, and never waits for a child."""
_ROOT = """
cd '{base}'
mount -t overlay overlay -o lowerdir=image,upperdir=upper,workdir=work root
mount --bind /usr root/usr
mount --bind '{base}' 'root{base}'
{sources}
mount -t proc proc root/proc
mount --rbind /dev root/dev
cd root
pivot_root . .
umount -l .
cd /
export PYTHONPATH='{base}/source/src' PYTHONDONTWRITEBYTECODE=1
echo ready
exec "$@"
"""


@contextlib.contextmanager
def container(*, first: Sequence[str] = FIRST, build_users: bool = True) -> Iterator[Rig]:
    """A container with an empty store and no daemon yet; `{base}` in `first` is its directory."""
    base = tempfile.mkdtemp(prefix="storewarden-box-")
    try:
        furnish(base)
        _make_image(base, build_users=build_users)
        words = [word.format(base=base) for word in first]
        rig = _opened(base, words, BUILD_USERS if build_users else {})
        made = ns.run(rig.namespace, ["nix-store", "--init"])
        assert made.returncode == 0, made.stderr
        try:
            yield rig
        finally:
            ns.end_everything(rig.namespace)
            close(rig)
    finally:
        subprocess.run(["rm", "-rf", base], check=True)


def of_root(rig: Rig) -> Rig:
    """The same, but it is root who builds: without a daemon."""
    return replace(rig, user="root")


@contextlib.contextmanager
def with_daemon(**options: bool) -> Iterator[Rig]:
    """A container in which nix-daemon runs."""
    with container(**options) as rig:
        start_daemon(rig)
        yield rig


def close(rig: Rig) -> int:
    """End the first process, and all others with it; its exit status."""
    holder = rig.namespace.holder
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.close()
    code = holder.wait(20)
    holder.stdout.close()
    ns.reap(rig.namespace)
    return code


def _make_image(base: str, *, build_users: bool) -> None:
    for place in ("usr", "proc", "dev", "tmp", "nix", "run", "var/log", "etc", base.lstrip("/")):
        os.makedirs(f"{base}/image/{place}", exist_ok=True)
    for place in ("upper", "work", "root"):
        os.mkdir(f"{base}/{place}")
    for link in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{link}"):
            os.symlink(f"usr/{link}", f"{base}/image/{link}")
    etc = f"{base}/image/etc"
    for name in ("ld.so.cache", "nsswitch.conf"):
        shutil.copy(f"/etc/{name}", f"{etc}/{name}")
    for name in ("passwd", "group", "nix"):
        os.rename(f"{base}/etc/{name}", f"{etc}/{name}")
        os.symlink(f"../image/etc/{name}", f"{base}/etc/{name}")
    if not build_users:
        for name in ("passwd", "group", "nix/nix.conf"):
            kept = [line for line in ns.read(f"{etc}/{name}").splitlines() if "nixbld" not in line]
            with open(f"{etc}/{name}", "w", encoding="utf-8") as file:
                file.write("\n".join([*kept, ""]))
        with open(f"{etc}/nix/nix.conf", "a", encoding="ascii") as file:
            file.write("build-users-group =\n")


def _opened(base: str, first: Sequence[str], build_users: dict[int, str]) -> Rig:
    bound = [f"mount --bind '{CHECKOUT}/{p}' 'root{base}/source/{p}'" for p in shown()]
    script = _ROOT.format(base=base, sources="\n".join(bound))
    pipe = subprocess.PIPE
    command = [*_UNSHARE, "sh", "-ec", script, "sh", *first]
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n", "the container could not be set up"
    [pid] = ns.read(f"/proc/{holder.pid}/task/{holder.pid}/children").split()
    namespace = ns.Namespace(
        base,
        holder,
        first=int(pid),
        enter=("nsenter", f"--target={pid}", *_ENTER),
        accounts=f"{base}/image/etc",
        sources=f"{base}/source/src",
        started=[],
    )
    return Rig(
        base,
        namespace,
        nix_version(namespace),
        root=f"/proc/{pid}/root",
        user="nobody",
        python=own_python(f"{base}/source"),
        build_users=build_users,
        build_group=BUILD_GROUP,
    )
