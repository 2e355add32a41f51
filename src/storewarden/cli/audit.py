# SPDX-License-Identifier: MIT
"""`storewarden audit show` and `audit verify`."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from storewarden.audit import Members
from storewarden.audit_reading import Verification, flaw, read_records, verify
from storewarden.cli.console import MARKS, error, progress, show, style
from storewarden.cli.options import add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser, add_command
from storewarden.readable import (
    PLAIN,
    REMOVE,
    Mark,
    Style,
    count_text,
    json_text,
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
  sudo storewarden audit show
  sudo storewarden audit verify
"""
_SHOW = """\
Prints every whole record of the audit log, oldest first, a line each; with
--json all that stands in them.
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


def define_audit(command: Parser) -> None:
    """Its two actions, and what they take and do."""
    command.description, command.epilog = _AUDIT, _EXAMPLES
    command.ask("audit what? say show, or verify")
    actions = command.add_subparsers(title="actions", metavar="ACTION")
    for name, line, run, description in (
        ("show", "print the audit log", _show, _SHOW),
        ("verify", "is the record whole", _verify, _VERIFY),
    ):
        action = add_command(actions, name, line)
        action.does(run, description)
        action.add_argument("--json", action="store_true", help=JSON)
        add_options(action, "config", "audit-log")


def _show(arguments: argparse.Namespace) -> int:
    log = config_of(arguments).audit_log
    with progress("reading the audit log"):
        records = list(read_records(log))
    if arguments.json:
        show(json_text({"records": records}))
    else:
        look = style()
        for record in records:
            show(record_line(record, look))
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
