# SPDX-License-Identifier: MIT
"""`storewarden run -- CMD...`: a build that is run again once, if debris was in its way."""

import argparse
import os
import shlex
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from storewarden.child import NOT_EXECUTABLE, NOT_FOUND, End, end_likewise, run_child
from storewarden.claims import Verdict
from storewarden.cli import console
from storewarden.cli.explain import reading_lines
from storewarden.cli.options import REMOVAL, add_options, config_of
from storewarden.cli.scan import outcome_line
from storewarden.cli.usage import Exit, Parser
from storewarden.client import (
    HelperKilledError,
    HelperUnavailableError,
    by_hand,
    open_remover,
    requests_for,
)
from storewarden.config import Config, Mode
from storewarden.daemon.status import is_held, read_status
from storewarden.errors import StoreUnreadableError, StorewardenError
from storewarden.explain.buildlog import BuildLog, Reading, Seen
from storewarden.nix_queries import feed_log
from storewarden.observe import list_names, misplaced, open_nix, open_store, this_store
from storewarden.readable import REMOVE, shown
from storewarden.scan import Finding, sweep_among
from storewarden.store.entries import EntryKind, open_directory
from storewarden.store.nix import Nix
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store

_DESCRIPTION = """\
Runs CMD as it is: its output, its exit code and all signals go through
untouched. If it fails because of what an earlier build left in the store, and
that is proved dead, it is removed and CMD is run once more. Any other failure
is explained on stderr as far as it is known, and not tried again. Who may
remove is who may with scan: root, or whom the helper lets; where the service
runs, it is waited for.
examples:
  storewarden run -- nix build .#default
  sudo storewarden run -- nixos-rebuild switch
"""
_SERVICE_SECONDS = 60.0
"""For which the service is waited for: it tries again within 30 s what it was refused."""
_SETTLE_SECONDS = 5.0
"""For which what has just failed may live on: its locks, its processes, what it wrote is young."""
_LOOK_SECONDS = 0.25
_LOG_SECONDS = 20.0
"""For all logs together: the command has ended, and whoever waits for it waits on."""


def define_run(command: Parser) -> None:
    """What it takes and does."""
    command.does(_run, _DESCRIPTION)
    command.add_argument("words", nargs="+", metavar="CMD", help="the command, after --")
    add_options(command, *REMOVAL)


def _run(arguments: argparse.Namespace) -> int:
    config, command, rewind = config_of(arguments), arguments.words, _rewinding(0)
    before: frozenset[str] | None
    try:
        before = names_in(config.store_dir)
    except StorewardenError:
        before = None  # told after a failure, where it matters
    try:
        log = BuildLog(config.store_dir)
        end = run_child(command, log.feed)
    except OSError as cause:
        console.error(
            f"cannot run {shlex.quote(command[0])}: {(cause.strerror or str(cause)).lower()}"
        )
        return NOT_FOUND if isinstance(cause, FileNotFoundError) else NOT_EXECUTABLE
    if end.code != 0 and not end.by_request:
        try:
            if _cured(config, log, before, rewind):
                console.note(f"running it once more: {shlex.join(command)}")
                end = _again(config, command)
        except (KeyboardInterrupt, HelperKilledError):
            console.error("interrupted; if a removal was begun, the next one finishes it")
            return Exit.INTERRUPTED
        except StorewardenError as cause:
            console.error(str(cause))
    return end_likewise(end)


def _cured(
    config: Config, log: BuildLog, before: frozenset[str] | None, rewind: Callable[[], bool]
) -> bool:
    """Whether it failed on debris that is gone now, so that it may be run again; if not, why."""
    first = log.reading()
    store = open_store(config)
    if why := misplaced(store.state_dir, store.store_dir):
        raise StoreUnreadableError(why)
    found: tuple[Finding, ...] = ()
    for reading in readings(log, open_nix(config)):
        first = first if first.seen else reading
        if found := blamed(store, reading, before or ()):
            break
    if not found or not _removed(config, store, found):
        _explain(config, first, before)
        return False
    if not rewind():
        console.note(
            "its standard input has been read and cannot be given again: run it again yourself"
        )
        return False
    return True


def _again(config: Config, command: Sequence[str]) -> End:
    log, before = BuildLog(config.store_dir), names_in(config.store_dir)
    end = run_child(command, log.feed)
    if end.code != 0 and not end.by_request:
        _explain(config, log.reading(), before)
    return end


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
        feed_log(nix, derivation, until - time.monotonic(), log.feed)
        yield log.reading()


def blamed(store: Store, reading: Reading, before: Collection[str]) -> tuple[Finding, ...]:
    """The unregistered outputs that a reading names, of what lay there before the command began.

    What came later is what its own builds left: those have failed for another reason. Whoever has
    just failed is given some seconds to end.
    """
    prefix = f"{store.store_dir.path}/"
    named = {
        path.removeprefix(prefix)
        for seen in reading.seen
        if seen.failure.in_the_way
        for path in seen.paths
    }
    names = named.intersection(before)
    until = time.monotonic() + _SETTLE_SECONDS
    while names:
        swept = sweep_among(store, names, (EntryKind.OUTPUT,)).findings
        found = tuple(finding for finding in swept if finding.base_name in names)
        if not any(map(is_kept, found)) or time.monotonic() > until:
            return found
        time.sleep(_LOOK_SECONDS)
    return ()


def is_by_itself(seen: Seen, before: Collection[str]) -> bool:
    """Whether the builder itself made what was then in its way: it was not there before."""
    names = {path.rpartition("/")[2] for path in seen.paths}
    return bool(seen.failure.by_itself and names) and names.isdisjoint(before)


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


def _removed(config: Config, store: Store, found: Sequence[Finding]) -> bool:
    """Whether nothing of it is in the way any more; each step is told."""
    for one in found:
        path = store.store_dir.join(one.base_name)
        console.note(f"this failed on what an earlier build left: {path}")
        if is_kept(one):
            console.note(f"it is kept: {'; '.join(one.judgement.reasons)}")
    if any(map(is_kept, found)):
        return False
    try:
        remove = open_remover(config, store, f"{by_hand()}, for a build that failed on it")
        for outcome in remove(requests_for(found)):
            console.aside(outcome_line(outcome, store.store_dir, console.aside_style()))
    except HelperUnavailableError:
        service = read_status(config.runtime_dir) if is_held(config.runtime_dir) else None
        if service is None or service.mode != Mode.REPAIR:
            console.note(f"this user may not remove it: {this_store(config).command(REMOVE)}")
            return False
        console.note("waiting for the service to remove it ...")
        return are_gone(store, found, _SERVICE_SECONDS)
    return are_gone(store, found, 0)


def _explain(config: Config, reading: Reading, before: frozenset[str] | None) -> None:
    """Tell what is known of it; `before` are the names that lay there when it began, if known."""
    own = tuple(seen for seen in reading.seen if before is not None and is_by_itself(seen, before))
    for seen in own:
        paths = ", ".join(map(shown, seen.paths))
        console.note(
            f"nothing lay at {paths} when this began, so no earlier build left it:"
            f" {seen.failure.by_itself}"
        )
    other = replace(reading, seen=tuple(seen for seen in reading.seen if seen not in own))
    if other.seen:
        console.aside("")
        console.aside(*reading_lines(other, console.aside_style(), this_store(config)))
    elif not own:
        console.note(
            "its log tells of no debris in its way, nor of any known failure; it is not run again"
        )


def _rewinding(fd: int) -> Callable[[], bool]:
    """What brings that input back to where it stands now, and gives whether it could.

    A terminal, nothing, or a file can be read again; what came through a pipe is gone.
    """
    try:
        mode = os.fstat(fd).st_mode
        start = os.lseek(fd, 0, os.SEEK_CUR) if stat.S_ISREG(mode) else 0
    except OSError:
        return lambda: True  # there is none

    def rewind() -> bool:
        if stat.S_ISREG(mode):
            os.lseek(fd, start, os.SEEK_SET)
        return stat.S_ISREG(mode) or stat.S_ISCHR(mode)

    return rewind
