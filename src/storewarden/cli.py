# SPDX-License-Identifier: MIT
"""The command line: a function a subcommand, errors told once, exit codes."""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from typing import TextIO

from storewarden import auditlog, report, report_status
from storewarden.arguments import parser
from storewarden.config import Config, ConfigError, configured, load_config
from storewarden.findings import Sweep
from storewarden.opening import open_remover, open_store, removes_here
from storewarden.pointing import NotInStoreError
from storewarden.repair import HelperUnavailableError, repair, requests_for
from storewarden.scan import sweep
from storewarden.status import AlreadyRunningError, is_held, read_status
from storewarden.store.entries import EntryKind
from storewarden.store.errors import AuditUnavailableError, StorewardenError
from storewarden.store.store import Store
from storewarden.store.verdict import PROOF, REMOVED_BY_DEFAULT
from storewarden.store.wire import Outcome, RemoveRequest, Status

OK, FOUND, WRONG_USE, UNREADABLE, UNAVAILABLE, NOT_ALL = 0, 1, 2, 3, 4, 5
BUG, INTERRUPTED = 70, 130
_UNAVAILABLE = (HelperUnavailableError, AuditUnavailableError, AlreadyRunningError)
_WHAT = "explain what? say PATH..., or - alone for a log on stdin, or --log FILE"

_unshown: list[str] = []
"""What could not be written to stdout, a full disk there; told by the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments) or (NOT_ALL if _unshown else OK)
    except (ConfigError, NotInStoreError) as cause:
        _error(str(cause))
        return WRONG_USE
    except StorewardenError as cause:
        _error(str(cause))
        return UNAVAILABLE if isinstance(cause, _UNAVAILABLE) else UNREADABLE
    except KeyboardInterrupt as cause:
        _error(str(cause) or "interrupted; nothing was removed")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - the one place where a bug becomes an exit code
        traceback.print_exc()
        _error("this is a bug in storewarden; nothing more was done; please report it")
        return BUG


def _run(arguments: argparse.Namespace) -> int:
    commands = {
        "scan": _scan,
        "explain": _explain,
        "locks": _locks,
        "audit show": _audit_show,
        "audit verify": _audit_verify,
        "check-config": _check_config,
        "watch": _watch,
        "setup": _setup,
        "status": _status,
        "demo": _demo,
    }
    return commands[arguments.command](arguments)


def _scan(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    store = open_store(config)
    kinds = frozenset(map(EntryKind, arguments.kind or EntryKind))
    # A kind that is only reported by default is removed where it is named.
    removed = kinds & PROOF.keys() if arguments.kind else REMOVED_BY_DEFAULT
    found = sweep(store, kinds)
    for note in found.notes:
        _note(note)
    if found.leftovers:
        _note("an interrupted removal waits; this finishes it: sudo storewarden scan --yes")
    wanted = requests_for(found.findings, removed)
    asked = arguments.yes and not arguments.dry_run
    if not arguments.json:
        for line in report.sweep_lines(found, store, removed):
            _print(line)
        asked = asked or _agreed(arguments, wanted)
        if wanted and not asked:
            _note("to remove what can go: sudo storewarden scan --yes")
    outcomes = _repaired(arguments, config, store, found, wanted) if asked else None
    if arguments.json:
        _print(report.sweep_json(found, store, outcomes))
    return _exit_code(arguments, found, outcomes or [])


def _agreed(arguments: argparse.Namespace, wanted: tuple[RemoveRequest, ...]) -> bool:
    """Whether a person at a terminal says yes; nobody is asked anywhere else."""
    at_terminal = all(s is not None and s.isatty() for s in (sys.stdin, sys.stdout))
    if not wanted or arguments.dry_run or not at_terminal:
        return False
    try:
        return input(f"Remove these {len(wanted)}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _config(arguments: argparse.Namespace) -> Config:
    """What the command line says of the store, as a configuration."""
    given = {one.name: getattr(arguments, one.name, None) for one in fields(Config)}
    return replace(Config(), **{name: value for name, value in given.items() if value is not None})


def _repaired(
    arguments: argparse.Namespace,
    config: Config,
    store: Store,
    found: Sweep,
    wanted: tuple[RemoveRequest, ...],
) -> list[Outcome]:
    """What became of each, told as it happens. Ctrl-C ends it after the batch at work."""
    remove = open_remover(config, store)
    interrupted: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if interrupted:
            raise KeyboardInterrupt("interrupted; the next run finishes what was begun")
        interrupted.append(number)
        _note("finishing what was begun; Ctrl-C again to leave it to the next run")

    def outcomes() -> Iterator[Outcome]:
        # Also where nothing lies about: a run that was killed may have left an open intent.
        begun = found.leftovers or os.path.exists(config.audit_log)
        if not wanted and begun and removes_here(store):
            yield from remove(())
        yield from repair(wanted, remove, lambda: bool(interrupted))

    before = signal.signal(signal.SIGINT, stop)
    try:
        done = []
        for outcome in outcomes():
            if not arguments.json:
                _print(report.outcome_line(outcome, store.store_dir))
            if outcome.status is not Status.TAKEN:
                done.append(outcome)
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt("interrupted; what is listed was done, the rest is untouched")
    return done


def _exit_code(arguments: argparse.Namespace, found: Sweep, outcomes: list[Outcome]) -> int:
    if found.nix_silent:
        _error(f"Nix could not be asked, so nothing can be removed: {found.nix_silent}")
        return UNREADABLE
    bad = {Status.FAILED, Status.PARTIAL}
    if any(outcome.status in bad or outcome.unproved for outcome in outcomes):
        return NOT_ALL
    return FOUND if arguments.exit_code and found.findings else OK


def _explain(arguments: argparse.Namespace) -> int:
    from storewarden.explain import explain  # noqa: PLC0415 - seldom wanted

    if arguments.log is not None or arguments.paths == ["-"]:
        return _explain_log(arguments)
    if not arguments.paths or "-" in arguments.paths:
        raise ConfigError(_WHAT)
    config = _config(arguments)
    silent = explain(config, arguments.paths, _print, _note, as_json=arguments.json)
    if silent:
        _error(f"Nix could not be asked: {silent}")
    return UNREADABLE if silent else OK


def _explain_log(arguments: argparse.Namespace) -> int:
    from storewarden.explain_log import Wanted, explain_log  # noqa: PLC0415 - seldom wanted

    if arguments.log is not None and arguments.paths:
        raise ConfigError(_WHAT)
    wanted = Wanted(arguments.log, arguments.store_dir, arguments.json, _print, _aside, _lost)
    known = explain_log(wanted)
    if _unshown:
        return NOT_ALL
    return OK if known else FOUND


def _locks(arguments: argparse.Namespace) -> int:
    from storewarden.explain import locks  # noqa: PLC0415 - seldom wanted

    config = _config(arguments)
    locks(config, _print, _note, everything=arguments.all, as_json=arguments.json)
    return OK


def _audit_show(arguments: argparse.Namespace) -> int:
    records = list(auditlog.read_records(arguments.audit_log))
    if arguments.json:
        _print(json.dumps({"version": report.VERSION, "records": records}, indent=2))
    else:
        for record in records:
            _print(report.record_line(record))
    return OK


def _audit_verify(arguments: argparse.Namespace) -> int:
    found = auditlog.verify(arguments.audit_log)
    if arguments.json:
        document = {"version": report.VERSION, "sound": not found.problem, **asdict(found)}
        _print(json.dumps(document, indent=2))
    else:
        for line in report.verification_lines(found):
            _print(line)
    return FOUND if found.problem else OK


def _check_config(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    if arguments.json:
        _print(report.config_json(config))
    else:
        for line in report.config_lines(config):
            _print(line)
    return OK


def _setup(arguments: argparse.Namespace) -> int:
    from storewarden.setup.run import Order, install, uninstall  # noqa: PLC0415 - seldom wanted

    top = os.path.abspath(arguments.root) if arguments.root else ""
    order = Order(top, arguments.dry_run, arguments.json, _print)
    (uninstall if arguments.uninstall else install)(order)
    return OK


def _watch(arguments: argparse.Namespace) -> int:
    from storewarden.log import open_log  # noqa: PLC0415 - only the service needs these libraries
    from storewarden.watch import watch  # noqa: PLC0415 - likewise

    watch(lambda: configured(arguments.config), open_log())
    return OK


def _demo(_arguments: argparse.Namespace) -> int:
    from storewarden.demo import demo  # noqa: PLC0415 - it brings the engine along

    return demo(_print)


def _status(arguments: argparse.Namespace) -> int:
    config = configured(arguments.config)
    running = is_held(config.runtime_dir)
    said, now = read_status(config.runtime_dir), time.time()
    if said and running:
        said = report_status.noticed(said, now)
    if arguments.json:
        _print(report_status.status_json(said, running=running))
    else:
        for line in report_status.status_lines(said, now, running=running):
            _print(line)
    if not running:
        return UNAVAILABLE
    return NOT_ALL if said and (said.stuck_count or said.problems) else OK


def _lost(reason: str) -> None:
    _error(reason)
    _unshown.append(reason)


def _print(line: str) -> None:
    try:
        print(line, flush=True)  # noqa: T201 - results go to stdout
    except BrokenPipeError:
        _silence(sys.stdout)  # the reader (`| head`) has had enough
    except OSError as cause:
        _error(f"cannot write the results: {os.strerror(cause.errno or 0).lower()}")
        _unshown.append(line)
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    """Nothing more is shown there, not even at the end; what was begun is ended all the same."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _note(text: str) -> None:
    _aside(f"storewarden: {report.shown(text)}")


def _aside(line: str) -> None:
    if sys.stderr is not None:  # print() would take stdout instead
        try:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - what is not a result
        except OSError:
            _silence(sys.stderr)


def _error(text: str) -> None:
    _note(f"error: {text}")
