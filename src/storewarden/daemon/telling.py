# SPDX-License-Identifier: MIT
"""Letting others know how the service is: its status file, systemd, Prometheus."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from storewarden.daemon.notify import Notify
from storewarden.daemon.snapshot import snapshot, status_line
from storewarden.daemon.status import Status, write_status
from storewarden.daemon.work import Work, problem
from storewarden.errors import StorewardenError


@dataclass(slots=True)
class Telling:
    """Who is told, and what was told last."""

    notify: Notify
    started: float = field(default_factory=time.time)
    said: Status | None = None


def tell(telling: Telling, work: Work, wakes: str) -> None:
    """Write down how things stand. What cannot be written is one of those things."""
    telling.said = said = snapshot(work, telling.started, wakes)
    try:
        write_status(work.config.runtime_dir, said)
        problem(work, "status", "")
    except OSError as cause:
        problem(work, "status", f"cannot be written: {cause}")
    if work.config.metrics_textfile is not None:
        _write_metrics(work, work.config.metrics_textfile, said)
    telling.notify(f"STATUS={status_line(said)}")


def _write_metrics(work: Work, path: str, said: Status) -> None:
    from storewarden.daemon.metrics import write_textfile  # noqa: PLC0415 - two MiB, for who wants them

    try:
        write_textfile(path, said)
    except StorewardenError as cause:
        problem(work, "metrics-textfile", str(cause))
    else:
        problem(work, "metrics-textfile", "")


@contextmanager
def answering(telling: Telling, work: Work) -> Iterator[None]:
    """Answer Prometheus while inside, if that is wanted and can be had."""
    with ExitStack() as stack:
        if work.config.metrics_listen is not None:
            from storewarden.daemon.metrics import listening  # noqa: PLC0415 - as above

            last = telling.said or snapshot(work, telling.started, "")
            answers = listening(work.config.metrics_listen, lambda: telling.said or last)
            try:
                stack.enter_context(answers)
                problem(work, "metrics-listen", "")
            except StorewardenError as cause:
                problem(work, "metrics-listen", str(cause))
        yield
