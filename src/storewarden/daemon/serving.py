# SPDX-License-Identifier: MIT
"""What the service works with: its store, and who removes for it, so that it can be interrupted."""

import os
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from storewarden.config import Config, Mode
from storewarden.daemon.work import Work, problem
from storewarden.errors import StorewardenError
from storewarden.opening import open_remover, open_store, removes_here
from storewarden.repair import HelperUnavailableError


class Ended(Exception):  # noqa: N818 - it is no error
    """Told to end while somebody else is waited for, who goes on alone."""


def open_work(
    config: Config,
    log: FilteringBoundLogger,
    pulse: Callable[[], None],
    ended: Callable[[], bool],
) -> Work:
    """The memory of a service that begins. `HelperUnavailableError` where that was never set up.

    `pulse` is called at least every ten seconds of work, and `ended` tells whether to end.
    """
    store = open_store(config)
    here = removes_here(store)
    if config.mode is Mode.REPAIR and not here and not os.path.exists(config.socket):
        raise HelperUnavailableError(
            f"there is no helper: {config.socket} does not exist; set it up with: sudo storewarden"
            ' setup; or only report, with mode = "report" in the configuration'
        )
    work = Work(config, store, lambda _: iter(()), log, pulse, ended)
    refresh(work)
    return work


def refresh(work: Work) -> None:
    """Open store and remover anew: build users, mounts and configuration may have changed."""

    def waiting() -> None:
        work.pulse()
        if work.ended():
            raise Ended

    # Thousands of paths take Nix a while: a sign of life before each batch.
    work.store = open_store(work.config, lambda _asked, _all: waiting())
    try:
        work.remove = open_remover(work.config, work.store, "by the service", waiting)
    except StorewardenError as cause:
        problem(work, "helper", str(cause))
