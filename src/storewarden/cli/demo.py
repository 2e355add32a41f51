# SPDX-License-Identifier: MIT
"""`storewarden demo`: the main job on a throwaway store, with debris of every kind."""

import argparse
import os
import tempfile
from collections.abc import Callable

from storewarden import audit_reading
from storewarden.cli import console
from storewarden.cli.audit import record_line, verification_lines
from storewarden.cli.findings import sweep_lines
from storewarden.cli.scan import outcome_line
from storewarden.cli.usage import Parser
from storewarden.client import IMPORT_THIS, own_helper, requests_for
from storewarden.config import Config
from storewarden.protocol import Status
from storewarden.readable import PLAIN, Mark, Style
from storewarden.scan import sweep
from storewarden.store.paths import StorePath, output_lock
from storewarden.throwaway import ThrowawayStore

_INTRODUCTION = (
    "A throwaway store in {}: real directories, a real database, and one lock that is really held."
    " There is no Nix here, so its database is asked in its place."
)
_HELPER = f"""\
{IMPORT_THIS}
from storewarden.helper.__main__ import main
from storewarden.throwaway import open_store
sys.exit(main(open_store=open_store))
"""
"""A helper like any other, with the witnesses of a throwaway store."""
Say = Callable[[str], None]


_DESCRIPTION = """\
Makes a store of its own with debris in it, looks, removes what is proved dead,
and shows the record. It touches no other store, and needs neither Nix nor root.
examples:
  storewarden demo
"""


def define_demo(command: Parser) -> None:
    """What it takes and does."""
    command.does(_demo, _DESCRIPTION)


def _demo(_arguments: argparse.Namespace) -> int:
    return demo(console.show, console.style())


def demo(say: Say, style: Style = PLAIN) -> int:
    """Show find, prove, remove and record, in a store that is gone afterwards; 0 if all held."""
    with tempfile.TemporaryDirectory(prefix="storewarden-demo-") as directory:
        place = ThrowawayStore.create(directory)
        try:
            alive = _fill(place)
            return _show(place, alive, f"{directory}/log/audit.jsonl", say, style)
        finally:
            place.close()


def _fill(place: ThrowawayStore) -> StorePath:
    """Valid paths, debris of every kind, and one build that is alive; gives the latter's output."""
    for name in ("hello-2.12", "bash-5.3", "glibc-2.42"):
        place.add_valid(name)
    place.strand(place.add_derivation("interrupted-1.0"))
    two = place.add_derivation("two-outputs-2.0")
    place.strand(two)
    place.strand(two, "dev")
    live = place.add_derivation("live-3.0")
    alive = place.strand(live)
    place.hold(place.path(output_lock(live, "out")))
    place.add_lock(f"{place.invent('substituted-4.0').base_name}.lock")
    os.mkdir(place.path(f"{place.invent('sandboxed-5.0.drv').base_name}.chroot"), 0o700)
    for suffix in (".check", ".old-12-1", ".tmp", ""):
        place.add_file(f"{place.invent('kept-6.0').base_name}{suffix}")
    for name in ("tmp-123-0", ".DS_Store"):
        place.add_file(name)
    place.register(place.invent("lost-7.0"))
    return alive


def _show(place: ThrowawayStore, alive: StorePath, log: str, say: Say, style: Style) -> int:
    store = place.as_store()
    config = Config(store_dir=place.store_dir, state_dir=place.state_dir, audit_log=log)
    remove = own_helper(config, "by the demo", program=_HELPER)

    def as_typed(words: str) -> None:
        say(f"\n$ {style.mark(Mark.NAME, words)}")

    for line in style.wrapped("", _INTRODUCTION.format(place.store_dir.path), ""):
        say(line)
    as_typed("storewarden scan --dry-run")
    found = sweep(store)
    for line in sweep_lines(found, store, style=style):
        say(line)
    as_typed("sudo storewarden scan --yes")
    outcomes = list(remove(requests_for(found.findings)))
    for outcome in outcomes:
        say(outcome_line(outcome, store.store_dir, style))
    as_typed("storewarden audit show")
    for record in audit_reading.read_records(log):
        say(record_line(record, style))
    as_typed("storewarden audit verify")
    verified = audit_reading.verify(log)
    for line in verification_lines(verified, style):
        say(line)
    left = sweep(store).findings
    # Where no lock can be seen (no /proc/locks, as under gVisor) a sweep doubts what is alive.
    kept = {outcome.base_name for outcome in outcomes if outcome.status is Status.KEPT}
    removable = {request.base_name for request in requests_for(left)} - kept
    removed = sum(outcome.status is Status.REMOVED for outcome in outcomes)
    say(
        f"\n{removed} removed, {len(left)} kept: what is alive, what is Nix's own, what is foreign."
    )
    kept_alive = os.path.isdir(place.path(alive.base_name))
    return 0 if kept_alive and removed and not removable and not verified.problem else 1
