# SPDX-License-Identifier: MIT
"""`storewarden scan`: one sweep, shown; removal on request."""

import argparse
import os
import sys
from collections.abc import Iterator

from storewarden.claims import PROOF
from storewarden.cli.console import error, note, progress, show, style, tell
from storewarden.cli.options import add_audit_log, add_socket, add_store, config_of
from storewarden.cli.usage import FOUND, JSON, NOT_ALL, OK, UNREADABLE, Parser
from storewarden.client import (
    HelperKilledError,
    by_hand,
    open_remover,
    open_store,
    removes_here,
    requests_for,
    this_store,
)
from storewarden.config import Config
from storewarden.copyable import REMOVE
from storewarden.findings import Sweep
from storewarden.interrupts import first_interrupt_waits, interrupt
from storewarden.kept_open import database_kept_open
from storewarden.protocol import Outcome, RemoveRequest, Status
from storewarden.readable import count_text
from storewarden.report.sweep import done_line, outcome_line, sweep_json, sweep_lines
from storewarden.scan import sweep
from storewarden.store.entries import EntryKind
from storewarden.store.store import Store

_DESCRIPTION = """\
One sweep over the store. Shows what it finds; on a terminal it then offers to
remove what nothing claims. It needs no privilege to look.
examples:
  storewarden scan --dry-run
  sudo storewarden scan --yes
  storewarden scan --json | jq '.findings[].path'
"""


def define_scan(command: Parser) -> None:
    """What it takes and does."""
    command.does(scan, _DESCRIPTION)
    add = command.add_argument
    add("-n", "--dry-run", action="store_true", help="only show; wins over --yes")
    add("-y", "--yes", action="store_true", help="remove without asking")
    add("--json", action="store_true", help=JSON)
    add(
        "--kind",
        action="append",
        metavar="KIND",
        choices=[kind.value for kind in EntryKind],
        help=f"only this kind, may be repeated: {', '.join(EntryKind)}",
    )
    add("--exit-code", action="store_true", help="exit with 1 if anything is found")
    add_store(command)
    add_socket(command)
    add_audit_log(command)


def scan(arguments: argparse.Namespace) -> int:
    """Sweep, show, and remove if that was agreed to; gives the exit code."""
    config = config_of(arguments)
    store = open_store(config, _asking)
    kinds = frozenset(map(EntryKind, arguments.kind or EntryKind))
    # A kind that is only reported by default is removed where it is named.
    removed = kinds & PROOF.keys() if arguments.kind else config.kinds
    with progress("looking for what is not registered"), database_kept_open(store):
        found = sweep(store, kinds)
    for text in found.notes:
        note(text)
    if found.leftovers:
        note(f"an interrupted removal waits; this finishes it: {_by_root(config)}")
    wanted = requests_for(found.findings, removed)
    asked = arguments.yes and not arguments.dry_run
    if not arguments.json:
        for line in sweep_lines(found, store, removed, style()):
            show(line)
        asked = asked or _agreed(arguments, wanted)
        if wanted and not asked:
            named = "".join(f" --kind {kind}" for kind in arguments.kind or ())
            note(f"to remove what can go: {_by_root(config, named)}")
    outcomes = _repaired(arguments, config, store, found, wanted) if asked else None
    if arguments.json:
        show(sweep_json(found, store, outcomes))
    elif outcomes:
        show(done_line(outcomes))
    return _exit_code(arguments, found, outcomes or [])


def _by_root(config: Config, options: str = "") -> str:
    return this_store(config).command(f"{REMOVE}{options}")


def _asking(asked: int, every: int) -> None:
    tell(f"asking Nix about {count_text(every, 'path')}, {asked} done")


def _agreed(arguments: argparse.Namespace, wanted: tuple[RemoveRequest, ...]) -> bool:
    """Whether a person at a terminal says yes; nobody is asked anywhere else."""
    at_terminal = all(s is not None and s.isatty() for s in (sys.stdin, sys.stdout))
    if not wanted or arguments.dry_run or not at_terminal:
        return False
    try:
        return input(f"Remove these {len(wanted)}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _repaired(
    arguments: argparse.Namespace,
    config: Config,
    store: Store,
    found: Sweep,
    wanted: tuple[RemoveRequest, ...],
) -> list[Outcome]:
    """What became of each, told as it happens. Ctrl-C ends it after the batch at work."""
    # Also where nothing lies about: a run that was killed may have left an open intent.
    begun = found.leftovers or os.path.exists(config.audit_log)
    if not wanted and not (begun and removes_here(store)):
        return []
    with first_interrupt_waits(
        "interrupted; the next run finishes what was begun",
        lambda: note("finishing what was begun; Ctrl-C again to leave it to the next run"),
    ) as interrupted:
        remove = open_remover(config, store, by_hand(), stopped=lambda: bool(interrupted))
        try:
            done = _told(arguments, store, remove(wanted), len(wanted))
        except HelperKilledError as cause:
            interrupt(f"interrupted: {cause}")
    if interrupted:
        interrupt("interrupted; what is listed was done, the rest is untouched")
    return done


def _told(
    arguments: argparse.Namespace, store: Store, outcomes: Iterator[Outcome], every: int
) -> list[Outcome]:
    done: list[Outcome] = []
    taken: list[str] = []
    look = style()
    with progress(f"proving {every} dead" if every else "finishing an interrupted removal"):
        for outcome in outcomes:
            if not arguments.json:
                show(outcome_line(outcome, store.store_dir, look))
            if outcome.status is Status.TAKEN:
                taken.append(outcome.base_name)
            else:
                done.append(outcome)
                taken = [name for name in taken if name != outcome.base_name]
            if taken:
                tell(f"removing {taken[0]}, {len(taken)} left")
    return done


def _exit_code(arguments: argparse.Namespace, found: Sweep, outcomes: list[Outcome]) -> int:
    if found.nix_silent:
        error(f"Nix could not be asked, so nothing can be removed: {found.nix_silent}")
        return UNREADABLE
    bad = {Status.FAILED, Status.PARTIAL}
    if any(outcome.status in bad or outcome.unproved for outcome in outcomes):
        return NOT_ALL
    return FOUND if arguments.exit_code and found.findings else OK
