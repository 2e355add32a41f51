# SPDX-License-Identifier: MIT
"""`storewarden audit`: `log` what was removed, `show` the records of it, `verify` their chain."""

import argparse
import os
import time
from calendar import timegm
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict

from storewarden.audit import Members
from storewarden.audit_reading import (
    NothingRecordedError,
    Removal,
    Verification,
    flaw,
    read_records,
    removals,
    verify,
)
from storewarden.cli.console import MARKS, error, note, page, progress, show, style
from storewarden.cli.options import add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser, add_command, ended_by_ctrl_c
from storewarden.config import ConfigError, seconds
from storewarden.readable import (
    PLAIN,
    REMOVE,
    Mark,
    Style,
    count_text,
    json_text,
    local_time,
    shown,
    size_text,
    typed,
)

_AUDIT = """\
The audit log has an intent before each removal and its result after it, in a
chain of hashes. Where root removes, root alone can read it.
"""
_EXAMPLES = """\
examples:
  sudo storewarden audit log
  sudo storewarden audit verify
"""
_LOG = """\
What was removed, newest first, a line each: when, what, how much, for whom. Of
a PATH all that is on record; of a derivation, of its outputs.
examples:
  sudo storewarden audit log
  sudo storewarden audit log --since 2h -v
  sudo storewarden audit log /nix/store/...-hello-2.12
  sudo storewarden audit log --json | jq -r '.removals[].path'
"""
_SHOW = """\
Prints every whole record of the audit log as it stands in it, oldest first, a
line each; with --json all of it. Of each removal in a line: audit log.
examples:
  sudo storewarden audit show
  sudo storewarden audit show --json | jq '.records[] | .name'
"""
_VERIFY = """\
Checks that no record was changed, removed or torn. Keep the head that it shows
elsewhere: a later log that is whole still has it.
examples:
  sudo storewarden audit verify
  sudo storewarden audit verify --json | jq -r .head
"""
_MARKS = {str(status): mark for status, mark in MARKS.items()}
_MOST = 20
"""Removals that are shown where not all are asked for."""
_WRITTEN = "%Y-%m-%dT%H:%M:%SZ"
"""As the helper writes a time."""
_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
_LOOK_SECONDS = 1.0


def define_audit(command: Parser) -> None:
    """Its actions, and what they take and do."""
    command.description, command.epilog = _AUDIT, _EXAMPLES
    command.shows_help()
    actions = command.add_subparsers(title="actions", metavar="ACTION")
    for name, line, run, description in (
        ("log", "what was removed, newest first", _log, _LOG),
        ("show", "print the records of the audit log", _show, _SHOW),
        ("verify", "is the record whole", _verify, _VERIFY),
    ):
        action = add_command(actions, name, line)
        action.does(run, description)
        if name == "log":
            _define_log(action)
        action.add_argument("--json", action="store_true", help=JSON)
        add_options(action, "config", "audit-log")


def _define_log(action: Parser) -> None:
    add = action.add_argument
    add("path", nargs="?", metavar="PATH", help="only of this entry, or of this derivation")
    add("-n", "--number", type=_number, metavar="N", help=f"at most so many ({_MOST})")
    add("--all", action="store_true", help="every one")
    add("--since", type=_since, metavar="TIME", help="since 30m, 2h, 3d ago, or a date")
    add("-f", "--follow", action="store_true", help="go on, and show each as it comes")
    add("-v", "--verbose", action="store_true", help="also whose output it was, and why")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of removals")
    return int(text)


def _since(text: str) -> float:
    """A length of time before now, or a local date, as a Unix time."""
    with suppress(ConfigError):
        return time.time() - seconds(text)
    for form in _DATES:
        with suppress(ValueError, OverflowError):
            return time.mktime(time.strptime(text, form))
    raise argparse.ArgumentTypeError(f"{text!r} is neither a time such as 2h nor a date")


def _log(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    log, look, top = config.audit_log, style(), config.store_dir.path
    with progress("reading the audit log"):
        every = _wanted(arguments, _removals_of(log))
    most = len(every) if arguments.all else _MOST if arguments.number is None else arguments.number
    last = every[len(every) - most :] if most < len(every) else every
    if arguments.json:
        show(json_text({"removals": [removal_json(one, top) for one in reversed(last)]}))
        return Exit.OK
    verbose = arguments.verbose or arguments.path is not None
    if arguments.follow:
        show(*_lines(last, look, verbose))
        with ended_by_ctrl_c():
            _follow(arguments, log, look, max((one.seq for one in every), default=0))
    lines = _lines(list(reversed(last)), look, verbose)
    more = [f"... {len(every) - len(last)} earlier: --all"] if len(every) > len(last) else []
    page([*lines, *more])
    if not every:
        note(f"{log} tells of no removal{' of that' if arguments.path else ''}")
    return Exit.OK


def _removals_of(log: str) -> list[Removal]:
    """Those on record; none where there is no log yet."""
    try:
        return removals(read_records(log))
    except NothingRecordedError:
        return []


def _wanted(arguments: argparse.Namespace, every: Sequence[Removal]) -> list[Removal]:
    since, path = arguments.since, arguments.path
    found = [one for one in every if since is None or (unix_time(one.time) or 0) >= since]
    return [one for one in found if path is None or is_about(one, path)]


def is_about(removal: Removal, path: str) -> bool:
    """Whether it is of that entry, or of an output of that derivation, however that is written."""
    named = {removal.name, removal.intent.deriver} - {""}
    return any(name in path.split("/") for name in named)


def _lines(some: Sequence[Removal], look: Style, verbose: bool) -> Iterator[str]:  # noqa: FBT001
    for one in some:
        yield removal_line(one, look)
        if verbose:
            yield from removal_details(one, look)


def _follow(arguments: argparse.Namespace, log: str, look: Style, seen: int) -> None:
    """Show each removal as it comes to its end, until Ctrl-C."""
    before = _trace(log)
    while True:
        time.sleep(_LOOK_SECONDS)
        if (now := _trace(log)) == before:
            continue
        before = now
        every = _removals_of(log)
        new = [one for one in every if one.seq > seen and one.status != "begun"]
        seen = max((one.seq for one in new), default=seen)
        show(*_lines(_wanted(arguments, new), look, arguments.verbose))


def _trace(log: str) -> tuple[int, ...]:
    """What differs once a record has come."""
    try:
        found = os.stat(log)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def unix_time(text: str) -> float | None:
    """That of a record; None where it is none."""
    try:
        return float(timegm(time.strptime(text, _WRITTEN)))
    except (ValueError, OverflowError):
        return None


def removal_line(removal: Removal, style: Style = PLAIN) -> str:
    """When, what became of what, how much, for whom; on a terminal it may be folded."""
    at = unix_time(removal.time)
    when = removal.time if at is None else local_time(at)
    text = f" {removal.name}"
    if removal.files:
        text += f" ({count_text(removal.files, 'file')}, {size_text(removal.bytes)})"
    text += f", {asked_by(removal)}"
    status = removal.status
    return style.folded(f"{shown(when)}  ", shown(text), " " * 8, shown(status), _MARKS.get(status))


def asked_by(removal: Removal) -> str:
    """Who had it removed, as people say it."""
    from storewarden.scan import user_name  # noqa: PLC0415 - what else is there is heavy

    who = removal.intent.requester
    if who is None:
        return "asked by whom is not on record"
    if who.via == "socket":
        return f"asked by {user_name(who.uid) or f'uid {who.uid}'}"
    name = "root" if who.uid == 0 else f"uid {who.uid}"
    return f"asked by {name}, {who.via}" if who.via else f"asked by {name}"


def removal_details(removal: Removal, style: Style = PLAIN) -> Iterator[str]:
    """Whose it was, why it went or stayed, and where the record of it is."""
    intent, indent = removal.intent, " " * 8
    if intent.deriver:
        text = f"output {intent.output or 'unknown'} of {intent.deriver}"
        yield from style.wrapped(indent, shown(text), indent * 2)
    if intent.name:
        owner = f"{removal.kind or 'entry'} of uid {intent.uid}"
        proof = f"; known to be absent: {', '.join(intent.absent)}" if intent.absent else ""
        yield from style.wrapped(indent, shown(f"{owner}{proof}"), indent * 2)
    for reason in removal.reasons:
        yield from style.wrapped(indent, shown(reason), indent * 2)
    yield f"{indent}record {removal.seq}"


def removal_json(removal: Removal, top: str) -> dict[str, object]:
    """The same for programs; names as in the other documents."""
    intent, who = removal.intent, removal.intent.requester
    return {
        "path": f"{top}/{removal.name}",
        "kind": removal.kind or None,
        "status": removal.status,
        "reasons": list(removal.reasons),
        "time": removal.time,
        "files": removal.files,
        "bytes": removal.bytes,
        "deriver": f"{top}/{intent.deriver}" if intent.deriver else None,
        "output": intent.output or None,
        "absent": list(intent.absent),
        "requester": who and {"uid": who.uid, "pid": who.pid, "via": who.via},
        "seq": removal.seq,
    }


def _show(arguments: argparse.Namespace) -> int:
    log = config_of(arguments).audit_log
    with progress("reading the audit log"):
        try:
            records = list(read_records(log))
        except NothingRecordedError as cause:
            note(str(cause))
            records = []
    if arguments.json:
        show(json_text({"records": records}))
    else:
        look = style()
        page([record_line(record, look) for record in records])
    odd = [record for record in records if flaw(record)]
    if odd:
        of_all = f"{len(odd)} of {count_text(len(records), 'record')}"
        error(f"not as storewarden writes them: {of_all}; see: storewarden audit verify")
    return Exit.FOUND if odd else Exit.OK


def _verify(arguments: argparse.Namespace) -> int:
    log = config_of(arguments).audit_log
    with progress("reading the audit log"):
        found = verify(log)
    if arguments.json:
        show(json_text({"sound": not found.problem, **asdict(found)}))
    else:
        show(*verification_lines(found, style()))
    return Exit.FOUND if found.problem else Exit.OK


def record_line(record: Members, style: Style = PLAIN) -> str:
    """One audit record in one line; on a terminal it may be folded."""
    concludes = str(record.get("action")) in {"result", "resumed"}
    status = str(record.get("status")) if concludes and not flaw(record) else ""
    number, moment, action = (str(record.get(name)) for name in ("seq", "time", "action"))
    text = _text(record).removeprefix(status)
    begin = f"{number:>6}  {moment}  {action:<9}  "
    return style.folded(shown(begin), shown(text), " " * 8, shown(status), _MARKS.get(status))


def _text(record: Members) -> str:
    if why := flaw(record):
        return f"no record of storewarden's: {why}"
    match record:
        case {"action": "intent", "name": name}:
            text = f"to remove {record.get('kind', 'an entry')} {name}"
            if "uid" in record:
                text += f" of uid {record['uid']}"
            match record.get("requester"):
                case {"uid": uid, **who}:
                    text += f", asked by uid {uid}"
                    text += f" {who['via']}" if who.get("via") else ""
            if record.get("deriver"):
                text += f"; output {record.get('output', 'unknown')} of {record['deriver']}"
        case {"action": "result" | "resumed", "status": status}:
            again = " (an interrupted removal was finished)" if record.get("resumed") else ""
            text = f"{status} {record.get('name', '')}{again}"
            match record:
                case {"files": int(files), "bytes": int(size)} if files:
                    text += f", {count_text(files, 'file')}, {size_text(size)}"
            for reason in _texts(record.get("reasons")):
                text += f"; {reason}"
        case {"action": "recovered"}:
            text = f"{record.get('torn_bytes')} torn bytes stand before this record"
        case _:
            text = ""
    return text


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def verification_lines(verification: Verification, style: Style = PLAIN) -> Iterator[str]:
    """What `audit verify` found, for a person."""
    records = count_text(verification.records, "record")
    if verification.problem:
        yield style.folded("", f" {shown(verification.problem)}", "    ", "DAMAGED:", Mark.WRONG)
        yield f"{records} before it are whole and in order"
        return
    files = count_text(len(verification.files), "file")
    yield f"{records} in {files}, {style.mark(Mark.WELL, 'all in order')}"
    if verification.open_intents:
        begun = count_text(verification.open_intents, "removal")
        yield f"{begun} begun and not ended: {typed(REMOVE)} ends that"
    yield f"head {verification.head}"
