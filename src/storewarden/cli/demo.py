# SPDX-License-Identifier: MIT
"""`storewarden demo`: the main job on a throwaway store, with debris of every kind."""

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable

from storewarden import audit_reading
from storewarden.cli import console
from storewarden.cli.audit import removal_line, verification_lines
from storewarden.cli.findings import sweep_lines
from storewarden.cli.scan import done_line, outcome_line
from storewarden.cli.usage import Parser
from storewarden.client import IMPORT_THIS, own_helper, requests_for
from storewarden.config import Config
from storewarden.protocol import Status
from storewarden.readable import PLAIN, Mark, Style, shown, typed
from storewarden.scan import sweep
from storewarden.store.paths import StorePath, output_lock
from storewarden.throwaway import ThrowawayStore

_INTRODUCTION = (
    "A throwaway store in {}: real directories, a real database, a lock that is really held. No"
    " other store is touched. Nix is not asked: the database is, in its place."
)
_BUILDER = 'mkdir -p "$out/bin" && cp /dev/null "$out/bin/tool" && echo "built $out"'
"""What the builder of hello does."""
_MOST = 3
_HELPER = f"""\
{IMPORT_THIS}
from storewarden.helper.__main__ import main
from storewarden.throwaway import open_store
sys.exit(main(open_store=open_store))
"""
"""A helper like any other, with the witnesses of a throwaway store."""
Say = Callable[[str], None]


_DESCRIPTION = """\
Makes a store of its own with debris in it. A build fails on that, what is
proved dead is removed, and the build succeeds. It touches no other store, and
needs neither Nix nor root.
examples:
  storewarden demo
"""


def define_demo(command: Parser) -> None:
    """What it takes and does."""
    command.does(_demo, _DESCRIPTION)


def _demo(_arguments: argparse.Namespace) -> int:
    return demo(console.show, console.style())


def demo(say: Say, style: Style = PLAIN) -> int:
    """Show the wedge and its cure, in a store that is gone afterwards; 0 if all was as wanted."""
    with tempfile.TemporaryDirectory(prefix="storewarden-demo-") as directory:
        place = ThrowawayStore.create(directory)
        try:
            wedged, alive = _fill(place)
            return _show(place, wedged, alive, f"{directory}/log/audit.jsonl", say, style)
        finally:
            place.close()


def _fill(place: ThrowawayStore) -> tuple[StorePath, StorePath]:
    """Valid paths, debris of every kind, and one build that is alive.

    Gives the output that is stranded in the way of its next build, and that of the living one.
    """
    for name in ("bash-5.3", "glibc-2.42"):
        place.add_valid(name)
    wedged = place.strand(place.add_derivation("hello-2.12"))
    os.chmod(place.path(f"{wedged.base_name}/bin/tool"), 0o444)  # as builders leave what is done
    two = place.add_derivation("two-outputs-2.0")
    place.strand(two)
    place.strand(two, "dev")
    live = place.add_derivation("live-3.0")
    alive = place.strand(live)
    place.hold(place.path(output_lock(live, "out")))
    place.add_lock(f"{place.invent('substituted-4.0').base_name}.lock")
    os.mkdir(place.path(f"{place.invent('sandboxed-5.0.drv').base_name}.chroot"), 0o700)
    for suffix in (".check", ".old-12-1", ".tmp"):
        place.add_file(f"{place.invent('kept-6.0').base_name}{suffix}")
    if os.geteuid() == 0:  # what is only reported because it is root's; else all is one user's
        place.add_file(place.invent("copied-8.0").base_name)
    for name in ("tmp-123-0", ".DS_Store"):
        place.add_file(name)
    place.register(place.invent("lost-7.0"))
    return wedged, alive


def build(place: ThrowawayStore, output: StorePath) -> tuple[bool, str]:
    """Run the builder of that output, as the next build user where that can be; what it printed."""

    def run(user: int | None, group: int | None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", "-c", _BUILDER],
            env={"PATH": "/usr/bin:/bin", "out": output.base_name},
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=place.store_dir.path,  # entered as root: others need not see what is above
        )

    try:
        # The store's group is that of the build users: they make their outputs in it.
        other = place.builder + 1 if os.geteuid() == 0 else None
        done = run(other, None if other is None else os.stat(place.store_dir.path).st_gid)
    except (OSError, subprocess.SubprocessError):  # a user namespace that has no other user
        done = run(None, None)
    return done.returncode == 0, done.stdout.strip()


def _show(
    place: ThrowawayStore,
    wedged: StorePath,
    alive: StorePath,
    log: str,
    say: Say,
    style: Style,
) -> int:
    store = place.as_store()
    config = Config(store_dir=place.store_dir, state_dir=place.state_dir, audit_log=log)
    remove = own_helper(config, "by the demo", program=_HELPER)

    def as_typed(words: str) -> None:
        say(f"\n$ {style.mark(Mark.NAME, words)}")

    for line in style.wrapped("", _INTRODUCTION.format(place.store_dir.path), ""):
        say(line)
    say("An earlier build of hello was killed. The next one meets what it left:")
    as_typed("build hello")
    began, printed = build(place, wedged)
    say(style.folded("", shown(printed), "    "))
    as_typed("storewarden scan --yes")
    found = sweep(store)
    for line in sweep_lines(found, store, style=style, most=_MOST):
        say(line)
    answers = remove(requests_for(found.findings))
    outcomes = [one for one in answers if one.status is not Status.TAKEN]
    for outcome in outcomes:
        if outcome.status is not Status.REMOVED:
            say(outcome_line(outcome, store.store_dir, style))
    say(done_line(outcomes))
    as_typed("build hello")
    ended, printed = build(place, wedged)
    say(style.folded("", shown(printed), "    "))
    as_typed("storewarden audit log")
    for removal in reversed(audit_reading.removals(audit_reading.read_records(log))):
        say(removal_line(removal, style))
    as_typed("storewarden audit verify")
    verified = audit_reading.verify(log)
    for line in verification_lines(verified, style):
        say(line)
    left = sweep(store).findings
    # Where no lock can be seen (no /proc/locks, as under gVisor) a sweep doubts what is alive.
    kept = {outcome.base_name for outcome in outcomes if outcome.status is Status.KEPT}
    removable = {request.base_name for request in requests_for(left)} - kept - {wedged.base_name}
    removed = sum(outcome.status is Status.REMOVED for outcome in outcomes)
    rest = len({finding.base_name for finding in left} - {wedged.base_name})
    say(f"\n{removed} removed, {rest} kept: what is alive, what is Nix's own, what is foreign.")
    own = typed("Your own store: storewarden scan --dry-run looks, and changes nothing.")
    say(style.folded("", own, "    "))
    kept_alive = os.path.isdir(place.path(alive.base_name))
    cured = not began and ended
    return 0 if cured and kept_alive and removed and not removable and not verified.problem else 1
