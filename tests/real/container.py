# SPDX-License-Identifier: MIT
"""A container without systemd as a rig: an overlay as its root, own processes, own first process.

What Docker makes of an image, made of the same namespaces; its programs are this machine's /usr.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence

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
export PYTHONPATH='{base}/source/src' PYTHONPYCACHEPREFIX='{base}/pycache'
echo ready
exec "$@"
"""


@contextlib.contextmanager
def container(*, first: Sequence[str] = FIRST, builds: str = "daemon") -> Iterator[Rig]:
    """A container with an empty store; `{base}` in `first` stands for its directory.

    `builds` tells who builds there: "daemon" for an ordinary user, "root" himself with build
    users, "alone" root himself without any.
    """
    base = tempfile.mkdtemp(prefix="storewarden-box-")
    try:
        furnish(base)
        _make_image(base)
        if builds == "alone":
            _take_build_users(f"{base}/image/etc")
        words = [word.format(base=base) for word in first]
        namespace = _opened(base, words)
        try:
            rig = _rig(namespace, user="nobody" if builds == "daemon" else "root")
            made = ns.run(namespace, ["nix-store", "--init"])
            assert made.returncode == 0, made.stderr
            if builds == "daemon":
                start_daemon(rig)
            yield rig
        finally:
            _close(namespace)
    finally:
        subprocess.run(["rm", "-rf", base], check=True)


def still_there(rig: Rig, paths: Collection[str]) -> set[str]:
    """Those of the paths below /nix that still lie there."""
    return {path for path in paths if os.path.lexists(rig.outside(path))}


def _close(namespace: ns.Namespace) -> None:
    """End the first process, and so all others, whatever they think of it."""
    namespace.holder.kill()
    namespace.holder.communicate()
    ns.reap(namespace)


def _make_image(base: str) -> None:
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


def _take_build_users(etc: str) -> None:
    for name in ("passwd", "group", "nix/nix.conf"):
        kept = [line for line in ns.read(f"{etc}/{name}").splitlines() if "nixbld" not in line]
        with open(f"{etc}/{name}", "w", encoding="utf-8") as file:
            file.write("\n".join([*kept, ""]))
    with open(f"{etc}/nix/nix.conf", "a", encoding="ascii") as file:
        file.write("build-users-group =\n")


def _opened(base: str, first: Sequence[str]) -> ns.Namespace:
    bound = [f"mount --bind '{CHECKOUT}/{p}' 'root{base}/source/{p}'" for p in shown()]
    script = _ROOT.format(base=base, sources="\n".join(bound))
    pipe = subprocess.PIPE
    command = [*_UNSHARE, "sh", "-ec", script, "sh", *first]
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n", "the container could not be set up"
    [pid] = ns.read(f"/proc/{holder.pid}/task/{holder.pid}/children").split()
    return ns.Namespace(
        base,
        holder,
        first=int(pid),
        enter=("nsenter", f"--target={pid}", *_ENTER),
        accounts=f"{base}/image/etc",
        sources=f"{base}/source/src",
        started=[],
    )


def _rig(namespace: ns.Namespace, user: str) -> Rig:
    return Rig(
        namespace.base,
        namespace,
        nix_version(namespace),
        root=f"/proc/{namespace.first}/root",
        etc=namespace.accounts,
        user=user,
        python=own_python(f"{namespace.base}/source"),
        build_users=BUILD_USERS,
        build_group=BUILD_GROUP,
    )
