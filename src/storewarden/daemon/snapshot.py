# SPDX-License-Identifier: MIT
"""From the service's memory to what it says of itself."""

import os
import time
from collections import Counter

from storewarden.daemon.status import Status, Stuck
from storewarden.daemon.work import Work

_MOST = 100
"""Of stuck entries that are listed; all are counted."""


def snapshot(work: Work, started: float, wakes: str) -> Status:
    """The service at this moment."""
    stuck = [
        Stuck(one.name, one.kind, one.since, one.reasons)
        for one in work.suspects.values()
        if one.reasons
    ]
    stuck.sort(key=lambda one: (one.since, one.name))
    return Status(
        pid=os.getpid(),
        started=started,
        updated=time.time(),
        mode=work.config.mode.value,
        store_dir=work.config.store_dir.path,
        wakes=wakes,
        sweeps=work.sweeps,
        swept=work.swept,
        sweep_seconds=work.sweep_seconds,
        overflows=work.overflows,
        found=dict(sorted(Counter(kind.value for kind in work.known.values()).items())),
        watched=len(work.suspects),
        stuck=tuple(stuck[:_MOST]),
        stuck_count=len(stuck),
        removed=dict(work.removed),
        removed_bytes=work.removed_bytes,
        refused=work.refused,
        failed=work.failed,
        problems=dict(work.problems),
    )


def status_line(status: Status) -> str:
    """The same in one line, for `systemctl status`."""
    words = [
        f"{sum(status.found.values())} found",
        f"{status.watched} watched",
        f"{sum(status.removed.values())} removed",
    ]
    if status.stuck_count:
        words.append(f"{status.stuck_count} STUCK")
    words += [f"{where}: {text}" for where, text in status.problems.items()]
    return "; ".join(words)
