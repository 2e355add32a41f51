# SPDX-License-Identifier: MIT
"""A namespace on this machine, made by `unshare`; it lives while we hold its standard input."""

import subprocess

from real import namespace as ns

_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# The first process ignores SIGCHLD: the kernel then reaps the orphans that it inherits.
_FIRST = "echo ready; trap '' CHLD; exec cat"


def refusal() -> str | None:
    """Why no namespace can be made here, or None."""
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"unshare is refused: {tried.stderr.strip()}"


def open_namespace(base: str, mounts: str) -> ns.Namespace:
    """A new namespace in which the shell commands `mounts` have been run."""
    script = f"{mounts}\n{_FIRST}"
    pipe = subprocess.PIPE
    holder = subprocess.Popen([*_UNSHARE, "sh", "-ec", script], stdin=pipe, stdout=pipe)
    here = f"/proc/{holder.pid}/ns"
    namespace = ns.Namespace(
        base,
        holder,
        first=holder.pid,
        enter=("nsenter", f"--mount={here}/mnt", f"--pid={here}/pid_for_children"),
        accounts=f"{base}/etc",
        sources=f"{base}/source/src",
        started=[],
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != b"ready\n":
        close(namespace)
        raise RuntimeError(f"the private namespace could not be set up by:\n{mounts}")
    return namespace


def close(namespace: ns.Namespace) -> None:
    """End every process in it; its mounts go with the last of them."""
    holder = namespace.holder
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.close()
    holder.wait(10)
    holder.stdout.close()
    ns.reap(namespace)
