# SPDX-License-Identifier: MIT
"""Which debris a failed command failed on, by what it printed, or by its builders' own logs."""

import os
import subprocess
import time
from collections.abc import Collection, Iterator
from threading import Timer

from storewarden.claims import Verdict
from storewarden.explain.buildlog import BuildLog, Reading
from storewarden.explain.passing import pass_on
from storewarden.findings import Finding
from storewarden.kept_open import database_kept_open
from storewarden.registrations import list_names
from storewarden.scan import sweep_among
from storewarden.store.entries import EntryKind, open_directory
from storewarden.store.nix import Nix
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store

_TELLING = frozenset({"output-denied", "output-exists", "output-not-empty"})
"""The failures of the catalogue that an unregistered output in the way explains."""
_SETTLE_SECONDS = 5.0
"""For which what has just failed may live on: its locks, its processes, what it wrote is young."""
_LOOK_SECONDS = 0.25
_LOG_SECONDS = 20.0
"""For all logs together: the command has ended, and whoever waits for it waits on."""


def names_in(store_dir: StoreDir) -> frozenset[str]:
    """The base names of all that lies in that store now; `StoreUnreadableError` if it cannot."""
    store_fd = open_directory(store_dir.path)
    try:
        return frozenset(list_names(store_fd))
    finally:
        os.close(store_fd)


def readings(log: BuildLog, nix: Nix) -> Iterator[Reading]:
    """What it printed, and then, as Nix prints only their ends, the logs of what was not built."""
    first = log.reading()
    yield first
    until = time.monotonic() + _LOG_SECONDS
    for derivation in first.failed:
        log = BuildLog(nix.store_dir)
        log.feed(f"building '{derivation}'...\n".encode())
        _read_log(nix, derivation, log, max(0.0, until - time.monotonic()))
        yield log.reading()


def _read_log(nix: Nix, derivation: str, log: BuildLog, seconds: float) -> None:
    """Have Nix unpack the log that it keeps of that derivation's last build; it may have none.

    What it gives within that time counts. No cache is asked for one.
    """
    command = [nix.nix_store, "--option", "substitute", "false", "--read-log", derivation]
    silent = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            command,
            stdin=silent,
            stdout=subprocess.PIPE,
            stderr=silent,
            env=nix.environment(),
            cwd="/",
        )
    except OSError:
        return
    with process:
        end = Timer(seconds, process.kill)
        end.start()
        try:
            assert process.stdout  # noqa: S101 - it was asked for
            pass_on(process.stdout.fileno(), None, log.feed)
        finally:
            end.cancel()
            process.kill()


def blamed(store: Store, reading: Reading, before: Collection[str]) -> tuple[Finding, ...]:
    """The unregistered outputs that a reading names, of what lay there before the command began.

    What came later is what its own builds left: those have failed for another reason. Whoever has
    just failed is given some seconds to end.
    """
    prefix = f"{store.store_dir.path}/"
    named = {
        path.removeprefix(prefix)
        for seen in reading.seen
        if seen.failure.name in _TELLING
        for path in seen.paths
    }
    names = named.intersection(before)
    until = time.monotonic() + _SETTLE_SECONDS
    while names:
        with database_kept_open(store):
            swept = sweep_among(store, names, (EntryKind.OUTPUT,)).findings
        found = tuple(finding for finding in swept if finding.base_name in names)
        if not any(map(is_kept, found)) or time.monotonic() > until:
            return found
        time.sleep(_LOOK_SECONDS)
    return ()


def is_kept(finding: Finding) -> bool:
    """Whether anything claims it, or may."""
    return finding.judgement.verdict is Verdict.KEEP


def are_gone(store: Store, findings: Collection[Finding], seconds: float) -> bool:
    """Whether they go within that time: the service removes them as well."""
    until = time.monotonic() + seconds
    while any(os.path.lexists(f"{store.view}/{one.base_name}") for one in findings):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
