# SPDX-License-Identifier: MIT
"""What a rig's directory holds before Nix first runs in it, and what is mounted where.

The build users are the rig's own: more than any test has builds, so that debris of one user need
not wait for another's build, and none that the machine's own Nix builds as.
"""

import os
import pwd
import stat
import subprocess
import sys

from real.namespace import read

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD_USERS = {30000 + number: f"nixbld{number}" for number in range(1, 13)}
BUILD_GROUP = 30000
PLACES = ("nix", "signals", "audit", "logs", "scratch", "outside", "run")
"""Directories that are empty when a test begins."""
_SHOWN = ("src", "tests/real", ".venv")
_CONF = """\
build-users-group = nixbld
experimental-features = nix-command flakes ca-derivations
sandbox = false
substituters =
"""


def furnish(base: str) -> None:
    """Make all that is mounted, and the places where things are put."""
    os.chmod(base, 0o755)  # noqa: S103 - ordinary users run things in it
    for place in (*PLACES, "etc/nix", *(f"source/{part}" for part in shown())):
        os.makedirs(f"{base}/{place}")
    # What is bound over a file comes off when somebody replaces it, as useradd does; none does
    # that in a copy. A file that vanishes while it is made is not missed.
    copying = ["cp", "-a", "/etc", f"{base}/machine-etc"]
    subprocess.run(copying, check=False, stderr=subprocess.DEVNULL)
    os.chmod(f"{base}/audit", 0o700)
    os.chmod(f"{base}/scratch", 0o1777)  # noqa: S103 - it is everybody's TMPDIR
    for user in ("root", "nobody", "daemon"):
        os.makedirs(f"{base}/home/{user}")
        os.chown(f"{base}/home/{user}", pwd.getpwnam(user).pw_uid, -1)
    _write_accounts(base)
    with open(f"{base}/etc/nix/nix.conf", "w", encoding="ascii") as file:
        file.write(_CONF)


def mounts(base: str) -> str:
    """The shell commands that put it all in place."""
    pairs = [(f"{base}/nix", "/nix"), (f"{base}/machine-etc", "/etc")]
    pairs += [(f"{base}/etc/{name}", f"/etc/{name}") for name in ("nix", "passwd", "group")]
    # Not the checkout as a whole: it may be closed to other users, as root's home is.
    pairs += [(f"{CHECKOUT}/{part}", f"{base}/source/{part}") for part in shown()]
    return "\n".join(f"mount --bind '{source}' '{target}'" for source, target in pairs)


def closed_to_others() -> bool:
    """Whether ordinary users could not read the checkout even where it is shown to them."""
    return not os.stat(f"{CHECKOUT}/src/storewarden/__init__.py").st_mode & stat.S_IROTH


def own_python(checkout: str) -> str:
    """The project's own interpreter as seen in that place, or the one that runs the tests."""
    own = ".venv/bin/python"
    return f"{checkout}/{own}" if os.path.exists(f"{CHECKOUT}/{own}") else sys.executable


def shown() -> list[str]:
    return [part for part in _SHOWN if os.path.isdir(f"{CHECKOUT}/{part}")]


def _write_accounts(base: str) -> None:
    users = [
        f"{name}:x:{uid}:{BUILD_GROUP}:Nix build user:/var/empty:/usr/sbin/nologin"
        for uid, name in BUILD_USERS.items()
    ]
    groups = [f"nixbld:x:{BUILD_GROUP}:{','.join(BUILD_USERS.values())}"]
    for name, lines in (("passwd", users), ("group", groups)):
        machine = read(f"/etc/{name}").splitlines()
        kept = [line for line in machine if not line.startswith("nixbld")]
        with open(f"{base}/etc/{name}", "w", encoding="utf-8") as file:
            file.write("\n".join([*kept, *lines, ""]))
