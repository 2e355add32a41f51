# SPDX-License-Identifier: MIT
"""`storewarden scan`: one sweep, shown; removal on request, here, by the helper, or by sudo."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from storewarden.claims import PROOF
from storewarden.cli import console
from storewarden.cli.findings import MOST, Groups, grouped, much_text, sweep_json, sweep_lines
from storewarden.cli.options import REMOVAL, add_options, config_of, may_ask, typed_options
from storewarden.cli.usage import JSON, Exit, Parser, first_interrupt_waits, interrupt
from storewarden.client import (
    HelperKilledError,
    by_hand,
    may_connect,
    open_remover,
    removes_here,
    requests_for,
)
from storewarden.config import Config
from storewarden.errors import UnavailableError
from storewarden.observe import open_store, this_store
from storewarden.protocol import Outcome, RemoveRequest, Status
from storewarden.readable import PLAIN, REMOVE, Style, count_text, shown, size_text
from storewarden.scan import Sweep, sweep
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store

_DESCRIPTION = """\
One sweep over the store. Shows what it finds; on a terminal it then offers to
remove what nothing claims, by sudo where this user may not. It needs no
privilege to look.
examples:
  storewarden scan --dry-run
  sudo storewarden scan --yes
  storewarden scan --json | jq .summary
  storewarden scan --json | jq '.findings[] | select(.verdict != "keep").path'
  storewarden scan --json | jq '.findings[] | {path, verdict, reasons}'
"""
_DONE = {
    Status.TAKEN: "moved aside",
    Status.REMOVED: "removed",
    Status.VANISHED: "already gone",
    Status.KEPT: "kept",
    Status.PARTIAL: "moved aside, but not all of it could be removed",
    Status.FAILED: "FAILED",
}
_ENDS = {
    Status.REMOVED: "removed",
    Status.VANISHED: "already gone",
    Status.KEPT: "kept",
    Status.PARTIAL: "removed in part",
    Status.FAILED: "failed",
}
_WELL = {Status.TAKEN, Status.REMOVED, Status.VANISHED}
"""What needs no line of its own: it is counted."""
_BAD = {Status.FAILED, Status.PARTIAL}
_INDENT = "    "
_ROOT_MAY = "root may be answered by Nix"
"""Where this user is not: its socket may be closed to them, as Debian has it, or `allowed-users`
leaves them out."""


class Way(Enum):
    """How what was found is removed."""

    NOT = "not at all"
    HERE = "by a helper: of this process, or of the service"
    BY_SUDO = "by this command, run by sudo"


@dataclass(slots=True)
class Removal:
    """What has become of what was asked for, so far."""

    every: int
    done: list[Outcome] = field(default_factory=list)
    aside: dict[str, Outcome] = field(default_factory=dict)
    """What is out of the store, and not yet purged."""

    def note(self, outcome: Outcome) -> None:
        """Remember what became of one."""
        if outcome.status is Status.TAKEN:
            self.aside[outcome.base_name] = outcome
        else:
            self.done.append(outcome)
            self.aside.pop(outcome.base_name, None)

    def counter(self) -> str:
        """How far it is."""
        if not self.done and not self.aside:
            return f"proving {self.every} dead" if self.every else "finishing a removal"
        freed = size_text(sum(outcome.bytes for outcome in self.done))
        text = f"removing: {len(self.done)} of {self.every}, {freed} freed"
        return f"{text}; at {next(iter(self.aside))}" if self.aside else text

    def tally(self) -> str:
        """What has been done and what has not, where it was interrupted."""
        text = done_line(self.done)
        if self.aside:
            text += f", {len(self.aside)} moved aside, which the next run removes"
        rest = max(0, self.every - len(self.done) - len(self.aside))
        return f"{text}, {rest} not touched"


def define_scan(command: Parser) -> None:
    """What it takes and does."""
    command.does(scan, _DESCRIPTION)
    add = command.add_argument
    add("-n", "--dry-run", action="store_true", help="only show; wins over --yes")
    add("-y", "--yes", action="store_true", help="remove without asking")
    add("--all", action="store_true", help=f"show every entry, not only {MOST}")
    add("-v", "--verbose", action="store_true", help="a line for each removal")
    add("-q", "--quiet", action="store_true", help="show only what went wrong, and the count")
    add("--json", action="store_true", help=JSON)
    add(
        "--kind",
        action="append",
        metavar="KIND",
        choices=[kind.value for kind in EntryKind],
        help=f"only this kind, may be repeated: {', '.join(EntryKind)}",
    )
    add("--exit-code", action="store_true", help="exit with 1 if anything is found")
    add_options(command, *REMOVAL)


def scan(arguments: argparse.Namespace) -> int:
    """Sweep, show, and remove if that was agreed to; gives the exit code."""
    config, asks = config_of(arguments), may_ask()
    store = open_store(config, _asking)
    kinds = frozenset(map(EntryKind, arguments.kind or EntryKind))
    # A kind that is only reported by default is removed where it is named.
    removed = kinds & PROOF.keys() if arguments.kind else config.kinds
    with console.progress("looking for what is not registered"):
        found = sweep(store, kinds)
    for text in found.notes:
        _note(arguments, text)
    command = this_store(config).command(" ".join([REMOVE, *typed_options(arguments)]))
    if found.leftovers:
        _note(arguments, f"an interrupted removal waits; this finishes it: {command}")
    requests, groups = requests_for(found.findings, removed), grouped(found.findings, removed)
    way = _way(arguments, config, store, found, requests)
    agreed, question = arguments.yes and way is not Way.NOT, False
    if not arguments.json:
        question = way is not Way.NOT and not agreed and asks and console.at_terminal()
        most = None if arguments.all else 0 if arguments.quiet else MOST
        lines = sweep_lines(found, store, removed, console.style(), most)
        (console.show if question or agreed else _page)(*lines)
        if question:
            agreed = _agreed(groups, way, command)
            if not agreed:
                console.note("nothing was removed")
        elif requests and not agreed:
            _note(arguments, f"to remove what can go: {command}")
    if agreed and way is Way.BY_SUDO:
        _by_sudo(command)
    outcomes = _repaired(arguments, config, store, found, requests) if agreed else None
    if arguments.json:
        console.show(sweep_json(found, store, outcomes, removed))
    elif outcomes:
        console.show(done_line(outcomes))
    return _exit_code(arguments, found, outcomes or [], "" if question else command)


def _page(*lines: str) -> None:
    console.page(lines)


def _note(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        console.note(text)


def _asking(asked: int, every: int) -> None:
    console.tell(f"asking Nix about {count_text(every, 'path')}, {asked} done")


def _way(
    arguments: argparse.Namespace,
    config: Config,
    store: Store,
    found: Sweep,
    requests: Sequence[RemoveRequest],
) -> Way:
    """How it may be removed: what cannot be done is not offered.

    Without a terminal nobody could answer sudo, so there --yes says why it cannot be done.
    """
    for_root = bool(found.nix_silent) and not requests and not removes_here(store)
    if arguments.dry_run or not (requests or arguments.yes or for_root):
        return Way.NOT
    if not for_root and (removes_here(store) or may_connect(config.socket)):
        return Way.HERE
    # Where root may not, because the store is another user's, sudo would lead back here.
    nobody = arguments.json or os.geteuid() == 0 or not console.at_terminal()
    if nobody or not (requests or for_root):
        return Way.HERE if arguments.yes else Way.NOT
    return Way.BY_SUDO


def _agreed(groups: Groups, way: Way, command: str) -> bool:
    """Whether a person at a terminal says yes."""
    count = len(groups.going)
    much = much_text(groups.going)
    question = f"Remove {'this one' if count == 1 else f'these {count}'}"
    question += f" ({much})" if much else ""
    if not count:  # Nix answers root alone
        question = "Ask as root, and remove what is proved dead,"
    if way is Way.BY_SUDO:
        console.note(f"{'root removes them, by' if count else _ROOT_MAY}: {command}")
        question += " by sudo"
    try:
        return input(f"{question}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        console.show("")  # what was typed ended no line
        return False
    except KeyboardInterrupt:
        console.show("")
        raise


def _by_sudo(command: str) -> None:
    """Become that command; `UnavailableError` where there is no sudo."""
    console.note(f"running: {command}")
    words = shlex.split(command)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        os.execvp(words[0], words)  # noqa: S606 - the very command that was shown
    except OSError as cause:
        raise UnavailableError(
            f"cannot run {words[0]}: {(cause.strerror or str(cause)).lower()}; as root: {command}"
        ) from cause


def _repaired(
    arguments: argparse.Namespace,
    config: Config,
    store: Store,
    found: Sweep,
    requests: tuple[RemoveRequest, ...],
) -> list[Outcome]:
    """What became of each. Ctrl-C ends it after the batch at work."""
    # Also where nothing lies about: a run that was killed may have left an open intent.
    begun = found.leftovers or os.path.exists(config.audit_log)
    if not requests and not (begun and removes_here(store)):
        return []
    removal = Removal(len(requests))
    with first_interrupt_waits(
        "interrupted; the next run finishes what was begun",
        lambda: console.note("finishing what was begun; Ctrl-C again to leave it to the next run"),
    ) as interrupted:
        remove = open_remover(config, store, by_hand(), stopped=lambda: bool(interrupted))
        try:
            _follow(arguments, store, remove(requests), removal)
        except HelperKilledError as cause:
            interrupt(f"interrupted: {cause}; {removal.tally()}")
        except KeyboardInterrupt as cause:
            raise KeyboardInterrupt(f"{cause}; told so far: {removal.tally()}") from cause
    if interrupted:
        interrupt(f"interrupted; {removal.tally()}")
    return removal.done


def _follow(
    arguments: argparse.Namespace, store: Store, outcomes: Iterator[Outcome], removal: Removal
) -> None:
    """Count them as they come, and tell of each that did not go as it should."""
    look = console.style()
    with console.progress(removal.counter()):
        for outcome in outcomes:
            removal.note(outcome)
            plain = outcome.status in _WELL
            if not arguments.json and (arguments.verbose or not plain):
                console.show(outcome_line(outcome, store.store_dir, look))
            console.tell(removal.counter())


def _exit_code(
    arguments: argparse.Namespace, found: Sweep, outcomes: list[Outcome], untold: str
) -> int:
    """With what it ends; `untold` is root's command, where it was not offered already."""
    if found.nix_silent:
        if untold and os.geteuid() != 0:
            _note(arguments, f"{_ROOT_MAY}: {untold}")
        console.error(f"Nix could not be asked, so nothing can be removed: {found.nix_silent}")
        return Exit.UNREADABLE
    if any(outcome.status in _BAD or outcome.unproved for outcome in outcomes):
        return Exit.NOT_ALL
    return Exit.FOUND if arguments.exit_code and found.findings else Exit.OK


def outcome_line(outcome: Outcome, store_dir: StoreDir, style: Style = PLAIN) -> str:
    """What became of one entry, in one line; on a terminal it may be folded."""
    text = f": {shown(store_dir.join(outcome.base_name))}"
    if outcome.status is Status.REMOVED and outcome.files + outcome.directories > 1:
        text += f" ({count_text(outcome.files, 'file')}, {size_text(outcome.bytes)})"
    if outcome.reasons:
        text += f": {shown('; '.join(outcome.reasons))}"
    return style.folded("", text, _INDENT, _DONE[outcome.status], console.MARKS[outcome.status])


def done_line(outcomes: Sequence[Outcome]) -> str:
    """How it ended, in one line: how many were removed, and what became of the others."""
    freed = size_text(sum(outcome.bytes for outcome in outcomes))
    counts = [(status, sum(o.status is status for o in outcomes)) for status in _ENDS]
    return ", ".join(
        f"{count} {_ENDS[status]}" + (f" ({freed} freed)" if status is Status.REMOVED else "")
        for status, count in counts
        if count or status is Status.REMOVED
    )
