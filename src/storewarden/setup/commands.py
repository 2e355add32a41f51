# SPDX-License-Identifier: MIT
"""The system's own programs, looked for only where root's are."""

import shutil
import subprocess
from collections.abc import Sequence

from storewarden.setup.trust import SetupError

_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_SECONDS = 900
"""A service is ready only after its first sweep."""


def said(words: Sequence[str]) -> str:
    """What the command prints, whatever its status; empty where there is no such program."""
    done = _run(words)
    return done.stdout if done else ""


def run(words: Sequence[str]) -> None:
    """Run it; `SetupError` with its last words if it fails."""
    done = _run(words)
    if done is None:
        raise SetupError(f"there is no program {words[0]} in {_PATH}")
    if done.returncode != 0:
        told = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise SetupError(f"`{' '.join(words)}` failed: {told}")


def _run(words: Sequence[str]) -> "subprocess.CompletedProcess[str] | None":
    program = shutil.which(words[0], path=_PATH)
    if program is None:
        return None
    try:
        return subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_SECONDS,
            check=False,
            cwd="/",
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError) as cause:
        raise SetupError(f"`{' '.join(words)}` failed: {cause}") from cause
