# SPDX-License-Identifier: MIT
"""The hook of storewarden in a rig, and a parent that holds locks as a worker of Nix does.

On Linux Nix runs its hook for sandboxed builds alone. On macOS, from 2.30 on, it does for all, with
the derivation as the only argument: that is what the parent here does.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

from real import namespace as ns
from real.rig import Rig
from real.warden import audit_log
from storewarden.prevention import hook_text

# argv: step that it dies after ("-" for none), the hook, its arguments; locks before them, to "--".
_WORKER = """
import fcntl, os, subprocess, sys
locks = sys.argv[2:sys.argv.index("--")]
held = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in locks]
for lock in held:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
hook = subprocess.Popen(sys.argv[sys.argv.index("--") + 1 :], stdout=subprocess.PIPE)
if sys.argv[1] == "dies":
    os._exit(9)
out, _ = hook.communicate()
sys.stdout.buffer.write(out)
sys.exit(hook.returncode)
"""


def hook_of(
    rig: Rig, *, python: str = "", other: str = "", settings: Sequence[str] = (), code: str = ""
) -> str:
    """Put the hook where root alone can change it, and give its path."""
    place = f"{rig.base}/run"
    with open(f"{place}/config.toml", "w", encoding="ascii") as file:
        file.write("\n".join([f'audit-log = "{audit_log(rig)}"', *settings, ""]))
    own = f"{place}/code/storewarden"
    if not os.path.exists(own):
        # Compiled, as it is wherever it is installed: it has no time for that itself.
        os.makedirs(os.path.dirname(own))
        words = ["cp", "-r", f"{rig.base}/source/src/storewarden", own]
        assert ns.run(rig.namespace, words).returncode == 0
        compiling = ["env", "-u", "PYTHONPYCACHEPREFIX", rig.python, "-m", "compileall", "-q", own]
        assert ns.run(rig.namespace, compiling).returncode == 0
    text = hook_text(
        python or rig.python,
        code or own,
        f"{place}/config.toml",
        ("nix.conf", other) if other else None,
    )
    with open(f"{place}/hook", "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(f"{place}/hook", 0o755)  # noqa: S103 - as Nix runs it
    return f"{place}/hook"


def as_worker(
    rig: Rig, hook: str, drv: str, *locks: str, how: str = "waits", user: str = "root"
) -> subprocess.CompletedProcess[str]:
    """What the hook says to a parent that holds those locks, and what became of it."""
    words = ["python3", "-c", _WORKER, how, *locks, "--", hook, drv]
    return ns.run(rig.namespace, words, user=user)


@contextlib.contextmanager
def orphan_of(rig: Rig, uid: int) -> Iterator[None]:
    """While a process of that build user runs that no build has started."""
    words = ["setpriv", f"--reuid={uid}", "--clear-groups", "sh", "-c", "echo held; read -r _"]
    with ns.holding(rig.namespace, words):
        yield
